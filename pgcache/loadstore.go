package pgcache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// fill calls the loader for loads, stores what it returns and ends them all. f is what their rows were before; nil if
// nobody could say, and then nothing is stored.
func (r *loadRun) fill(ctx context.Context, loads []*coherence.Load, f *fence) {
	c := r.c
	names := make([]string, len(loads))
	for i, l := range loads {
		names[i] = r.keyInView(l.Key)
	}
	if f != nil && !onItsShard(ctx, c, loads) {
		f = nil
	}
	called := r.run.Step()
	r.stats.loads.Add(1)
	began := time.Now()
	loading := ctx
	o := c.begin(&loading, Op{Kind: OpLoad, Name: "load", View: r.namespace, Keys: len(loads)})
	values, err := r.call(loading, loads, names)
	o.from(LayerLoader)
	o.waitedFor(err, r.run.Callers()...)
	notFound := errors.Is(err, ErrNotFound)
	if notFound {
		r.stats.notFound.Add(1)
	}
	switch {
	case err != nil && !notFound:
		r.failed(ctx, loads, err)
		return
	case notFound && r.many: // it does not say which of the keys it means
		if r.early {
			r.earlyErr = err
		}
		end(loads, coherence.Loaded{All: true, Err: err})
		return
	}
	var rows []store.Write
	var outs []coherence.Loaded
	var stored []*coherence.Load
	slow := time.Since(began) >= slowLoad
	for i, l := range loads {
		if r.staleFor() > 0 {
			c.failing.forget(l.Key)
		}
		w := r.newWrite(l.Key, nil)
		w.PublishNew = slow
		f.guard(l.Key, &w)
		value, ok := values[names[i]]
		out, toStore := r.result(l, value, ok && !notFound, err, &w)
		out.Since = called
		if f == nil {
			// Memory is not trusted now, but what it has will be served again later, and may be older than what callers get now.
			c.local.Drop(l.Key)
		}
		if !toStore {
			l.End(out)
			continue
		}
		rows, outs, stored = append(rows, w), append(outs, out), append(stored, l)
	}
	if len(rows) > 0 {
		r.store(ctx, stored, rows, outs, f)
	}
}

// result makes the outcome of l from what its loader has returned, and completes w, the row to be stored. found says that value is one.
// Else notFound is the loader's ErrNotFound, or nil where a loader of many keys has left the key out. toStore says whether w is to be
// stored.
func (r *loadRun) result(l *coherence.Load, value any, found bool, notFound error, w *store.Write) (out coherence.Loaded, toStore bool) {
	fetched, _ := value.(fetchedValue) // of a loader of Fetch
	if fetched.tags != nil {
		w.Tags = fetched.tags
	}
	if !found {
		out.Err, out.All = notFound, notFound != nil
		return out, !fetched.doNotStore && r.negativeWrite(l, w)
	}
	if _, ok := value.(fetchedValue); ok {
		value = fetched.value
	}
	var err error
	if w.Value, err = r.encode(l.Key, value); err != nil {
		if r.early {
			r.earlyErr = err
		}
		return coherence.Loaded{Err: err}, false
	}
	if fetched.ttl != 0 {
		w.TTL = fetched.ttl
	}
	out.Found, out.Loader, out.Row = true, true, *storedRow(*w)
	if _, over := r.life(); fetched.doNotStore || over && fetched.ttl == 0 {
		r.notStored = true
		return out, false
	}
	return out, true
}

// keyInView is the key as callers of the view give it, without the view's namespace.
func (v *view) keyInView(k localcache.Key) string {
	if v.namespace != "" {
		return k.Name
	}
	return k.Row()
}

// store stores what was loaded behind its fence, and ends the loads with out.
func (r *loadRun) store(ctx context.Context, loads []*coherence.Load, rows []store.Write, out []coherence.Loaded, f *fence) {
	c := r.c
	defer func() {
		for i, l := range loads {
			l.End(out[i])
		}
	}()
	// Tombstones live a little longer than LoadGrace. A value that took longer to load might be stored over a Delete whose tombstone
	// is gone; the statement checks the same by the database's clock.
	if f == nil || f.unstorable() || time.Since(f.taken) > store.LoadGrace {
		r.notStored = true
		return
	}
	writers, versions := make([]*coherence.Writer, len(loads)), make([]int64, len(loads))
	slow := false
	//	loader, of a row with tag a                     another process
	//	looks: the row, expired, snapshot 7
	//	SELECT ... FROM users  -> old, of tag b now
	//	                                                UPDATE users; COMMIT
	//	                                                DeleteTags("a"): record of a
	//	store(old, tag b): no record of b, but
	//	  one of a that snapshot 7 does not show: not stored
	for i, l := range loads {
		rows[i].LeftTags = without(f.rows[l.Key].Tags, rows[i].Tags)
		writers[i], versions[i] = c.local.BeginWrite(l.Key, rows[i].Version, l), rows[i].Version
		slow = slow || rows[i].PublishNew
	}
	inline := c.beginWrite(slow, versions...) // a slow load is published at once: other processes wait for its row
	storing, sent := r.run.Step(), coherence.Now()
	// The value is stored even if the last caller leaves now.
	statement, cancel := c.statement(context.WithoutCancel(ctx))
	defer cancel()
	done, err := c.store.PutLoaded(statement, rows, inline)
	if ours, ok := c.locks.(leaser); ok && err == nil && done.Released {
		ours.Released(leasesOf(rows))
	}
	var fenced []int
	for i, w := range writers {
		var e *localcache.Entry
		if err == nil && done.Stored[i] {
			// The fence has shown that nothing was written since the lookup, so the value is current as of this statement.
			out[i].Since = storing
			if rows[i].TTL != 0 { // a row without a TTL only ends a stale value, see negativeWrite
				e = r.entry(loads[i].Key, storedRow(rows[i]), sent)
			}
			r.noteStale(loads[i].Key, &rows[i], sent)
		} else if err == nil {
			fenced = append(fenced, i)
		}
		w.Finish(e, done.Server, rows[i].Tags...)
	}
	c.endWrite(versions, done, err)
	c.checkServer(done.Server)
	if err != nil {
		err = c.explain(statement, err)
		for i := range out {
			if isPermanent(err) {
				out[i] = coherence.Loaded{Err: err}
			}
		}
		if r.early {
			r.earlyErr = fmt.Errorf("storing the value: %w", err)
		} else {
			c.warn("a loaded value was returned to its callers, and storing it failed", "error", err)
		}
		return
	}
	r.useNewer(statement, loads, out, fenced)
}

// without are the tags of have that are not in other; nil: there is none.
func without(have, other []string) (out []string) {
	for _, tag := range have {
		if !slices.Contains(other, tag) {
			out = append(out, tag)
		}
	}
	return out
}

// leasesOf are the leases that ended with the store of rows.
func leasesOf(rows []store.Write) []store.Lease {
	leases := make([]store.Lease, len(rows))
	for i := range rows {
		leases[i] = rows[i].Lease
	}
	return leases
}

// useNewer is for the loads that the fence has refused, because a Set, a Delete or a Clear came between: callers get the newer value, if
// there is one.
func (r *loadRun) useNewer(ctx context.Context, loads []*coherence.Load, out []coherence.Loaded, fenced []int) {
	if len(fenced) == 0 {
		return
	}
	r.c.stats.fenced.Add(uint64(len(fenced)))
	keys := make([]localcache.Key, len(fenced))
	for i, n := range fenced {
		keys[i] = loads[n].Key
	}
	reading, sent := r.run.Step(), coherence.Now()
	newer, _ := r.readMany(ctx, keys, nil) // if it fails, what was loaded is all there is
	for _, n := range fenced {
		if row := newer[loads[n].Key]; row.Live() && r.codecFor(row.Codec) != nil {
			out[n] = coherence.Loaded{Found: true, Row: row, Since: reading, Until: coherence.Until(sent, row.Remaining)}
		}
	}
}

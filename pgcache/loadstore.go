package pgcache

import (
	"context"
	"errors"
	"time"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// fill calls the loader for loads, stores what it returns and ends them all. b is what their rows were before; nil if
// nobody could say, and then nothing is stored.
func (r *loadRun) fill(ctx context.Context, loads []*coherence.Load, b *fence) {
	c := r.c
	names := make([]string, len(loads))
	for i, l := range loads {
		names[i] = r.keyInView(l.Key)
	}
	called := r.run.Step()
	r.stats.loads.Add(1)
	began := time.Now()
	loading := ctx
	o := c.begin(&loading, Op{Kind: OpLoad, Name: "load", View: r.namespace, Keys: len(loads)})
	values, err := r.call(loading, loads, names)
	o.from(LayerLoader)
	o.waitedFor(err, r.run.Callers()...)
	missing := errors.Is(err, ErrNotFound)
	if missing {
		r.stats.notFound.Add(1)
	}
	switch {
	case err != nil && !missing:
		r.failed(ctx, loads, err)
		return
	case missing && r.many: // it says so of no key
		end(loads, coherence.Loaded{All: true, Err: err})
		return
	}
	var rows []store.Write
	var outs []coherence.Loaded
	var stored []*coherence.Load
	_, over := r.life()
	for i, l := range loads {
		if r.staleFor() > 0 {
			c.failing.forget(l.Key)
		}
		value, ok := values[names[i]]
		about, _ := value.(said)
		if _, says := value.(said); says {
			value = about.value
		}
		w := r.newWrite(l.Key, nil)
		w.PublishNew = time.Since(began) >= slowLoad
		if b != nil {
			w.Fence, w.Incarnation, w.Looked = b.rows[l.Key].Version, b.incarnation, b.looked
			w.Snapshot, w.Lease = b.snapshot, b.leases[l.Key]
		}
		out := coherence.Loaded{Since: called}
		if missing || !ok {
			if out.Err, out.All = err, missing; about.doNotStore || !r.absent(l, &w) {
				l.End(out)
				continue
			}
		} else {
			// Each key for itself: a value that can't be encoded fails alone.
			if w.Value, err = r.encode(l.Key, value); err != nil {
				if r.early {
					r.earlyErr = err
				}
				l.End(coherence.Loaded{Err: err})
				continue
			}
			if about.ttl != 0 {
				w.TTL = about.ttl
			}
			if about.tags != nil {
				w.Tags = about.tags
			}
			out.Found, out.Loader, out.Row = true, true, *storedRow(w)
			if about.doNotStore || over && about.ttl == 0 {
				r.notStored = true
				l.End(out)
				continue
			}
		}
		rows, outs, stored = append(rows, w), append(outs, out), append(stored, l)
	}
	if len(rows) > 0 {
		r.store(ctx, stored, rows, outs, b)
	}
}

// given is the key as the view's user knows it.
func (v *view) keyInView(k localcache.Key) string {
	if v.namespace != "" {
		return k.Name
	}
	return k.Row()
}

// store stores what was loaded behind its fence, and ends the loads with out.
func (r *loadRun) store(ctx context.Context, loads []*coherence.Load, rows []store.Write, out []coherence.Loaded, b *fence) {
	c := r.c
	defer func() {
		for i, l := range loads {
			l.End(out[i])
		}
	}()
	// A Delete is remembered for tombstoneGrace: what took longer could overtake one that is forgotten.
	if b == nil || time.Since(b.read) > store.LoadGrace {
		return
	}
	writers, versions := make([]*coherence.Writer, len(loads)), make([]int64, len(loads))
	slow := false
	for i, l := range loads {
		writers[i], versions[i] = c.local.BeginWrite(l.Key, rows[i].Version, l), rows[i].Version
		slow = slow || rows[i].PublishNew
	}
	inline := c.beginWrite(slow, versions...) // a slow load is published at once: other processes wait for its row
	storing, sent := r.run.Step(), coherence.Now()
	// Not with the callers' context: the value is there, and others wait for it.
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
			// Nothing was written between the look and now: so it is as good as loaded now.
			out[i].Since = storing
			if rows[i].TTL != 0 { // else it ends a stale value, no more
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
		c.warn("a loaded value was returned to its callers, and storing it failed", "error", err)
		return
	}
	r.yield(statement, loads, out, fenced)
}

// leasesOf are the leases that ended with the store of rows.
func leasesOf(rows []store.Write) []store.Lease {
	leases := make([]store.Lease, len(rows))
	for i := range rows {
		leases[i] = rows[i].Lease
	}
	return leases
}

// yield gives way where a Set, a Delete or a Clear came between: callers get the newer value, if there is one.
func (r *loadRun) yield(ctx context.Context, loads []*coherence.Load, out []coherence.Loaded, fenced []int) {
	if len(fenced) == 0 {
		return
	}
	r.c.stats.fenced.Add(uint64(len(fenced)))
	keys := make([]localcache.Key, len(fenced))
	for i, n := range fenced {
		keys[i] = loads[n].Key
	}
	reading := r.run.Step()
	newer, _ := r.readMany(ctx, keys, nil) // if it fails, what was loaded is all there is
	for _, n := range fenced {
		if row := newer[loads[n].Key]; row.Live() && r.reader(row.Codec) != nil {
			out[n] = coherence.Loaded{Found: true, Row: row, Since: reading}
		}
	}
}

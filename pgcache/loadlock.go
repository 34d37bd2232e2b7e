package pgcache

import (
	"context"
	"errors"
	"reflect"
	"time"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/lock"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// looker are Locks that look at the rows in the statement that locks their keys: a load then takes a statement less.
type looker interface {
	LockAndLook(ctx context.Context, s *store.Store, keys []string, look lock.Look) (got []bool, looked store.Looked, err error)
}

// leaser are Locks that the statement which stores may give back.
type leaser interface {
	Lease(key string) store.Lease
	Released(leases []store.Lease)
}

// lookup is what a round of loads does before the loader: it locks keys, and reads what their rows are.
type lookup struct {
	r     *loadRun
	loads []*coherence.Load
	keys  []localcache.Key
	names []string
	reads []*coherence.Read // begun before anything was sent
	step  int
	sent  int64

	got    []bool        // which keys are locked; nil: none was asked for
	looked *store.Looked // nil: not yet
}

func (r *loadRun) look(pending []*coherence.Load) *lookup {
	l := &lookup{r: r, loads: pending}
	for _, p := range pending {
		l.keys, l.names = append(l.keys, p.Key), append(l.names, p.Key.Row())
		l.reads = append(l.reads, r.c.local.BeginReadAlone(p.Key))
	}
	l.step, l.sent = r.run.Step(), coherence.Now()
	return l
}

// lock asks the guard. Ours look in the same statement. A guard that fails stops nobody: then this process loads without
// a lock.
func (l *lookup) lock(ctx context.Context) {
	c := l.r.c
	var err error
	if ours, ok := c.locks.(looker); ok {
		var looked store.Looked
		look := lock.Look{Stale: l.r.staleFor() > 0, Strict: l.r.early, Live: l.r.early || l.r.unusable}
		if l.got, looked, err = ours.LockAndLook(ctx, c.store, l.names, look); err == nil {
			l.looked = &looked
		}
	} else {
		l.got, err = c.locks.TryLock(ctx, l.names)
	}
	if err == nil && len(l.got) != len(l.names) {
		err = errors.New("it did not answer for each key")
	}
	if err != nil {
		l.got, l.looked = nil, nil
		c.stats.guardErrors.Add(1)
		c.warn("the guard can't lock, loading without it", "error", err)
	}
}

// release gives back what was locked.
func (l *lookup) release() {
	var held []string
	for i, got := range l.got {
		if got {
			held = append(held, l.names[i])
		}
	}
	if len(held) > 0 {
		l.r.c.locks.Unlock(held)
	}
}

// fence is what the rows and the tables were before a loader began.
type fence struct {
	rows        map[localcache.Key]store.Row
	usable      map[localcache.Key]bool // live, and decodes
	incarnation int64
	looked      time.Duration                  // by the database's clock
	snapshot    string                         // which removals of groups were known
	leases      map[localcache.Key]store.Lease // that the store ends; nil: none
	read        time.Time                      // by ours

	step int   // of the look
	sent int64 // by the monotonic clock
}

func (b *fence) found(k localcache.Key) (store.Row, bool) {
	if b == nil || !b.usable[k] {
		return store.Row{}, false
	}
	return b.rows[k], true
}

// fence reads the rows, if the statement that locked them has not. It must not be a statement that has waited for the
// lock with the snapshot from before: that would miss the row which the last holder has just stored.
func (l *lookup) fence(ctx context.Context) (*fence, error) {
	r, c := l.r, l.r.c
	read := time.Now()
	err := c.check(ctx)
	if err == nil && l.looked == nil {
		l.sent = coherence.Now()
		statement, cancel := c.statement(ctx)
		defer cancel()
		var looked store.Looked
		if looked, err = c.store.Look(statement, l.names, r.staleFor() > 0); err == nil {
			l.looked = &looked
		} else {
			err = c.explain(ctx, err)
		}
	}
	b := &fence{rows: make(map[localcache.Key]store.Row, len(l.keys)), usable: make(map[localcache.Key]bool, len(l.keys)), read: read, step: l.step, sent: l.sent}
	r.old = map[localcache.Key]store.Row{}
	for i, k := range l.keys {
		var row store.Row
		var e *localcache.Entry
		shared := err
		if err == nil {
			row = l.looked.Rows[i]
			if _, stale := row.Stale(); r.staleFor() > 0 && !r.early && (stale || !row.Live()) && r.offer(l.loads[i], row, r.into, l.step, l.sent) {
				r.old[k] = row
			}
			if _, stale := row.Stale(); stale {
				row.Value = nil // to everybody but the load it is no value
			}
			e = r.entry(k, &row, l.sent)
			b.rows[k] = row
			// Bytes that do not decode are to be loaded anew, not found again.
			b.usable[k] = negative(&row) && r.negativeTTL() > 0 || row.Live() && r.unmarshal(k, row.Codec, row.Value, reflect.New(r.into).Interface()) == nil
			if row.Live() && !b.usable[k] {
				r.unusable = true
			}
		} else if ctx.Err() != nil {
			shared = errGivenUp
		}
		l.reads[i].Finish(row, shared, e)
	}
	if err != nil {
		return nil, err
	}
	b.snapshot = l.looked.Snapshot
	if ours, ok := c.locks.(leaser); ok {
		b.leases = make(map[localcache.Key]store.Lease, len(l.keys))
		for i, got := range l.got {
			if got {
				b.leases[l.keys[i]] = ours.Lease(l.names[i])
			}
		}
	}
	b.incarnation, b.looked = l.looked.Incarnation, l.looked.At
	if len(l.keys) > 0 {
		c.checkServer(l.looked.Rows[0].Server)
	}
	return b, nil
}

package pgcache

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"time"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/lock"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// looker is implemented by Locks that read the rows in the statement that locks their keys: a load then takes a statement less.
type looker interface {
	LockAndLook(ctx context.Context, s *store.Store, keys []string, look lock.Look) (locked []bool, looked store.Looked, err error)
}

// leaser is implemented by Locks that the statement which stores the rows can give back. GiveBack is Unlock for leases: once such a statement
// is done, the next load of the key may have a lease of its own.
type leaser interface {
	Lease(key string) store.Lease
	Released(leases []store.Lease)
	GiveBack(leases []store.Lease)
}

// lookup is what a round of loads does before it calls the loader: it locks keys, and reads their rows. beginLookup, lock, fence and
// release are called in that order; lock may be left out.
type lookup struct {
	r     *loadRun
	loads []*coherence.Load
	keys  []localcache.Key
	names []string
	reads []*coherence.Read // begun before anything was sent, ended by fence
	step  int               // of the run
	sent  int64             // when the statement that read the rows was sent, or a moment before

	locked []bool        // which keys this process has locked; nil: the guard was not asked, or it failed
	leases []store.Lease // of each key that it has locked, where the guard is a leaser; none for a key that shares one with others
	looked *store.Looked // the rows; nil: not read yet
}

// beginLookup begins the lookup of the loads' keys. The caller must call fence, which ends the reads.
func (r *loadRun) beginLookup(pending []*coherence.Load) *lookup {
	l := &lookup{r: r, loads: pending}
	for _, p := range pending {
		l.keys, l.names = append(l.keys, p.Key), append(l.names, p.Key.Row())
		l.reads = append(l.reads, r.c.local.BeginReadAlone(p.Key))
	}
	l.step, l.sent = r.run.Step(), coherence.Now()
	return l
}

// lock asks the guard for the keys, and reads the rows in the same statement if the guard can. If the guard fails, this process loads
// without a lock.
func (l *lookup) lock(ctx context.Context) {
	c := l.r.c
	err := l.ask(ctx)
	if err == nil && len(l.locked) != len(l.names) {
		err = errors.New("it did not answer for each key")
	}
	if err != nil {
		l.locked, l.looked = nil, nil
		c.stats.guardErrors.Add(1)
		c.warn("the guard can't lock, loading without it", "error", err)
	}
	if leaser, ok := c.locks.(leaser); ok {
		l.leases = make([]store.Lease, len(l.names))
		for i, locked := range l.locked {
			if locked {
				l.leases[i] = leaser.Lease(l.names[i])
			}
		}
	}
}

// ask is lock without what is done if the guard fails.
func (l *lookup) ask(ctx context.Context) (err error) {
	c := l.r.c
	if looks, ok := c.locks.(looker); ok {
		var looked store.Looked
		look := lock.Look{Stale: l.r.staleFor() > 0, Strict: l.r.early, Live: l.r.early || l.r.unusable}
		if l.locked, looked, err = looks.LockAndLook(ctx, c.store, l.names, look); err == nil {
			l.looked = &looked
		}
		return err
	}
	defer func() {
		if p := recover(); p != nil { // in a goroutine of the cache's: it would end the program
			err = guardPanic(p)
		}
	}()
	l.locked, err = c.locks.TryLock(ctx, l.names)
	return err
}

func guardPanic(p any) error { return fmt.Errorf("it panicked: %s\n\n%s", panicText(p), debug.Stack()) }

// release gives back what was locked.
func (l *lookup) release() {
	var held []string
	var leases []store.Lease
	for i, locked := range l.locked {
		switch {
		case locked && l.leases != nil && l.leases[i] != store.Lease{}:
			leases = append(leases, l.leases[i])
		case locked:
			held = append(held, l.names[i])
		}
	}
	if leaser, ok := l.r.c.locks.(leaser); ok && len(leases) > 0 {
		leaser.GiveBack(leases)
	}
	if len(held) == 0 {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			l.r.c.warn("the guard can't give locks back", "error", guardPanic(p))
		}
	}()
	l.r.c.locks.Unlock(held)
}

// fence is what the rows and the tables were before a loader began: the loader's value is stored only if they are the same then.
type fence struct {
	rows        map[localcache.Key]store.Row
	usable      map[localcache.Key]bool        // the rows that are live and decode: no load is needed
	incarnation int64                          // of the tables
	looked      time.Duration                  // when, by the database's clock
	taken       time.Time                      // when, by this process's clock
	snapshot    string                         // which removals of groups were visible
	leases      map[localcache.Key]store.Lease // which the statement that stores gives back; nil: none

	step int   // that of the run in which the rows were read
	sent int64 // when the statement that read them was sent, by the monotonic clock
}

// found returns the row of k if it needs no load. A nil fence has none.
func (f *fence) found(k localcache.Key) (store.Row, bool) {
	if f == nil || !f.usable[k] {
		return store.Row{}, false
	}
	return f.rows[k], true
}

// unstorable says that nothing can be stored behind this fence: a crash has removed the incarnation, and none can be made yet.
func (f *fence) unstorable() bool { return f != nil && f.incarnation == 0 }

// guard puts what the fence knows of k into w, the row that is to be stored.
func (f *fence) guard(k localcache.Key, w *store.Write) {
	if f != nil {
		w.Fence, w.Incarnation, w.Looked = f.rows[k].Version, f.incarnation, f.looked
		w.Snapshot, w.Lease = f.snapshot, f.leases[k]
	}
}

// fence reads the rows, if the statement that locked them has not, and ends the reads that beginLookup began. The statement must not be
// one that took its snapshot before it waited for the lock: it would miss the row which the last holder has just stored.
func (l *lookup) fence(ctx context.Context) (*fence, error) {
	r, c := l.r, l.r.c
	f := &fence{
		rows: make(map[localcache.Key]store.Row, len(l.keys)), usable: make(map[localcache.Key]bool, len(l.keys)),
		taken: time.Now(), step: l.step,
	}
	r.old = map[localcache.Key]store.Row{}
	if err := l.readRows(ctx); err != nil {
		forSharers := err
		if ctx.Err() != nil {
			forSharers = errGivenUp
		}
		for _, read := range l.reads {
			read.Finish(store.Row{}, forSharers, nil)
		}
		return nil, err
	}
	f.sent = l.sent
	for i, k := range l.keys {
		row := r.offerStale(l.loads[i], l.looked.Rows[i], l.step, l.sent)
		f.rows[k], f.usable[k] = row, r.usable(k, &row)
		l.reads[i].Finish(row, nil, r.entry(k, &row, l.sent))
	}
	f.incarnation, f.looked, f.snapshot = l.looked.Incarnation, l.looked.At, l.looked.Snapshot
	if l.leases != nil {
		f.leases = make(map[localcache.Key]store.Lease, len(l.keys))
		for i, lease := range l.leases {
			f.leases[l.keys[i]] = lease
		}
	}
	if len(l.keys) > 0 {
		c.checkServer(l.looked.Rows[0].Server)
	}
	return f, nil
}

// readRows reads the rows into looked, if lock has not.
func (l *lookup) readRows(ctx context.Context) error {
	c := l.r.c
	if err := c.check(ctx); err != nil || l.looked != nil {
		return err
	}
	l.sent = coherence.Now()
	statement, cancel := c.statement(ctx)
	defer cancel()
	looked, err := c.store.Look(statement, l.names, l.r.staleFor() > 0)
	if err != nil {
		return c.explain(ctx, err)
	}
	l.looked = &looked
	return nil
}

// offerStale offers the row to callers of l that take a stale value. It returns the row as all others see it: without its value if that
// has expired.
func (r *loadRun) offerStale(l *coherence.Load, row store.Row, step int, sent int64) store.Row {
	_, stale := row.Stale()
	if r.staleFor() > 0 && !r.early && (stale || !row.Live()) && r.offer(l, row, r.into, step, sent) {
		r.old[l.Key] = row
	}
	if stale {
		row.Value = nil
	}
	return row
}

// usable says that the row of k needs no load. It sets r.unusable if the row is live and does not decode: such a row needs one.
func (r *loadRun) usable(k localcache.Key, row *store.Row) bool {
	if negative(row) && r.negativeTTL() > 0 || row.Live() && r.unmarshal(k, row.Codec, row.Value, reflect.New(r.into).Interface()) == nil {
		return true
	}
	r.unusable = r.unusable || row.Live()
	return false
}

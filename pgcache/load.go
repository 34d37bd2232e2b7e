package pgcache

import (
	"context"
	"math/rand/v2"
	"reflect"
	"time"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// loadRun is one run of a loader, for one key or for many.
type loadRun struct {
	view
	run      *coherence.Run
	arrived  int64 // when the caller of GetOrSetMany came
	load     loadFunc
	into     reflect.Type // what callers decode into
	many     bool         // the loader is one of many keys
	degraded bool         // the database did not answer: load and return, no more
	unusable bool         // a live row was found that does not answer the callers: it is to be locked all the same

	early     bool                         // in the background, see RefreshAfter
	earlyErr  error                        // why an early run has brought nothing, if it failed
	notStored bool                         // the loader of an early run said that its value is not to be stored
	old       map[localcache.Key]store.Row // values for the loader, of the last look
}

// start runs the loads in a goroutine that Close waits for.
func (r *loadRun) start(loads []*coherence.Load) {
	if !r.c.goDo(func() { r.rounds(loads) }) {
		end(loads, coherence.Loaded{All: true, Err: ErrClosed})
	}
}

func end(loads []*coherence.Load, out coherence.Loaded) {
	for _, l := range loads {
		l.End(out)
	}
}

// Those who don't get the lock look again when the key is invalidated, and after a growing wait in case it is not: the
// winner's store of a new row is not published unless the load was slow.
const (
	firstWait = 2 * time.Millisecond
	longWait  = 100 * time.Millisecond
	slowLoad  = 50 * time.Millisecond
)

// rounds goes on until every load has ended. In each round it locks what it can, looks again, loads what it has locked,
// and waits for the rest.
func (r *loadRun) rounds(pending []*coherence.Load) {
	ctx, cancel := r.context()
	defer cancel()
	if pending = r.skip(ctx, pending); len(pending) == 0 {
		return
	}

	invalidated := make(chan struct{}, 1)
	for _, l := range pending {
		defer r.c.local.Watch(l.Key, invalidated).Stop()
	}
	started := time.Now()
	for pause := firstWait; len(pending) > 0; pause = min(pause*2, longWait) {
		withoutLock := r.degraded || r.c.null || time.Since(started) >= r.c.opts.LockTimeout
		knew := r.unusable
		pending = r.round(ctx, pending, withoutLock, started)
		if len(pending) == 0 {
			return
		}
		if r.unusable && !knew {
			continue // nobody may have the lock: a guard may not lock keys that have a live row
		}
		pauseFor(ctx, pause*3/4+rand.N(pause/2), invalidated) // not all processes at once
		if ctx.Err() != nil {
			end(pending, coherence.Loaded{All: true, Err: context.Cause(ctx)})
			return
		}
	}
}

// context is that of the run, which Close ends too.
func (r *loadRun) context() (ctx context.Context, cancel func()) {
	ctx, end := context.WithCancelCause(r.run.Ctx)
	stop := context.AfterFunc(r.c.ctx, func() { end(ErrClosed) })
	return ctx, func() { stop(); end(nil) }
}

func pauseFor(ctx context.Context, d time.Duration, invalidated <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-invalidated:
	case <-ctx.Done():
	}
}

// round ends the loads that it can and returns the others: keys that another process holds. withoutLock loads them all.
func (r *loadRun) round(ctx context.Context, pending []*coherence.Load, withoutLock bool, started time.Time) (waiting []*coherence.Load) {
	if r.degraded || r.c.null {
		r.offerAllFromMemory(pending)
		r.fill(ctx, pending, nil)
		return nil
	}
	l := r.look(pending)
	defer l.release()
	if !withoutLock {
		// The pool may have no connection to spare: then this process waits no longer than for another's load.
		locking, cancel := context.WithDeadline(ctx, started.Add(r.c.opts.LockTimeout))
		l.lock(locking)
		cancel()
	}
	fence, err := l.fence(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		end(pending, coherence.Loaded{All: true, Err: context.Cause(ctx)})
		return nil
	case err != nil && isPermanent(err):
		end(pending, coherence.Loaded{All: true, Err: err})
		return nil
	case err != nil:
		fence = nil
		r.offerAllFromMemory(pending)
	}
	var mine []*coherence.Load
	for i, load := range pending {
		if row, ok := fence.found(load.Key); ok {
			load.End(coherence.Loaded{Row: row, Found: true, Since: l.step, Until: coherence.Until(l.sent, row.Remaining)})
		} else if l.locked == nil || l.locked[i] {
			mine = append(mine, load)
		} else {
			waiting = append(waiting, load)
		}
	}
	if len(mine) > 0 {
		r.fill(ctx, mine, fence)
	}
	return waiting
}

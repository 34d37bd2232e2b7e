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

// loadRun is one run of a loader, for one key or for many. Its fields belong to the goroutine that start or loadEarly begins, once that
// runs; the loader itself runs in another, see call.
type loadRun struct {
	view
	run      *coherence.Run
	arrived  int64 // when the caller first asked; of GetOrSetMany alone
	load     loadFunc
	into     reflect.Type                 // what callers decode into
	many     bool                         // the loader is one of many keys
	degraded bool                         // the database did not answer: call the loader and store nothing
	unusable bool                         // a live row was found that does not decode: leases, which skip live rows, are to lock it too
	old      map[localcache.Key]store.Row // what the last look found, for Load.Stale

	// Of an early load, see loadEarly.
	early     bool
	earlyErr  error // what the loader failed with, or the encoding or the storing of its value
	notStored bool  // its value is not stored: the loader or ExpiresAt has said so, or it came too late
}

// start runs the loads in a goroutine that Close waits for.
func (r *loadRun) start(loads []*coherence.Load) {
	if !r.c.goDo(func() { r.rounds(loads) }) {
		end(loads, coherence.Loaded{All: true, Err: ErrClosed})
	}
}

// end ends loads, each with out.
func end(loads []*coherence.Load, out coherence.Loaded) {
	for _, l := range loads {
		l.End(out)
	}
}

// A process that does not get the lock looks again when the key is invalidated, and also after a wait, which doubles from firstWait to
// longWait: a new row that a load stores is published only if the load took slowLoad.
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
	if pending = r.endThrottled(ctx, pending); len(pending) == 0 {
		return
	}

	invalidated := make(chan struct{}, 1)
	for _, l := range pending {
		defer r.c.local.Watch(l.Key, invalidated).Stop()
	}
	started := time.Now()
	for pause := firstWait; len(pending) > 0; pause = min(pause*2, longWait) {
		withoutLock := r.degraded || r.c.null || time.Since(started) >= r.c.opts.LockTimeout
		foundUnusable := r.unusable
		pending = r.round(ctx, pending, withoutLock, started)
		if len(pending) == 0 {
			return
		}
		if r.unusable && !foundUnusable {
			continue // without a wait: the guard has not locked the key because its row is live, and locks it in the next round
		}
		pauseFor(ctx, pause*3/4+rand.N(pause/2), invalidated) // random, so that processes do not look at the same time
		if ctx.Err() != nil {
			end(pending, coherence.Loaded{All: true, Err: context.Cause(ctx)})
			return
		}
	}
}

// context returns the context of the run, which Close ends too.
func (r *loadRun) context() (ctx context.Context, cancel func()) {
	ctx, end := context.WithCancelCause(r.run.Ctx)
	stop := context.AfterFunc(r.c.ctx, func() { end(ErrClosed) })
	return ctx, func() { stop(); end(nil) }
}

// pauseFor waits for d, for invalidated or for the end of ctx.
func pauseFor(ctx context.Context, d time.Duration, invalidated <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-invalidated:
	case <-ctx.Done():
	}
}

// round ends the loads that it can and returns the others: those whose key another process has locked. withoutLock loads them all.
func (r *loadRun) round(ctx context.Context, pending []*coherence.Load, withoutLock bool, started time.Time) (waiting []*coherence.Load) {
	if r.degraded || r.c.null {
		r.offerAllFromMemory(pending)
		r.fill(ctx, pending, nil)
		return nil
	}
	l := r.beginLookup(pending)
	defer l.release()
	if !withoutLock {
		// A pool without a free connection keeps this process waiting no longer than another's load does.
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
		} else if l.locked == nil || l.locked[i] || fence.unstorable() { // there is no row to wait for
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

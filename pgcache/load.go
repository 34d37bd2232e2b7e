package pgcache

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/pgcache/go/internal/coherence"
)

// GetOrSet reads the value under key into dst, or calls load, stores what it returns and decodes that into dst.
//
// One caller in the fleet runs load for a key at a time, as a rule (see Loads in the package comment); the others get its value. load runs detached from ctx,
// but for its values, and ends when its last waiter has left or after LoadTimeout. An error of load reaches all that
// wait for it and nothing is stored. One that is ErrNotFound is returned as load returned it and counted in Stats.NotFound,
// not in Stats.LoadErrors. A panic reaches them as a PanicError. If a Set, Delete or Clear finishes while load runs, what it
// returns is not stored; callers that waited get the newer value if the row has one, else what was loaded.
//
// When the database can't be reached, GetOrSet loads and returns without storing. Permanent errors are returned:
// ErrClosed, ErrNotMigrated, a SchemaError, missing rights.
func (c *Cache) GetOrSet(ctx context.Context, key string, dst any, load func(context.Context) (any, error), opts ...Option) error {
	const op = "get or set"
	if err := checkDst(dst); err != nil {
		return fail(op, key, err)
	}
	if load == nil {
		return fail(op, key, errNilLoader)
	}
	v, err := c.base.apply(opts)
	if err != nil {
		return fail(op, key, err)
	}
	if v.fromMemory(keyOf(key), dst) {
		return nil
	}
	return v.getOrSet(ctx, key, dst, load)
}

var errNilLoader = errors.New("the loader is nil")

// getOrSet is the way of a miss in memory: the database, then a load that is under way, then a load of its own.
func (v *view) getOrSet(ctx context.Context, key string, dst any, load func(context.Context) (any, error)) (err error) {
	const op = "get or set"
	if err := v.enter(op, key); err != nil {
		return err
	}
	k, c := v.key(key), v.c
	name := k.Row()
	if loading(ctx, c, k) {
		return fail(op, name, ErrRecursiveLoad)
	}
	o := v.observe(&ctx, op, 1)
	defer o.end(nil, &err)
	arrived := coherence.Now()
	for {
		row, err := v.read(ctx, k)
		if err != nil && (ctx.Err() != nil || misconfigured(err)) {
			return fail(op, name, err)
		}
		if err == nil && v.take(k, row, dst) {
			return nil
		}
		run := coherence.NewRun(context.WithoutCancel(ctx))
		l, part, steps := c.local.Join(k, run, arrived)
		switch part {
		case coherence.Waits:
			run.Leave()
			if err := waitFor(ctx, l, false); err != nil {
				return fail(op, name, err)
			}
			continue
		case coherence.Leads:
			r := &loadRun{view: *v, run: run, into: reflect.TypeOf(dst).Elem(), degraded: err != nil, load: func(ctx context.Context, names []string) (map[string]any, error) {
				value, err := load(ctx)
				return map[string]any{names[0]: value}, err
			}}
			r.start([]*coherence.Load{l})
		case coherence.Joins:
			run.Leave()
			v.stats.coalesced.Add(1)
			l.Run.Share(ctx)
		}
		o.from(LayerLoader)
		err = waitFor(ctx, l, true)
		if err != nil {
			return fail(op, name, err)
		}
		out := l.Result()
		switch {
		case errors.Is(out.Err, ErrNotFound):
			return out.Err
		case out.Err != nil:
			return failLoad(op, name, out.Err)
		case !l.Answers(steps, arrived):
			continue // what there is may be from before a Delete that this caller must see
		case !out.Found:
			continue // a loader of many keys left it out; ours may know it
		}
		// What was just loaded must decode: another loader's type under the same key is an error, not a miss.
		if err := v.unmarshal(l.Key, out.Row.Codec, out.Row.Value, dst); err != nil {
			return fail(op, name, fmt.Errorf("what was loaded: %w", err))
		}
		return nil
	}
}

// waitFor waits until l has ended, or ctx. part says that the caller has a part in it, which then ends. A loader that waits
// for a load which waits for it gets ErrRecursiveLoad.
func waitFor(ctx context.Context, l *coherence.Load, part bool) error {
	if part {
		defer l.Run.Leave()
	}
	if chain := chainOf(ctx); chain != nil {
		done, ok := chain.run.WaitFor(l.Run)
		if !ok {
			return ErrRecursiveLoad
		}
		defer done()
	}
	select {
	case <-l.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// loadRun is one run of a loader, for one key or for many.
type loadRun struct {
	view
	run      *coherence.Run
	arrived  int64 // when the caller of GetOrSetMany came
	load     func(ctx context.Context, names []string) (map[string]any, error)
	into     reflect.Type // what callers decode into
	degraded bool         // the database did not answer: load and return, no more
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
	ctx, cancel := context.WithCancelCause(r.run.Ctx)
	defer cancel(nil)
	defer context.AfterFunc(r.c.ctx, func() { cancel(ErrClosed) })()

	invalidated := make(chan struct{}, 1)
	for _, l := range pending {
		defer r.c.local.Watch(l.Key, invalidated).Stop()
	}
	started := time.Now()
	for pause := firstWait; len(pending) > 0; pause = min(pause*2, longWait) {
		alone := r.degraded || r.c.null || time.Since(started) >= r.c.opts.LockTimeout
		pending = r.round(ctx, pending, alone, started)
		if len(pending) == 0 {
			return
		}
		pauseFor(ctx, pause, invalidated)
		if ctx.Err() != nil {
			end(pending, coherence.Loaded{All: true, Err: context.Cause(ctx)})
			return
		}
	}
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

// round ends the loads that it can and returns the others: keys that another process holds. alone loads them all.
func (r *loadRun) round(ctx context.Context, pending []*coherence.Load, alone bool, started time.Time) (waiting []*coherence.Load) {
	if r.degraded || r.c.null {
		r.fill(ctx, pending, nil)
		return nil
	}
	l := r.look(pending)
	defer l.release()
	if !alone {
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
	case err != nil && misconfigured(err):
		end(pending, coherence.Loaded{All: true, Err: err})
		return nil
	case err != nil:
		fence = nil
	}
	var mine []*coherence.Load
	for i, load := range pending {
		if row, ok := fence.found(load.Key); ok {
			load.End(coherence.Loaded{Row: row, Found: true, Since: l.step, Until: coherence.Until(l.sent, row.Remaining)})
		} else if l.got == nil || l.got[i] {
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

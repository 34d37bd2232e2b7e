package pgcache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"time"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
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
	k := keyOf(key)
	if h := v.fromMemory(k, dst); h.e != nil {
		if h.left() < v.due && v.dueInMemory(h) {
			v.refreshBehind(ctx, []localcache.Key{k}, reflect.TypeOf(dst).Elem(), false, plainly(load))
		}
		return nil
	}
	_, err = v.getOrSet(ctx, op, key, dst, plainly(load))
	return err
}

var errNilLoader = errors.New("the loader is nil")

// loadFunc is a loader of one key or many. old are the values, stale or still live, that were found under them.
type loadFunc func(ctx context.Context, names []string, old map[localcache.Key]store.Row) (map[string]any, error)

// getOrSet is the way of a miss in memory: the database, then a load that is under way, then a load of its own.
func (v *view) getOrSet(ctx context.Context, op, key string, dst any, load loadFunc) (result got, err error) {
	if err := v.enter(op, key); err != nil {
		return got{}, err
	}
	k, c := v.key(key), v.c
	name, into := k.Row(), reflect.TypeOf(dst).Elem()
	if loading(ctx, c, k) {
		return got{}, fail(op, name, ErrRecursiveLoad)
	}
	o := v.observe(&ctx, op, 1)
	defer o.end(nil, &err)
	arrived := coherence.Now()
	for failures := 0; ; {
		row, found, err := v.readFirst(ctx, k, arrived, dst)
		switch {
		case err != nil && (ctx.Err() != nil || misconfigured(err) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrLoadTimeout)):
			if errors.Is(err, ErrNotFound) {
				return got{}, err
			}
			if errors.Is(err, ErrLoadTimeout) {
				if g, ok := v.takeMemory(k, dst, err); ok {
					return g, nil
				}
			}
			return got{}, fail(op, name, err)
		case found:
			if row.Remaining < v.due && v.isDue(row.Version, row.Remaining) {
				v.refreshBehind(ctx, []localcache.Key{k}, into, false, load)
			}
			return got{source: FromDatabase}, nil
		}
		run := coherence.NewRun(context.WithoutCancel(ctx))
		l, part, steps := c.local.Join(k, run, arrived)
		if part != coherence.Waits && v.impatient() {
			l.Run.Keep()
		}
		switch part {
		case coherence.Waits:
			run.Leave()
		case coherence.Leads:
			r := &loadRun{view: *v, run: run, into: into, degraded: err != nil, load: load}
			r.start([]*coherence.Load{l})
		case coherence.Joins:
			run.Leave()
			v.stats.coalesced.Add(1)
			l.Run.Share(ctx)
		}
		o.from(LayerLoader)
		g, early, err := v.waitFor(ctx, l, part != coherence.Waits, steps, arrived, dst)
		if err != nil {
			return got{}, fail(op, name, err)
		}
		if early {
			return g, nil
		}
		if part == coherence.Waits {
			continue
		}
		out := l.Result()
		if v.staleFor() > 0 && out.Failed {
			g, done := v.takeOffer(l, steps, arrived, dst, out.Err)
			// Nobody has looked for this caller: it looks for itself. The failures of others it does not wait for again and again.
			if failures++; !done && l.Offered(steps, arrived) == nil && failures < 3 {
				continue
			}
			if !done {
				return got{}, failLoad(op, name, out.Err)
			}
			return g, nil
		}
		switch {
		case out.Skipped:
			continue // of a view with StaleFor; this one has none
		case v.knewNothing(l, steps, arrived):
			continue
		case errors.Is(out.Err, ErrNotFound):
			return got{}, out.Err
		case out.Err != nil:
			return got{}, failLoad(op, name, out.Err)
		case !l.Answers(steps, arrived):
			continue // what there is may be from before a Delete that this caller must see
		case !out.Found:
			continue // a loader of many keys left it out; ours may know it
		case v.noneInRow(&out.Row):
			return got{}, ErrNotFound
		case negative(&out.Row):
			continue
		}
		// What was just loaded must decode: another loader's type under the same key is an error, not a miss.
		if err := v.unmarshal(l.Key, out.Row.Codec, out.Row.Value, dst); err != nil {
			return got{}, fail(op, name, fmt.Errorf("what was loaded: %w", err))
		}
		return got{source: sourceOf(&out)}, nil
	}
}

// waitFor waits until l has ended, or ctx. part says that the caller has a part in it, which then ends. A loader that waits
// for a load which waits for it gets ErrRecursiveLoad. early says that the caller waits no longer, and that dst has a value.
func (v *view) waitFor(ctx context.Context, l *coherence.Load, part bool, steps int, arrived int64, dst any) (g got, early bool, err error) {
	if part {
		defer l.Run.Leave()
	}
	if chain := chainOf(ctx); chain != nil {
		done, ok := chain.run.WaitFor(l.Run)
		if !ok {
			return got{}, false, ErrRecursiveLoad
		}
		defer done()
	}
	if v.impatient() {
		return v.waitAWhile(ctx, l, steps, arrived, dst)
	}
	select {
	case <-l.Done():
		return got{}, false, nil
	case <-ctx.Done():
		return got{}, false, ctx.Err()
	}
}

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

	early  bool                         // in the background, see RefreshAfter
	fault  error                        // why an early run has brought nothing, if it failed
	unkept bool                         // the loader of an early run said that its value is not to be stored
	old    map[localcache.Key]store.Row // values for the loader, of the last look
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
		alone := r.degraded || r.c.null || time.Since(started) >= r.c.opts.LockTimeout
		knew := r.unusable
		pending = r.round(ctx, pending, alone, started)
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

// round ends the loads that it can and returns the others: keys that another process holds. alone loads them all.
func (r *loadRun) round(ctx context.Context, pending []*coherence.Load, alone bool, started time.Time) (waiting []*coherence.Load) {
	if r.degraded || r.c.null {
		r.offerAllFromMemory(pending)
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
		r.offerAllFromMemory(pending)
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

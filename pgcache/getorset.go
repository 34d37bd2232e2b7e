package pgcache

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// GetOrSet reads the value under key into dst, or calls load, stores what it returns and decodes that into dst.
//
// One caller in the fleet runs load for a key at a time, as a rule (see Loads in the package comment); the others get its
// value. So all calls for one key must pass a load that returns the same, and what the value depends on, such as the user who
// may see it, belongs in the key.
//
// load runs detached from ctx, but for its values, and ends when its last waiter has left or after LoadTimeout. An error of
// load reaches all that wait for it and nothing is stored. One that is ErrNotFound is returned as load returned it and counted
// in Stats.NotFound, not in Stats.LoadErrors. A panic reaches them as a [PanicError]. If a Set, Delete or Clear finishes while
// load runs, what it returns is not stored; callers that waited get the newer value if the row has one, else what was loaded.
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
			v.loadEarly(ctx, []localcache.Key{k}, reflect.TypeOf(dst).Elem(), false, plainLoader(load))
		}
		return nil
	}
	_, err = v.getOrSet(ctx, op, key, dst, plainLoader(load))
	return err
}

var errNilLoader = errors.New("the loader is nil")

// getOrSet is GetOrSet where memory has nothing: it asks the database, joins the load of the key that is under way, or begins one; and
// it does so again where the result is not one for this caller.
func (v *view) getOrSet(ctx context.Context, op, key string, dst any, load loadFunc) (result answer, err error) {
	if err := v.enter(op, key); err != nil {
		return answer{}, err
	}
	k, c := v.key(key), v.c
	name, into := k.Row(), reflect.TypeOf(dst).Elem()
	if loading(ctx, c, k) {
		return answer{}, fail(op, name, ErrRecursiveLoad)
	}
	if v.negativeInMemory(k) { // the Observer is not shown what memory answers
		return answer{}, ErrNotFound
	}
	o := v.observe(&ctx, op, 1)
	defer o.end(nil, &err)
	arrived := coherence.Now()
	for failures := 0; ; {
		row, found, err := v.readFirst(ctx, k, arrived, dst)
		switch {
		case found:
			if row.Remaining < v.due && v.isDue(row.Version, row.Remaining) {
				v.loadEarly(ctx, []localcache.Key{k}, into, false, load)
			}
			return answer{source: FromDatabase}, nil
		case errors.Is(err, ErrNotFound):
			return answer{}, err
		case errors.Is(err, ErrLoadTimeout):
			if g, ok := v.takeMemory(k, dst, err); ok {
				return g, nil
			}
			return answer{}, fail(op, name, err)
		case err != nil && (ctx.Err() != nil || isPermanent(err)):
			return answer{}, fail(op, name, err)
		}
		run := coherence.NewRun(context.WithoutCancel(ctx))
		w := v.join(ctx, k, run, arrived)
		if w.part == coherence.Leads {
			r := &loadRun{view: *v, run: run, into: into, degraded: err != nil, load: load}
			r.start([]*coherence.Load{w.load})
		} else {
			run.Leave()
		}
		o.from(LayerLoader)
		g, answered, err := v.waitAndLeave(ctx, w, dst)
		switch {
		case err != nil:
			return answer{}, fail(op, name, err)
		case answered:
			return g, nil
		case w.part == coherence.Waits:
			continue
		}
		if out := w.load.Result(); v.staleFor() > 0 && out.Failed {
			if g, ok := v.takeOffer(w, dst, out.Err); ok {
				return g, nil
			}
			// If nobody has read the row since this caller came, it begins again and reads the row itself. It stops after three loads
			// that failed.
			if failures++; w.offered() == nil && failures < 3 {
				continue
			}
			return answer{}, failLoad(op, name, out.Err)
		}
		g, again, err := v.takeLoaded(op, w, dst)
		if !again {
			return g, err
		}
	}
}

// takeLoaded decodes the result of a load that has ended. again says that it is not one for this caller.
func (v *view) takeLoaded(op string, w waiter, dst any) (g answer, again bool, err error) {
	name, out := w.load.Key.Row(), w.load.Result()
	switch {
	case out.Skipped:
		return answer{}, true, nil // it called no loader: a load of a view with StaleFor, or an early one
	case v.foundNothingBefore(w):
		return answer{}, true, nil
	case errors.Is(out.Err, ErrNotFound):
		return answer{}, false, out.Err
	case out.Err != nil:
		return answer{}, false, failLoad(op, name, out.Err)
	case !w.answers():
		return answer{}, true, nil // it may be from before a Delete that this caller must see
	case !out.Found:
		return answer{}, true, nil // a loader of many keys left it out; this caller's may know it
	case v.negativeInRow(&out.Row):
		return answer{}, false, ErrNotFound
	case negative(&out.Row):
		return answer{}, true, nil
	}
	// What was just loaded must decode: another loader's type under the same key is an error, not a miss.
	if err := v.unmarshal(w.load.Key, out.Row.Codec, out.Row.Value, dst); err != nil {
		return answer{}, false, fail(op, name, fmt.Errorf("what was loaded: %w", err))
	}
	return answer{source: sourceOf(&out)}, false, nil
}

// readFirst reads the row of k into dst, before a load and no longer than HardTimeout. For a view with a NegativeTTL the error is
// ErrNotFound where a negative entry says that there is nothing. It reads nothing if a loader of k has failed a moment ago: the load
// then reads the row, see loadRun.endThrottled.
func (v *view) readFirst(ctx context.Context, k localcache.Key, arrived int64, dst any) (row store.Row, found bool, err error) {
	if v.resilience == nil {
		row, err = v.read(ctx, k)
		return row, err == nil && v.take(k, row, dst), err
	}
	if v.negativeInMemory(k) {
		return row, false, ErrNotFound
	}
	if _, yes := v.throttled(k); yes {
		return row, false, nil
	}
	reading, cancel := v.withHardTimeout(ctx, arrived)
	defer cancel()
	row, err = v.read(reading, k)
	switch {
	case err != nil && ctx.Err() == nil && reading.Err() != nil:
		return row, false, v.resilience.timedOut(optionHard)
	case err != nil:
		return row, false, err
	case v.negativeInRow(&row):
		return row, false, ErrNotFound
	}
	return row, v.take(k, row, dst), nil
}

// waiter is a caller that has joined the load of a key.
type waiter struct {
	load    *coherence.Load
	part    coherence.Part
	steps   int   // of the load's Run that had begun when the caller joined
	arrived int64 // when the caller first asked
}

// offered is what a statement that was sent after the caller joined has found in the row; nil if there was none. answers says whether
// the load's result shows all that was done before the caller came.
func (w waiter) offered() *coherence.Loaded { return w.load.Offered(w.steps, w.arrived) }
func (w waiter) answers() bool              { return w.load.Answers(w.steps, w.arrived) }

// join joins the load of k that is under way, or begins one for run. A caller that Leads starts it; one that Joins must leave its Run.
func (v *view) join(ctx context.Context, k localcache.Key, run *coherence.Run, arrived int64) waiter {
	l, part, steps := v.c.local.Join(k, run, arrived)
	if part != coherence.Waits && v.hasTimeouts() {
		l.Run.Keep()
	}
	if part == coherence.Joins {
		v.stats.coalesced.Add(1)
		l.Run.Share(ctx)
	}
	return waiter{l, part, steps, arrived}
}

// waitAndLeave is waitFor for a caller that needs nothing more of the run afterwards.
func (v *view) waitAndLeave(ctx context.Context, w waiter, dst any) (g answer, answered bool, err error) {
	if w.part != coherence.Waits {
		defer w.load.Run.Leave()
	}
	return v.waitFor(ctx, w, dst)
}

// waitFor waits until the load has ended, or ctx. A loader that waits for a load which waits for it gets ErrRecursiveLoad. answered
// says that a timeout of the view was over first, and that dst has a value all the same.
func (v *view) waitFor(ctx context.Context, w waiter, dst any) (g answer, answered bool, err error) {
	if chain := chainOf(ctx); chain != nil {
		done, ok := chain.run.WaitFor(w.load.Run)
		if !ok {
			return answer{}, false, ErrRecursiveLoad
		}
		defer done()
	}
	if v.hasTimeouts() {
		return v.waitWithTimeouts(ctx, w, dst)
	}
	select {
	case <-w.load.Done():
		return answer{}, false, nil
	case <-ctx.Done():
		return answer{}, false, ctx.Err()
	}
}

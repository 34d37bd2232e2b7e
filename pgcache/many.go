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

// GetMany returns the values under keys; those without one are absent from the map. What is not in memory is read in
// one statement, which sees all rows at one moment.
func (t *Typed[T]) GetMany(ctx context.Context, keys []string) (map[string]T, error) {
	found, _, _, err := t.getMany(ctx, "get many", keys, &t.view, 0)
	return found, err
}

// getMany also returns the absent keys, each once: those without a value, and without a negative entry where the view has a NegativeTTL; and
// the keys that are due, see RefreshAfter. with is t with the options of the call. arrived is when the caller came, for HardTimeout; 0: of
// GetMany, which has none.
func (t *Typed[T]) getMany(ctx context.Context, op string, keys []string, with *view, arrived int64) (found map[string]T, absent []string, due []localcache.Key, err error) {
	found = make(map[string]T, len(keys))
	var ask []localcache.Key
	seen := make(map[string]bool, len(keys))
	for _, key := range keys {
		if seen[key] {
			continue
		}
		seen[key] = true
		if v, h := t.fromMemory(t.key(key)); h.e != nil {
			found[key] = v
			if h.left() < with.due && with.dueInMemory(h) {
				due = append(due, t.key(key))
			}
			continue
		}
		if err := t.enter(op, key); err != nil {
			return nil, nil, nil, err
		}
		if with.negativeInMemory(t.key(key)) {
			continue
		}
		ask, absent = append(ask, t.key(key)), append(absent, key)
	}
	if len(seen) == 0 {
		return found, nil, nil, errors.Join(fail(op, "", t.err), t.c.closedErr(op))
	}
	if len(ask) == 0 {
		return found, nil, due, nil
	}
	if op == "get many" { // GetOrSetMany shows the Observer the whole call
		defer t.observe(&ctx, op, len(ask)).end(nil, &err)
	}
	reading := ctx
	if arrived != 0 {
		var cancel context.CancelFunc
		reading, cancel = with.withHardTimeout(ctx, arrived)
		defer cancel()
	}
	rows, err := t.readMany(reading, ask, nil)
	if err != nil {
		if ctx.Err() == nil && reading.Err() != nil {
			err = with.resilience.timedOut(optionHard)
		}
		return found, absent, due, fail(op, "", err)
	}
	missing := absent[:0]
	for i, key := range absent {
		var v T
		row := rows[ask[i]]
		switch {
		case with.take(ask[i], row, &v):
			found[key] = v
			if row.Remaining < with.due && with.isDue(row.Version, row.Remaining) {
				due = append(due, ask[i])
			}
		case !negative(&row) || with.negativeTTL() == 0:
			missing = append(missing, key)
		}
	}
	return found, missing, due, nil
}

// SetMany stores values, in one statement up to a thousand of them or 8 MiB: those are written all or none. A key or a
// value that can't be stored is refused before anything is written.
func (t *Typed[T]) SetMany(ctx context.Context, values map[string]T, opts ...Option) error {
	if t.err != nil {
		return fail("set many", "", t.err)
	}
	return t.setMany(ctx, boxed(values), opts)
}

// boxed is values without their type, for what Typeds of all types share.
func boxed[T any](values map[string]T) map[string]any {
	all := make(map[string]any, len(values))
	for k, v := range values {
		all[k] = v
	}
	return all
}

// GetOrSetMany returns the values under keys. load is called with those that have none, each key for one caller in the
// fleet at a time as with GetOrSet, and what it returns is stored in one statement; keys that it leaves out are absent
// from the result and others that it returns are not looked at. Where some keys fail, the values of the others are
// returned beside the error.
func (t *Typed[T]) GetOrSetMany(ctx context.Context, keys []string, load func(ctx context.Context, missing []string) (map[string]T, error), opts ...Option) (_ map[string]T, err error) {
	const op = "get or set many"
	if load == nil {
		return nil, fail(op, "", errNilLoader)
	}
	with, err := t.apply(opts)
	if err != nil {
		return nil, fail(op, "", err)
	}
	all := make(map[string]T, len(keys))
	if len(keys) == 0 {
		return all, t.c.closedErr(op)
	}
	arrived := coherence.Now()
	o := t.observe(&ctx, op, len(keys))
	defer o.end(nil, &err)
	loader := func(ctx context.Context, names []string, _ map[localcache.Key]store.Row) (map[string]any, error) {
		values, err := load(ctx, names)
		return boxed(values), err
	}
	for tried := false; len(keys) > 0; {
		found, missing, due, err := t.getMany(ctx, op, keys, &with, arrived)
		if len(due) > 0 {
			with.loadEarly(ctx, due, reflect.TypeFor[T](), true, loader)
		}
		for k, v := range found {
			all[k] = v
		}
		if err != nil && (found == nil || ctx.Err() != nil || isPermanent(err)) {
			return all, err
		}
		if err != nil && errors.Is(err, ErrLoadTimeout) {
			return all, t.takeMemoryMany(&with, missing, all, err)
		}
		if len(missing) == 0 {
			break
		}
		for _, key := range missing {
			if loading(ctx, t.c, t.key(key)) {
				return all, fail(op, key, ErrRecursiveLoad)
			}
		}
		o.from(LayerLoader)
		var again []string
		if again, err = t.loadMany(ctx, op, &loadRun{
			view: with, arrived: arrived, into: reflect.TypeFor[T](), many: true, degraded: err != nil, load: loader,
		}, missing, all, tried); err != nil {
			return all, err
		}
		keys, tried = again, true
	}
	return all, nil
}

// takeMemoryMany puts into all the values that memory has of the missing keys, expired ones too. It is called after a timeout, whose
// error is why, and returns that error unless memory has all of the keys.
func (t *Typed[T]) takeMemoryMany(with *view, missing []string, all map[string]T, why error) (err error) {
	for _, key := range missing {
		var v T
		if _, ok := with.takeMemory(t.key(key), &v, why); ok {
			all[key] = v
		} else {
			err = why
		}
	}
	return err
}

// loadMany loads the missing keys with r, or joins their loads, and puts the values into all. again are the keys to ask for once more;
// tried says that these keys were asked for once more already.
func (t *Typed[T]) loadMany(ctx context.Context, op string, r *loadRun, missing []string, all map[string]T, tried bool) (again []string, err error) {
	r.run = coherence.NewRun(context.WithoutCancel(ctx))
	defer r.run.Leave()
	waiters := make([]waiter, len(missing))
	var mine []*coherence.Load
	for i, key := range missing {
		waiters[i] = r.join(ctx, t.key(key), r.run, r.arrived)
		switch l := waiters[i].load; waiters[i].part {
		case coherence.Leads:
			mine = append(mine, l)
		case coherence.Joins:
			defer l.Run.Leave()
		}
	}
	if len(mine) > 0 {
		r.start(mine)
	}
	var errs []error
	failed := map[*coherence.Run]bool{} // one loader's error, reported once
	for i, w := range waiters {
		var v T
		_, answered, err := r.waitFor(ctx, w, &v)
		switch {
		case errors.Is(err, ErrLoadTimeout):
			errs = append(errs, fail(op, w.load.Key.Row(), err)) // the loads of other keys may have ended in time
			continue
		case err != nil:
			return nil, fail(op, "", err)
		}
		found, retry := answered, false
		if !answered {
			found, retry, err = r.takeLoadedOfMany(op, w, &v, tried, failed)
		}
		switch {
		case err != nil:
			errs = append(errs, err)
		case retry:
			again = append(again, missing[i])
		case found:
			all[missing[i]] = v
		}
	}
	return again, errors.Join(errs...)
}

// takeLoadedOfMany decodes the result of a load of one of many keys. retry says that the result is not for this caller. failed are the
// runs whose error was returned already: an error of a whole run is returned for one of its keys only.
func (r *loadRun) takeLoadedOfMany(op string, w waiter, dst any, tried bool, failed map[*coherence.Run]bool) (found, retry bool, err error) {
	l, out := w.load, w.load.Result()
	if out.Failed && r.staleFor() > 0 {
		if _, ok := r.takeOffer(w, dst, out.Err); ok {
			return true, false, nil
		}
	}
	switch {
	case w.part == coherence.Waits || out.Skipped:
		return false, true, nil
	case out.Failed && r.staleFor() > 0 && !tried && w.offered() == nil:
		return false, true, nil // nobody has looked for a stale value since this caller came
	case r.foundNothingBefore(w):
		return false, true, nil
	case r.negativeTTL() > 0 && errors.Is(out.Err, ErrNotFound):
		return false, false, nil
	case out.Err != nil:
		if !out.All || !failed[l.Run] {
			err = failLoad(op, l.Key.Row(), out.Err)
		}
		failed[l.Run] = out.All
		return false, false, err
	case !w.answers():
		return false, true, nil
	case !out.Found:
		return false, false, nil
	case out.Expired():
		return false, true, nil // another key's loader was slow
	case r.negativeInRow(&out.Row):
		return false, false, nil
	case negative(&out.Row):
		return false, true, nil
	}
	if err := r.unmarshal(l.Key, out.Row.Codec, out.Row.Value, dst); err != nil {
		return false, false, fail(op, l.Key.Row(), fmt.Errorf("what was loaded: %w", err))
	}
	return true, false, nil
}

package pgcache

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/pgcache/go/localcache"
)

// GetMany returns the values under keys, like [Typed.GetMany]: what is not in memory is read in one statement for each shard, side by side.
// Where a shard can't be reached, the values of the others are returned beside the error.
func (t *TypedShards[T]) GetMany(ctx context.Context, keys []string) (map[string]T, error) {
	return t.many(ctx, "get many", keys, func(ctx context.Context, v *Typed[T], keys []string) (map[string]T, error) {
		return v.GetMany(ctx, keys)
	}, false)
}

// GetOrSetMany returns the values under keys, and loads those that have none, like [Typed.GetOrSetMany]. load is called for each shard
// by itself, side by side: it must be safe for that.
func (t *TypedShards[T]) GetOrSetMany(ctx context.Context, keys []string, load func(ctx context.Context, missing []string) (map[string]T, error), opts ...Option) (map[string]T, error) {
	return t.many(ctx, "get or set many", keys, func(ctx context.Context, v *Typed[T], keys []string) (map[string]T, error) {
		return v.GetOrSetMany(ctx, keys, load, opts...)
	}, true)
}

// many calls do with the keys of each shard, concurrently, and with those that are moving, for which it gives the null view. loads says
// that do loads.
func (t *TypedShards[T]) many(ctx context.Context, op string, keys []string, do func(ctx context.Context, v *Typed[T], keys []string) (map[string]T, error), loads bool) (map[string]T, error) {
	if len(keys) == 0 {
		return do(ctx, t.null, nil)
	}
	for try := 1; ; try++ {
		r, list, all, err := t.manyOnce(ctx, op, keys, do, loads)
		if err != nil || r == nil {
			return all, err
		}
		now, err := t.s.still(ctx, list...)
		moved := func(key string) bool { return !r.kept(now, t.hash(key)) }
		switch {
		case err != nil && !loads:
			return nil, fail(op, "", err)
		case err != nil || !slices.ContainsFunc(keys, moved):
			return all, nil //nolint:nilerr // as in loads
		case try == changeTries:
			return nil, fail(op, "", ErrMoving)
		}
	}
}

// drop is Shards.drop of keys of the view.
func (t *TypedShards[T]) drop(keys []string) {
	for _, key := range keys {
		t.s.drop(t.null.key(key))
	}
}

// manyOnce is many by one map. list are the shards that were asked.
func (t *TypedShards[T]) manyOnce(ctx context.Context, op string, keys []string, do func(ctx context.Context, v *Typed[T], keys []string) (map[string]T, error), loads bool) (_ *routes, list []int, all map[string]T, _ error) {
	r, bad, err := t.s.current(ctx, func(r *routes) []int {
		_, list, _, _ := t.split(r, keys)
		return list
	})
	if err != nil && loads && t.s.degraded(ctx, err) {
		all, err = do(ctx, t.null, keys)
		t.drop(keys)
		return nil, nil, all, err
	}
	if err != nil {
		return nil, nil, nil, fail(op, "", err)
	}
	parts, list, nowhere, lacking := t.split(r, keys)
	var errs []error
	if lacking != nil {
		errs = append(errs, fail(op, "", r.err))
	}
	var good []int
	for _, i := range list {
		switch {
		case bad[i] == nil:
			good = append(good, i)
		case loads && t.s.degraded(ctx, bad[i]):
			nowhere = append(nowhere, parts[i]...)
		default:
			errs = append(errs, fail(op, "", bad[i]))
		}
	}
	list = slices.Clone(good)
	if nowhere != nil {
		parts[-1] = nowhere
		good = append(good, -1)
	}
	all = make(map[string]T, len(keys))
	var mu sync.Mutex
	errs = append(errs, t.s.each(good, func(i int) error {
		ctx := ctx
		if i >= 0 {
			ctx = t.s.onShard(ctx, r, i)
		}
		found, err := do(ctx, t.view(i), parts[i])
		if i < 0 && loads {
			t.drop(nowhere)
		}
		mu.Lock()
		defer mu.Unlock()
		maps.Copy(all, found)
		return err
	}))
	return r, list, all, errors.Join(errs...)
}

// split says which keys are on which of the shards in list, which are moving, and of which this node lacks the shard.
func (t *TypedShards[T]) split(r *routes, keys []string) (parts map[int][]string, list []int, nowhere, lacking []string) {
	parts = map[int][]string{}
	for _, key := range keys {
		p := r.of(t.hash(key))
		switch i := int(p.from); {
		case p.from != p.to:
			nowhere = append(nowhere, key)
		case i >= len(t.views):
			lacking = append(lacking, key)
		default:
			if parts[i] == nil {
				list = append(list, i)
			}
			parts[i] = append(parts[i], key)
		}
	}
	return parts, list, nowhere, lacking
}

// Entries are the entries of the view's namespace, in the order of their keys, like [Typed.Entries], without those that are moving.
func (t *TypedShards[T]) Entries(ctx context.Context) iter.Seq2[Entry[T], error] {
	return merged(ctx, t.s, "entries", func(i int) iter.Seq2[Entry[T], error] { return t.views[i].Entries(ctx) },
		func(e Entry[T]) localcache.Key { return t.null.key(e.Key) })
}

// Keys are the keys that begin with prefix, in order, like [Cache.Keys], without those that are moving.
func (s *Shards) Keys(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return merged(ctx, s, "keys", func(i int) iter.Seq2[string, error] { return s.shards[i].c.Keys(ctx, prefix) }, keyOf)
}

// merged merges the sorted sequences of all shards into one, and leaves out what a shard has of keys that it does not own. After an error
// without a key there is nothing more.
func merged[E any](ctx context.Context, s *Shards, op string, of func(i int) iter.Seq2[E, error], key func(E) localcache.Key) iter.Seq2[E, error] {
	type head struct {
		i    int
		next func() (E, error, bool)
		e    E
		err  error
		row  string
	}
	return func(yield func(E, error) bool) {
		var none E
		r, bad, err := s.current(ctx, func(r *routes) []int { return r.members })
		if err == nil {
			err = r.err
		}
		for _, b := range bad {
			err = errors.Join(err, b)
		}
		if err != nil {
			yield(none, fail(op, "", err))
			return
		}
		var heads []*head
		advance := func(h *head) (more bool) {
			if h.e, h.err, more = h.next(); more {
				h.row = key(h.e).Row()
			}
			return more
		}
		for _, i := range r.members {
			next, stop := iter.Pull2(of(i))
			defer stop()
			if h := (&head{i: i, next: next}); advance(h) {
				heads = append(heads, h)
			}
		}
		for len(heads) > 0 {
			least := 0
			for n, h := range heads {
				if h.row < heads[least].row {
					least = n
				}
			}
			h := heads[least]
			k := key(h.e) // none: an error of the database
			// What is left of a key that has moved is no entry, by the map that is in force now: it may have moved since the row was read.
			if err := s.hold(ctx, h.i); err != nil && k.Name != "" {
				yield(none, fail(op, "", err))
				return
			}
			if i, ok := s.routes.Load().settled(hashOf(k)); k.Name == "" || ok && i == h.i {
				if !yield(h.e, h.err) || k.Name == "" {
					return
				}
			}
			if !advance(h) {
				heads = slices.Delete(heads, least, least+1)
			}
		}
	}
}

package pgcache

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pgcache/go/internal/shardmap"
	"github.com/pgcache/go/localcache"
)

// TypedShards is a view of Shards for values of one type, as Typed is one of a Cache. It is safe for concurrent use; keep it.
type TypedShards[T any] struct {
	s      *Shards
	views  []*Typed[T] // of each shard
	null   *Typed[T]   // of s.null
	prefix uint64      // hash of the namespace
}

// ForShards returns the view of s for values of type T, like For.
func ForShards[T any](s *Shards, opts ...ViewOption) *TypedShards[T] {
	t := &TypedShards[T]{s: s, null: For[T](s.null, opts...)}
	for _, sh := range s.shards {
		t.views = append(t.views, For[T](sh.c, opts...))
	}
	if t.null.namespace != "" {
		t.prefix = shardmap.Hash(0, t.null.namespace)
	}
	return t
}

// hash is hashOf the key of a row.
func (t *TypedShards[T]) hash(key string) uint64 {
	if t.null.namespace == "" {
		return hashOf(keyOf(key))
	}
	return shardmap.Hash(t.prefix, key)
}

// fromMemory is the hit. Memory is served only while the shard's lease lasts: see TrustShard.
func (t *TypedShards[T]) fromMemory(key string) (v T, _ hit) {
	if r := t.s.routes.Load(); r != nil {
		if i, ok := r.settled(t.hash(key)); ok {
			view := t.views[i]
			return view.fromMemory(view.key(key))
		}
	}
	return v, hit{}
}

// view is that of shard i, or the null view.
func (t *TypedShards[T]) view(i int) *Typed[T] {
	if i < 0 {
		return t.null
	}
	return t.views[i]
}

// Get returns the value under key and whether there is one, like Typed.Get.
func (t *TypedShards[T]) Get(ctx context.Context, key string) (v T, found bool, err error) {
	if v, h := t.fromMemory(key); h.e != nil {
		return v, true, nil
	}
	return t.fromShard(ctx, key)
}

// fromShard is the miss, apart: here the value goes to the heap.
func (t *TypedShards[T]) fromShard(ctx context.Context, key string) (v T, found bool, err error) {
	err = t.s.reads(ctx, "get", t.null.key(key), func(i int) (err error) {
		v, found, err = t.view(i).Get(ctx, key)
		return err
	})
	if err != nil {
		return *new(T), false, err
	}
	return v, found, nil
}

// GetEntry returns the value under key with what the database knows of it, like Typed.GetEntry.
func (t *TypedShards[T]) GetEntry(ctx context.Context, key string) (e Entry[T], found bool, err error) {
	err = t.s.reads(ctx, "get entry", t.null.key(key), func(i int) (err error) {
		e, found, err = t.view(i).GetEntry(ctx, key)
		return err
	})
	if err != nil {
		return Entry[T]{}, false, err
	}
	return e, found, nil
}

// GetOrSet returns the value under key, or calls load and stores what it returns, like Typed.GetOrSet. While the key is moving, or its
// shard can't be reached, it loads and does not store.
func (t *TypedShards[T]) GetOrSet(ctx context.Context, key string, load func(context.Context) (T, error), opts ...Option) (T, error) {
	var v T
	err := t.s.loads(ctx, "get or set", t.null.key(key), func(_ *Cache, i int) (err error) {
		v, err = t.view(i).GetOrSet(ctx, key, load, opts...)
		return err
	})
	return v, err
}

// Fetch is GetOrSet with a loader that sees and says more, like Typed.Fetch.
func (t *TypedShards[T]) Fetch(ctx context.Context, key string, load func(context.Context, *Load[T]) (T, error), opts ...Option) (Result[T], error) {
	var r Result[T]
	err := t.s.loads(ctx, "fetch", t.null.key(key), func(_ *Cache, i int) (err error) {
		r, err = t.view(i).Fetch(ctx, key, load, opts...)
		return err
	})
	return r, err
}

// Set stores value under key, like Typed.Set.
func (t *TypedShards[T]) Set(ctx context.Context, key string, value T, opts ...Option) error {
	return t.s.change(ctx, "set", []string{key}, t.null.key,
		func() error { return t.null.Set(ctx, key, value, opts...) },
		func(i int, _ []string) error { return t.views[i].Set(ctx, key, value, opts...) },
		func(i int, _ []string) error { return t.views[i].Delete(ctx, key) })
}

// SetMany stores values, like Typed.SetMany, those of each shard by itself: after an error some may have been written.
func (t *TypedShards[T]) SetMany(ctx context.Context, values map[string]T, opts ...Option) error {
	if len(values) == 0 {
		return t.null.SetMany(ctx, values, opts...)
	}
	return t.s.change(ctx, "set many", slices.Sorted(maps.Keys(values)), t.null.key,
		func() error { return t.null.SetMany(ctx, values, opts...) },
		func(i int, keys []string) error {
			part := make(map[string]T, len(keys))
			for _, key := range keys {
				part[key] = values[key]
			}
			return t.views[i].SetMany(ctx, part, opts...)
		},
		func(i int, keys []string) error { return t.views[i].Delete(ctx, keys...) })
}

// Delete removes keys, like Typed.Delete, in one statement for each shard of theirs.
func (t *TypedShards[T]) Delete(ctx context.Context, keys ...string) error {
	if len(keys) == 0 {
		return t.null.Delete(ctx)
	}
	del := func(i int, keys []string) error { return t.views[i].Delete(ctx, keys...) }
	return t.s.change(ctx, "delete", keys, t.null.key, nil, del, del)
}

// SetIfAbsent stores value under key if there is no value, like Typed.SetIfAbsent. See ErrMoving.
func (t *TypedShards[T]) SetIfAbsent(ctx context.Context, key string, value T, opts ...Option) (stored bool, err error) {
	err = t.s.exact(ctx, "set if absent", t.null.key(key), func(i int) (err error) {
		stored, err = t.views[i].SetIfAbsent(ctx, key, value, opts...)
		return err
	})
	return stored && err == nil, err
}

// Update changes the value under key by change, like Typed.Update. See ErrMoving.
func (t *TypedShards[T]) Update(ctx context.Context, key string, change func(old T, found bool) (T, error), opts ...Option) (v T, err error) {
	err = t.s.exact(ctx, "update", t.null.key(key), func(i int) (err error) {
		v, err = t.views[i].Update(ctx, key, change, opts...)
		return err
	})
	if err != nil {
		return *new(T), err
	}
	return v, nil
}

// Touch changes how long the entry under key lives, like Typed.Touch. See ErrMoving.
func (t *TypedShards[T]) Touch(ctx context.Context, key string, ttl time.Duration) (found bool, err error) {
	err = t.s.exact(ctx, "touch", t.null.key(key), func(i int) (err error) {
		found, err = t.views[i].Touch(ctx, key, ttl)
		return err
	})
	return found && err == nil, err
}

// Clear removes the entries of the view's namespace from every shard, like Typed.Clear.
func (t *TypedShards[T]) Clear(ctx context.Context) error {
	return t.s.everywhere(ctx, "clear", "", func(i int) error { return t.views[i].Clear(ctx) })
}

// GetMany returns the values under keys, like Typed.GetMany: what is not in memory is read in one statement for each shard, side by side.
// Where a shard can't be reached, the values of the others are returned beside the error.
func (t *TypedShards[T]) GetMany(ctx context.Context, keys []string) (map[string]T, error) {
	return t.many(ctx, "get many", keys, func(v *Typed[T], keys []string) (map[string]T, error) {
		return v.GetMany(ctx, keys)
	}, false)
}

// GetOrSetMany returns the values under keys, and loads those that have none, like Typed.GetOrSetMany. load is called for each shard
// by itself, side by side: it must be safe for that.
func (t *TypedShards[T]) GetOrSetMany(ctx context.Context, keys []string, load func(ctx context.Context, missing []string) (map[string]T, error), opts ...Option) (map[string]T, error) {
	return t.many(ctx, "get or set many", keys, func(v *Typed[T], keys []string) (map[string]T, error) {
		return v.GetOrSetMany(ctx, keys, load, opts...)
	}, true)
}

// many calls do with the keys of each shard, side by side, and with those that are held nowhere.
func (t *TypedShards[T]) many(ctx context.Context, op string, keys []string, do func(v *Typed[T], keys []string) (map[string]T, error), loads bool) (map[string]T, error) {
	if len(keys) == 0 {
		return do(t.null, nil)
	}
	for try := 1; ; try++ {
		r, list, all, err := t.manyOnce(ctx, op, keys, do, loads)
		if err != nil || r == nil {
			return all, err
		}
		now, err := t.s.still(ctx, r, list...)
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

// manyOnce is many by one map. list are the shards that were asked.
func (t *TypedShards[T]) manyOnce(ctx context.Context, op string, keys []string, do func(v *Typed[T], keys []string) (map[string]T, error), loads bool) (_ *routes, list []int, all map[string]T, _ error) {
	split := func(r *routes) (parts map[int][]string, list []int, nowhere, lacking []string) {
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
	r, bad, err := t.s.current(ctx, func(r *routes) []int {
		_, list, _, _ := split(r)
		return list
	})
	if err != nil && loads && t.s.degraded(ctx, err) {
		all, err = do(t.null, keys)
		return nil, nil, all, err
	}
	if err != nil {
		return nil, nil, nil, fail(op, "", err)
	}
	parts, list, nowhere, lacking := split(r)
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
		found, err := do(t.view(i), parts[i])
		mu.Lock()
		defer mu.Unlock()
		maps.Copy(all, found)
		return err
	}))
	return r, list, all, errors.Join(errs...)
}

// Entries are the entries of the view's namespace, in the order of their keys, like Typed.Entries, without those that are moving.
func (t *TypedShards[T]) Entries(ctx context.Context) iter.Seq2[Entry[T], error] {
	return merged(ctx, t.s, "entries", func(i int) iter.Seq2[Entry[T], error] { return t.views[i].Entries(ctx) },
		func(e Entry[T]) localcache.Key { return t.null.key(e.Key) })
}

// Keys are the keys that begin with prefix, in order, like Cache.Keys, without those that are moving.
func (s *Shards) Keys(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return merged(ctx, s, "keys", func(i int) iter.Seq2[string, error] { return s.shards[i].c.Keys(ctx, prefix) }, keyOf)
}

// merged are the sorted sequences of all shards as one, of each shard what it owns. An error that has a key is handed on, any other is
// the end.
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
			for {
				var ok bool
				if h.e, h.err, ok = h.next(); !ok {
					return false
				}
				k := key(h.e)
				h.row = k.Row()
				if k.Name == "" { // an error of the database
					return true
				}
				if i, ok := r.settled(hashOf(k)); ok && i == h.i {
					return true
				}
			}
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
			if !yield(h.e, h.err) || h.err != nil && key(h.e).Name == "" {
				return
			}
			if !advance(h) {
				heads = slices.Delete(heads, least, least+1)
			}
		}
	}
}

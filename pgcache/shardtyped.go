package pgcache

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/pgcache/go/internal/shardmap"
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

// hash is hashOf for a key of the view.
func (t *TypedShards[T]) hash(key string) uint64 {
	if t.null.namespace == "" {
		return hashOf(keyOf(key))
	}
	return shardmap.Hash(t.prefix, key)
}

// fromMemory is Typed.fromMemory of the key's shard, if the key does not move and the map is still the same after the hit.
func (t *TypedShards[T]) fromMemory(key string) (v T, _ hit) {
	if r := t.s.routes.Load(); r != nil {
		if i, ok := r.settled(t.hash(key)); ok {
			view := t.views[i]
			if v, h := view.fromMemory(view.key(key)); h.e != nil && t.s.routes.Load() == r { // as in Shards.hit
				return v, h
			}
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

// Get returns the value under key and whether there is one, like [Typed.Get].
func (t *TypedShards[T]) Get(ctx context.Context, key string) (v T, found bool, err error) {
	if v, h := t.fromMemory(key); h.e != nil {
		return v, true, nil
	}
	return t.fromShard(ctx, key)
}

// fromShard is Get where memory has nothing. It is a function of its own because v escapes to the heap in it: a hit allocates nothing.
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

// GetEntry returns the value under key with what the database knows of it, like [Typed.GetEntry].
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

// GetOrSet returns the value under key, or calls load and stores what it returns, like [Typed.GetOrSet]. While the key is moving, or its
// shard can't be reached, it loads and does not store.
func (t *TypedShards[T]) GetOrSet(ctx context.Context, key string, load func(context.Context) (T, error), opts ...Option) (T, error) {
	var v T
	err := t.s.loads(ctx, "get or set", t.null.key(key), func(ctx context.Context, _ *Cache, i int) (err error) {
		v, err = t.view(i).GetOrSet(ctx, key, load, opts...)
		return err
	})
	return v, err
}

// Fetch is GetOrSet with a loader that sees and says more, like [Typed.Fetch].
func (t *TypedShards[T]) Fetch(ctx context.Context, key string, load func(context.Context, *Load[T]) (T, error), opts ...Option) (Result[T], error) {
	var r Result[T]
	err := t.s.loads(ctx, "fetch", t.null.key(key), func(ctx context.Context, _ *Cache, i int) (err error) {
		r, err = t.view(i).Fetch(ctx, key, load, opts...)
		return err
	})
	return r, err
}

// Set stores value under key, like [Typed.Set].
func (t *TypedShards[T]) Set(ctx context.Context, key string, value T, opts ...Option) error {
	return t.s.change(ctx, "set", []string{key}, t.null.key,
		func() error { return t.null.Set(ctx, key, value, opts...) },
		func(i int, _ []string) error { return t.views[i].Set(ctx, key, value, opts...) },
		func(i int, _ []string) error { return t.views[i].Delete(ctx, key) })
}

// SetMany stores values, like [Typed.SetMany], those of each shard by itself: after an error some may have been written.
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

// Delete removes keys, like [Typed.Delete], in one statement for each shard of theirs.
func (t *TypedShards[T]) Delete(ctx context.Context, keys ...string) error {
	if len(keys) == 0 {
		return t.null.Delete(ctx)
	}
	del := func(i int, keys []string) error { return t.views[i].Delete(ctx, keys...) }
	return t.s.change(ctx, "delete", keys, t.null.key, nil, del, del)
}

// SetIfAbsent stores value under key if there is no value, like [Typed.SetIfAbsent]. See [ErrMoving].
func (t *TypedShards[T]) SetIfAbsent(ctx context.Context, key string, value T, opts ...Option) (stored bool, err error) {
	err = t.s.exact(ctx, "set if absent", t.null.key(key), func(i int) (err error) {
		stored, err = t.views[i].SetIfAbsent(ctx, key, value, opts...)
		return err
	})
	return stored && err == nil, err
}

// Update changes the value under key by change, like [Typed.Update]. See [ErrMoving].
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

// Touch changes how long the entry under key lives, like [Typed.Touch]. See [ErrMoving].
func (t *TypedShards[T]) Touch(ctx context.Context, key string, ttl time.Duration) (found bool, err error) {
	err = t.s.exact(ctx, "touch", t.null.key(key), func(i int) (err error) {
		found, err = t.views[i].Touch(ctx, key, ttl)
		return err
	})
	return found && err == nil, err
}

// Clear removes the entries of the view's namespace from every shard, like [Typed.Clear].
func (t *TypedShards[T]) Clear(ctx context.Context) error {
	return t.s.everywhere(ctx, "clear", "", func(i int) error { return t.views[i].Clear(ctx) })
}

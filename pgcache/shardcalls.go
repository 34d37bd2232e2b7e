package pgcache

import (
	"context"
	"time"

	"github.com/pgcache/go/internal/coherence"
)

// This file has the methods of Shards that a Cache has too.

// Get reads the value under key into dst, like [Cache.Get].
func (s *Shards) Get(ctx context.Context, key string, dst any) (found bool, err error) {
	if r := s.routes.Load(); r != nil {
		if i, ok := r.settled(hashOf(keyOf(key))); ok && checkDst(dst) == nil {
			v, k, now := &s.shards[i].c.base, keyOf(key), coherence.Now()
			if v.handOut(k, s.hit(r, i, k, now), now, dst).e != nil {
				return true, nil
			}
		}
	}
	err = s.reads(ctx, "get", keyOf(key), func(i int) (err error) {
		if i < 0 {
			found, err = s.null.Get(ctx, key, dst)
		} else {
			found, err = s.shards[i].c.Get(ctx, key, dst)
		}
		return err
	})
	return found && err == nil, err
}

// Set stores value under key, like [Cache.Set].
func (s *Shards) Set(ctx context.Context, key string, value any, opts ...Option) error {
	return s.change(ctx, "set", []string{key}, keyOf,
		func() error { return s.null.Set(ctx, key, value, opts...) },
		func(i int, _ []string) error { return s.shards[i].c.Set(ctx, key, value, opts...) },
		func(i int, _ []string) error { return s.shards[i].c.Delete(ctx, key) })
}

// Delete removes keys, like [Cache.Delete], in one statement for each shard of theirs.
func (s *Shards) Delete(ctx context.Context, keys ...string) error {
	if len(keys) == 0 {
		return s.null.Delete(ctx)
	}
	del := func(i int, keys []string) error { return s.shards[i].c.Delete(ctx, keys...) }
	return s.change(ctx, "delete", keys, keyOf, nil, del, del)
}

// GetOrSet reads the value under key into dst, or calls load, like [Cache.GetOrSet]. While the key is moving, or its shard can't be
// reached, it loads and does not store.
func (s *Shards) GetOrSet(ctx context.Context, key string, dst any, load func(context.Context) (any, error), opts ...Option) error {
	return s.loads(ctx, "get or set", keyOf(key), func(ctx context.Context, c *Cache, _ int) error { return c.GetOrSet(ctx, key, dst, load, opts...) })
}

// SetIfAbsent stores value under key if there is no value, like [Cache.SetIfAbsent]. See [ErrMoving].
func (s *Shards) SetIfAbsent(ctx context.Context, key string, value any, opts ...Option) (stored bool, err error) {
	err = s.exact(ctx, "set if absent", keyOf(key), func(i int) (err error) {
		stored, err = s.shards[i].c.SetIfAbsent(ctx, key, value, opts...)
		return err
	})
	return stored && err == nil, err
}

// Increment adds delta to the counter under key, like [Cache.Increment]. See [ErrMoving]; a counter that has moved begins at 0.
func (s *Shards) Increment(ctx context.Context, key string, delta int64, opts ...Option) (n int64, err error) {
	err = s.exact(ctx, "increment", keyOf(key), func(i int) (err error) {
		n, err = s.shards[i].c.Increment(ctx, key, delta, opts...)
		return err
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// Touch changes how long the entry under key lives, like [Cache.Touch]. See [ErrMoving].
func (s *Shards) Touch(ctx context.Context, key string, ttl time.Duration) (found bool, err error) {
	err = s.exact(ctx, "touch", keyOf(key), func(i int) (err error) {
		found, err = s.shards[i].c.Touch(ctx, key, ttl)
		return err
	})
	return found && err == nil, err
}

// DeleteTags removes all entries that have one of the tags from every shard, like [Cache.DeleteTags].
func (s *Shards) DeleteTags(ctx context.Context, tags ...string) error {
	return s.everywhere(ctx, "delete tags", "", func(i int) error { return s.shards[i].c.DeleteTags(ctx, tags...) })
}

// DeletePrefix removes all entries whose keys begin with prefix from every shard, like [Cache.DeletePrefix].
func (s *Shards) DeletePrefix(ctx context.Context, prefix string) error {
	return s.everywhere(ctx, "delete prefix", prefix, func(i int) error { return s.shards[i].c.DeletePrefix(ctx, prefix) })
}

// Clear removes every entry from every shard, like [Cache.Clear].
func (s *Shards) Clear(ctx context.Context) error {
	return s.everywhere(ctx, "clear", "", func(i int) error { return s.shards[i].c.Clear(ctx) })
}

package pgcache

import (
	"context"

	"github.com/pgcache/go/internal/store"
)

// SetIfAbsent stores value under key if there is no value, and says whether it did. Of all that call it at the same time, on all
// nodes, one gets true. A value that has expired or was deleted is none; one that does not decode is.
//
// After an error the outcome is unknown where the connection was lost or ctx ended: it is not tried again.
func (c *Cache) SetIfAbsent(ctx context.Context, key string, value any, opts ...Option) (stored bool, err error) {
	return c.base.setIfAbsent(ctx, key, value, opts)
}

// SetIfAbsent stores value under key if there is no value, like [Cache.SetIfAbsent].
func (t *Typed[T]) SetIfAbsent(ctx context.Context, key string, value T, opts ...Option) (stored bool, err error) {
	return t.setIfAbsent(ctx, key, value, opts)
}

func (v *view) setIfAbsent(ctx context.Context, key string, value any, opts []Option) (done bool, err error) {
	const op = "set if absent"
	if err := v.enter(op, key); err != nil {
		return false, err
	}
	k := v.key(key)
	with, err := v.apply(opts)
	if err != nil {
		return false, fail(op, k.Row(), err)
	}
	data, err := with.encode(k, value)
	if err != nil {
		return false, fail(op, k.Row(), err)
	}
	if v.c.null {
		return true, nil
	}
	defer with.observe(&ctx, op, 1).end(nil, &err)
	w := with.newWrite(k, data)
	done, err = with.conditional(ctx, k, w.Version, storedRow(w), func(inline bool) (store.Written, error) {
		return v.c.store.PutAbsent(ctx, w, inline)
	})
	if done {
		v.stats.sets.Add(1)
	}
	return done, fail(op, k.Row(), err)
}

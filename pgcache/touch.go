package pgcache

import (
	"context"
	"time"

	"github.com/pgcache/go/internal/store"
)

// Touch gives the value under key a new TTL, from now on, and says whether there was one. 0 is the DefaultTTL, NoExpiry for ever.
// The value stays as it is; other nodes read it again, because they know its old end.
func (c *Cache) Touch(ctx context.Context, key string, ttl time.Duration) (found bool, err error) {
	return c.base.touch(ctx, key, ttl)
}

// Touch gives the value under key a new TTL, like [Cache.Touch]; 0 is that of the view.
func (t *Typed[T]) Touch(ctx context.Context, key string, ttl time.Duration) (found bool, err error) {
	return t.touch(ctx, key, ttl)
}

func (v *view) touch(ctx context.Context, key string, ttl time.Duration) (found bool, err error) {
	const op = "touch"
	if err := v.enter(op, key); err != nil {
		return false, err
	}
	k := v.key(key)
	with, err := v.apply([]Option{TTL(ttl)})
	if err != nil {
		return false, fail(op, k.Row(), err)
	}
	if v.c.null {
		return false, nil
	}
	defer with.observe(&ctx, op, 1).end(&found, &err)
	w := with.newWrite(k, nil)
	found, err = with.conditional(ctx, k, w.Version, nil, func(inline bool) (store.Written, error) {
		return v.c.store.Touch(ctx, w, inline)
	})
	return found, fail(op, k.Row(), err)
}

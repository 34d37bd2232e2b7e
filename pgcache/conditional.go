package pgcache

import (
	"context"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// conditional sends a write of k whose condition may not hold, and says whether it was done. It calls send once, and reads that from
// Written.Stored. Memory keeps row if it was done; otherwise, or if row is nil, it keeps nothing of k. version is the write's own, new for
// each write, so that no loader under way can store over it.
func (v *view) conditional(ctx context.Context, k localcache.Key, version int64, row *store.Row, send func(inline bool) (store.Written, error)) (done bool, err error) {
	c := v.c
	if err := c.check(ctx); err != nil {
		return false, err
	}
	writer := c.local.BeginWrite(k, version, nil)
	var out store.Written
	inline := c.beginWrite(false, version)
	sent := coherence.Now()
	defer func() { // also if a driver panics
		var e *localcache.Entry
		if done && row != nil {
			e = v.entry(k, row, sent)
		}
		writer.Finish(e, out.Server, v.tags...)
		c.endWrite([]int64{version}, out, err)
	}()
	if out, err = send(inline); err != nil {
		return false, c.explain(ctx, err)
	}
	c.checkServer(out.Server)
	return out.Stored[0], nil
}

package pgcache

import (
	"maps"
	"slices"
	"sync"

	"github.com/pgcache/go/localcache"
)

// maxRefresh bounds the keys of one statement.
const maxRefresh = 1000

// refresh is Options.Refresh: when a key that hits have asked for is invalidated, it reads the row again, see localcache.Entry.Interest.
// One statement reads all keys that were invalidated while the last one ran. It calls no loader; RefreshAfter does.
type refresh struct {
	mu   sync.Mutex
	lost map[localcache.Key]uint32 // the keys that were invalidated since the last take, with the interest in them
	wake chan struct{}
}

// add is called by the goroutine that reads the listener's socket, and does not block.
func (r *refresh) add(k localcache.Key, interest uint32) {
	r.mu.Lock()
	if r.lost == nil {
		r.lost = make(map[localcache.Key]uint32)
	}
	r.lost[k] = max(r.lost[k], interest)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// take returns the keys that were added since the last call.
func (r *refresh) take() map[localcache.Key]uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	lost := r.lost
	r.lost = nil
	return lost
}

func (r *refresh) run(c *Cache) {
	for {
		select {
		case <-r.wake:
		case <-c.ctx.Done():
			return
		}
		lost := r.take()
		for keys := range slices.Chunk(slices.Collect(maps.Keys(lost)), maxRefresh) {
			// After an error the keys are not tried again: the next Get of each reads its row.
			ctx := c.ctx
			o := c.upkeep(&ctx, "refresh")
			rows, err := c.base.readMany(ctx, keys, lost)
			if o.end(nil, &err); err == nil {
				c.stats.refreshed.Add(uint64(len(rows)))
			}
		}
	}
}

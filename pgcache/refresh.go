package pgcache

import (
	"slices"
	"sync"

	"github.com/pgcache/go/localcache"
)

// maxRefresh bounds the keys of one statement.
const maxRefresh = 1000

// refresh fetches keys again that were lost to news while they were in use: all that have gathered since the last
// statement in one. The first hit decodes them.
type refresh struct {
	mu   sync.Mutex
	lost map[localcache.Key]struct{}
	wake chan struct{}
}

// add is called by the goroutine that reads the listener's socket.
func (r *refresh) add(k localcache.Key) {
	r.mu.Lock()
	if r.lost == nil {
		r.lost = make(map[localcache.Key]struct{})
	}
	r.lost[k] = struct{}{}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *refresh) take() []localcache.Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	keys := make([]localcache.Key, 0, len(r.lost))
	for k := range r.lost {
		keys = append(keys, k)
	}
	r.lost = nil
	return keys
}

func (r *refresh) run(c *Cache) {
	for {
		select {
		case <-r.wake:
		case <-c.ctx.Done():
			return
		}
		for keys := range slices.Chunk(r.take(), maxRefresh) {
			// If it fails, the next Get reads: nothing is lost but time.
			if rows, err := c.base.readMany(c.ctx, keys); err == nil {
				c.stats.refreshed.Add(uint64(len(rows)))
			}
		}
	}
}

package pgcache

import (
	"sync"

	"github.com/pgcache/go/localcache"
)

// maxRecent bounds what a recent holds.
const maxRecent = 4096

// recent remembers a value of each of up to maxRecent keys, until a moment of the monotonic clock. A key beyond that many takes the place
// of any other: what is remembered may be forgotten at any time.
type recent[V any] struct {
	mu sync.Mutex
	of map[localcache.Key]remembered[V]
}

type remembered[V any] struct {
	until int64
	v     V
}

// get returns what is remembered of k and until when; ok says that now is before that.
func (r *recent[V]) get(k localcache.Key, now int64) (v V, until int64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.of[k]
	return m.v, m.until, m.until > now
}

func (r *recent[V]) put(k localcache.Key, v V, now, until int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(k, v, now, until)
}

// add is put with the lock held.
func (r *recent[V]) add(k localcache.Key, v V, now, until int64) {
	if r.of == nil {
		r.of = map[localcache.Key]remembered[V]{}
	}
	if _, ok := r.of[k]; !ok && len(r.of) >= maxRecent {
		r.makeRoom(now)
	}
	r.of[k] = remembered[V]{until, v}
}

// makeRoom removes keys of some that are over their time, or else one that is not. The lock is held.
func (r *recent[V]) makeRoom(now int64) {
	const some = 16
	n, removed := 0, false
	for k, m := range r.of {
		if n++; m.until <= now {
			delete(r.of, k)
			removed = true
		} else if n >= some {
			if !removed {
				delete(r.of, k)
			}
			return
		}
	}
}

func (r *recent[V]) forget(k localcache.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.of, k)
}

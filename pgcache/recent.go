package pgcache

import (
	"sync"

	"github.com/pgcache/go/localcache"
)

// maxRecent bounds the keys of a recent.
const maxRecent = 4096

// recent is a map from keys to values, each with a moment of the monotonic clock at which it ends. It holds up to maxRecent keys: another
// one replaces any of them, so a value may be gone before its time.
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

// put remembers v of k until that moment.
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

// makeRoom looks at some keys and removes those that have ended; if there are none among them, it removes one that has not. The lock is
// held.
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

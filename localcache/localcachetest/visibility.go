package localcachetest

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pgcache/go/localcache"
)

// watched is a key that one goroutine writes, and what all the others may still see of it. Its operations are numbered,
// and an entry's version is the number of the Set that stored it.
type watched struct {
	key     localcache.Key
	started atomic.Int64 // the last operation that has begun
	done    atomic.Int64 // the last one that has returned: nothing older may be seen by a Get that starts now
	gone    atomic.Int64 // nothing up to here may be seen any more, a Delete or a Clear has returned
}

// get reads the key and checks what it sees. It reports whether it saw anything.
func (w *watched) get(t *testing.T, c localcache.Cache) bool {
	done, gone := w.done.Load(), w.gone.Load()
	e := c.Get(w.key)
	started := w.started.Load()
	switch {
	case e == nil:
		return false
	case e.Value != w.key:
		t.Errorf("Get(%+v) returned the entry of %+v", w.key, e.Value)
	case e.Version < done:
		t.Errorf("Get(%+v) returned what operation %d stored, after operation %d had returned", w.key, e.Version, done)
	case e.Version <= gone:
		t.Errorf("Get(%+v) returned what operation %d stored, after everything up to %d was deleted", w.key, e.Version, gone)
	case e.Version > started:
		t.Errorf("Get(%+v) returned what operation %d stored, before it began", w.key, e.Version)
	}
	return true
}

// write carries out operation n: three Sets, then a Delete.
func (w *watched) write(t *testing.T, c localcache.Cache, n int64) {
	w.started.Store(n)
	if n%4 != 0 {
		e := &localcache.Entry{Value: w.key, Version: n, Size: 100}
		c.Set(w.key, e)
		w.done.Store(n)
		if got := c.Get(w.key); got != nil && got != e {
			t.Errorf("Get(%+v) returned the entry of operation %d just after operation %d", w.key, got.Version, n)
		}
		return
	}
	c.Delete(w.key)
	w.done.Store(n)
	if got := c.Get(w.key); got != nil {
		t.Errorf("Get(%+v) returned the entry of operation %d just after the Delete %d", w.key, got.Version, n)
	}
}

// testVisibility has every key written by a goroutine of its own, read by several, and the whole cache cleared now and
// then: a Get that starts after a Set, a Delete or a Clear returned sees its effect, whoever calls it.
func testVisibility(t *testing.T, c localcache.Cache) {
	const (
		writers    = 8
		readers    = 4
		operations = 1000 // by each writer, at the least
		enough     = 1000 // hits by the readers: without them the test would see nothing
		perClear   = 500
	)
	keys := make([]watched, writers)
	for i := range keys {
		keys[i].key = key(i)
	}

	var (
		writing, reading sync.WaitGroup
		hits             atomic.Int64
		stop             = make(chan struct{})
	)
	for i := range keys {
		writing.Go(func() {
			for n := int64(1); n <= operations || hits.Load() < enough && n <= 1000*operations; n++ {
				keys[i].write(t, c, n)
				runtime.Gosched() // on a single core too, the others get to see it
			}
		})
	}
	for r := range readers {
		reading.Go(func() {
			for round := 1; ; round++ {
				select {
				case <-stop:
					return
				default:
				}
				if keys[round%writers].get(t, c) {
					hits.Add(1)
				}
				runtime.Gosched()
				if r == 0 && round%perClear == 0 {
					clearAll(t, c, keys)
				}
			}
		})
	}
	writing.Wait()
	close(stop)
	reading.Wait()

	if hits.Load() < enough {
		t.Errorf("the readers found something %d times only", hits.Load())
	}
}

// clearAll clears the cache: whatever was stored before it began is gone when it returns. One goroutine alone calls it.
func clearAll(t *testing.T, c localcache.Cache, keys []watched) {
	done := make([]int64, len(keys))
	for i := range keys {
		done[i] = keys[i].done.Load()
	}
	c.Clear()
	for i := range keys {
		keys[i].gone.Store(done[i])
		keys[i].get(t, c)
	}
}

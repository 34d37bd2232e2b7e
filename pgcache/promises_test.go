package pgcache_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// The promises again, where promises_test.go leaves off: loads, reads side by side, and histories of a whole fleet.

// loaded is GetOrSet with a loader that returns value.
func loaded(c *pgcache.Cache, key string, value int) (v int, err error) {
	err = c.GetOrSet(context.Background(), key, &v, func(context.Context) (any, error) { return value, nil })
	return v, err
}

// outcome is what a read returned.
func outcome(v any, err error) string { return fmt.Sprintf("%v, error %v", v, err) }

// severable returns a node that receives nothing while link is frozen, and believes for a minute that there is nothing to
// receive.
func (cl *cluster) severable() (c *pgcache.Cache, w *wire, link *testdb.Proxy) {
	cl.t.Helper()
	link = testdb.NewProxy(cl.t, testdb.DSN(cl.t))
	c, w = cl.wired(func(o *pgcache.Options) {
		o.Listener = calm(pgxdriver.DialDSN(link.DSN()))
	})
	cl.t.Cleanup(link.Thaw)
	return c, w, link
}

// joining runs read, which may join one that is held up, then lets that one go, and returns the outcome of read.
func joining(t *testing.T, held *stop, read func() string) string {
	t.Helper()
	done := make(chan string, 1)
	go func() { done <- read() }()
	select {
	case got := <-done: // it joined nothing
		held.release()
		return got
	case <-time.After(50 * time.Millisecond): // nothing says that it has joined
	}
	held.release()
	select {
	case got := <-done:
		return got
	case <-time.After(time.Minute):
		t.Fatal("it does not return")
		panic("unreachable")
	}
}

// looked begins a load of "k" on c that is held up when it has looked again, under the lock, and found value, which other
// wrote after the first look. The load's own outcome is value.
func looked(t *testing.T, c, other *pgcache.Cache, w *wire, value int) (held *stop, own func() string) {
	t.Helper()
	const look = "AndLook :many" // LockAndLook, or LeaseAndLook
	locking := w.before(look)
	own = async(t, func() string { return outcome(loaded(c, "k", -1)) })
	locking.wait(t)
	set(t, other, "k", value) // new, so nothing is published
	held = w.after(look)
	locking.release()
	held.wait(t)
	return held, own
}

// stored begins a load of "k" on c that is held up when its value is in the table.
func stored(t *testing.T, c *pgcache.Cache, w *wire, value int) (held *stop, own func() string) {
	t.Helper()
	held = w.after(named("StoreLoaded"))
	own = async(t, func() string { return outcome(loaded(c, "k", value)) })
	held.wait(t)
	return held, own
}

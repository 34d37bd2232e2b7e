package pgcache_test

import (
	"context"
	"database/sql"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// Each waiter held a connection of the pool while it polled. With as many misses as connections the loader, which wanted
// one too, never got it, and after 5 s all failed.
func TestLoadersUseASmallPool(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		const keys, callers = 60, 3
		cl := newCluster(t)
		db := testdb.Open(t, driver, testdb.DSN(t))
		db.SetMaxOpenConns(4)
		c := cl.on(db, func(o *pgcache.Options) { o.Listener = listenerOf(driver, db, testdb.DSN(t)) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		for i := range keys * callers {
			wg.Go(func() {
				var v int
				err := c.GetOrSet(ctx, strconv.Itoa(i%keys), &v, func(ctx context.Context) (any, error) {
					var n int
					err := db.QueryRowContext(ctx, "SELECT $1::int FROM pg_sleep(0.005)", i%keys).Scan(&n)
					return n, err
				})
				if err != nil || v != i%keys {
					t.Errorf("%d: %v, %v", i%keys, v, err)
				}
			})
		}
		wg.Wait()
		if n := c.Stats().Loads; n != keys {
			t.Errorf("%d loads of %d keys", n, keys)
		}
	})
}

// A loader that took longer than the lock's timeout, 5 s, made every waiter fail.
func TestLockTimeoutIsNoError(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.node(nil)
	b := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.LockTimeout = 100 * time.Millisecond })
	l := newLoader("slow")
	slow := async(t, func() error { return a.GetOrSet(t.Context(), "k", new(string), l.load) })
	l.wait(t)
	var v string
	began := time.Now()
	err := b.GetOrSet(t.Context(), "k", &v, func(context.Context) (any, error) { return "mine", nil })
	if err != nil || v != "mine" {
		t.Errorf("%q, %v", v, err)
	}
	if waited := time.Since(began); waited < 100*time.Millisecond {
		t.Errorf("it loaded after %v: before LockTimeout", waited)
	}
	l.release()
	if err := slow(); err != nil {
		t.Error(err)
	}
	want(t, b, "k", "mine") // the slow one did not store over it
}

// get_or_set of a key inside its own loader waited for itself, 5 s long.
func TestRecursiveLoad(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	began := time.Now()
	err := c.GetOrSet(t.Context(), "k", new(int), func(ctx context.Context) (any, error) {
		var v int
		return v, c.GetOrSet(ctx, "k", &v, func(context.Context) (any, error) { return 1, nil })
	})
	wantErr(t, err, pgcache.ErrRecursiveLoad)
	if took := time.Since(began); took > 20*time.Second { // LoadTimeout is 30 s
		t.Errorf("after %v", took)
	}
	cl.noLocks()
}

// The lock was a hash of the bare key: caches with other prefixes, and an application's own locks, were in its way.
func TestLocksOfOthers(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	node := func(cl *cluster, prefix string) *pgcache.Cache {
		return cl.node(func(_ *sql.DB, o *pgcache.Options) {
			o.Prefix, o.LockTimeout, o.LoadTimeout = prefix, time.Minute, 2*time.Minute
		})
	}
	a, b := node(cl, "a_"), node(cl, "b_")
	other := node(newCluster(t), "a_") // in another schema

	// All the single numbers that a hash of the key could be.
	app, err := cl.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	for _, lock := range []string{"hashtext('k')", "hashtextextended('k', 0)", strconv.Itoa(int(store.Hash("k")))} {
		if _, err := app.ExecContext(t.Context(), "SELECT pg_advisory_lock("+lock+"::bigint)"); err != nil {
			t.Fatal(err)
		}
	}
	l := newLoader(1)
	first := async(t, func() error { return a.GetOrSet(t.Context(), "k", new(int), l.load) })
	l.wait(t)
	for _, c := range []*pgcache.Cache{b, other} {
		began := time.Now()
		if err := c.GetOrSet(t.Context(), "k", new(int), func(context.Context) (any, error) { return 2, nil }); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 30*time.Second { // LockTimeout is a minute
			t.Errorf("waited %v for a stranger", took)
		}
	}
	l.release()
	if err := first(); err != nil {
		t.Fatal(err)
	}
	want(t, a, "k", 1)
	want(t, b, "k", 2)
}

// loader is a loader that a test lets go.
type loader struct {
	value   any
	calls   atomic.Int64
	began   chan struct{}
	resumed chan struct{}
	once    sync.Once
}

func newLoader(value any) *loader {
	return &loader{value: value, began: make(chan struct{}, 1000), resumed: make(chan struct{})}
}

// load waits to be released, or for its context.
func (l *loader) load(ctx context.Context) (any, error) {
	l.calls.Add(1)
	l.began <- struct{}{}
	select {
	case <-l.resumed:
		return l.value, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (l *loader) release() { l.once.Do(func() { close(l.resumed) }) }

// wait waits until the loader runs.
func (l *loader) wait(t *testing.T) {
	t.Helper()
	select {
	case <-l.began:
	case <-time.After(time.Minute):
		t.Fatal("the loader is not called")
	}
}

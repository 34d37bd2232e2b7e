package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/driver/pqdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// forDrivers runs test over both drivers.
func forDrivers(t *testing.T, test func(t *testing.T, driver string)) {
	t.Helper()
	for _, driver := range testdb.Drivers(t) {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			test(t, driver)
		})
	}
}

// forWindows runs test on a cluster that publishes every write at once, and on one that publishes a window's together.
func forWindows(t *testing.T, test func(t *testing.T, cl *cluster)) {
	t.Helper()
	for name, window := range map[string]time.Duration{"immediate": pgcache.Immediate, "window": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			cl.opts.InvalidationWindow = window
			test(t, cl)
		})
	}
}

// forGuards runs test on a cluster with each guard.
func forGuards(t *testing.T, test func(t *testing.T, cl *cluster)) {
	t.Helper()
	for name, guard := range map[string]pgcache.Guard{"AdvisoryLock": pgcache.AdvisoryLock(), "Lease": pgcache.Lease()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			cl.opts.Guard, cl.opts.LockTimeout = guard, time.Minute // after it others load too
			test(t, cl)
		})
	}
}

// listenerOf is the listener that goes with a driver.
func listenerOf(driver string, db *sql.DB, dsn string) pgcache.Listener {
	if driver == "postgres" {
		return pqdriver.Listener(dsn)
	}
	return pgxdriver.Listener(db)
}

// calm returns a listener that does not lose heart: where a test is about what a node holds in memory meanwhile, a
// machine that is too busy for a heartbeat must not interfere.
func calm(dial listener.Dial) pgcache.Listener {
	return listener.New(dial, listener.Config{HeartbeatEvery: time.Minute, HeartbeatTimeout: time.Minute})
}

// eventually waits until ok, for a minute at most: for what has no signal of its own.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// inTime runs try until it returns nil, five times at most. It is for bounds of time: a machine that stalls makes one try too slow, what
// is broken makes every try so.
func inTime(t testing.TB, try func() error) {
	t.Helper()
	var err error
	for range 5 {
		if err = try(); err == nil {
			return
		}
		t.Log("once more:", err)
	}
	t.Error(err)
}

// readySays fails unless Ready waits in vain, and its error says why. On a busy machine it takes a while to find out.
func readySays(t *testing.T, c *pgcache.Cache, why string) {
	t.Helper()
	for patience := 200 * time.Millisecond; ; patience *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := c.Ready(ctx)
		cancel()
		if err != nil && strings.Contains(err.Error(), why) {
			return
		}
		if err == nil || patience > time.Minute {
			t.Fatalf("Ready: %v, want it to say %q", err, why)
		}
	}
}

// user is what tests store where a number will not do.
type user struct {
	ID    int64
	Name  string
	Roles []string
}

// get is Get of a value of type T that must not fail.
func get[T any](t *testing.T, c *pgcache.Cache, key string) (v T, found bool) {
	t.Helper()
	found, err := c.Get(t.Context(), key, &v)
	if err != nil {
		t.Fatal(err)
	}
	return v, found
}

// want fails unless c has want under key.
func want[T comparable](t *testing.T, c *pgcache.Cache, key string, want T) {
	t.Helper()
	if v, found := get[T](t, c, key); !found || v != want {
		t.Fatalf("%q is %v (found: %v), want %v", key, v, found, want)
	}
}

// wantNone fails if c has anything under key.
func wantNone(t *testing.T, c *pgcache.Cache, key string) {
	t.Helper()
	wantNoneOf[any](t, c, key)
}

// wantNoneOf fails if a Get into a T finds anything: bytes that do not decode into one are a miss.
func wantNoneOf[T any](t *testing.T, c *pgcache.Cache, key string) {
	t.Helper()
	if v, found := get[T](t, c, key); found {
		t.Fatalf("%q is %v, want none", key, v)
	}
}

// set is Set, which must not fail.
func set(t *testing.T, c *pgcache.Cache, key string, value any, opts ...pgcache.Option) {
	t.Helper()
	if err := c.Set(t.Context(), key, value, opts...); err != nil {
		t.Fatal(err)
	}
}

// del is Delete, which must not fail.
func del(t *testing.T, c *pgcache.Cache, keys ...string) {
	t.Helper()
	if err := c.Delete(t.Context(), keys...); err != nil {
		t.Fatal(err)
	}
}

// deleteTags is DeleteTags, which must not fail.
func deleteTags(t *testing.T, c *pgcache.Cache, tags ...string) {
	t.Helper()
	if err := c.DeleteTags(t.Context(), tags...); err != nil {
		t.Fatal(err)
	}
}

// deletePrefix is DeletePrefix, which must not fail.
func deletePrefix(t *testing.T, c *pgcache.Cache, prefix string) {
	t.Helper()
	if err := c.DeletePrefix(t.Context(), prefix); err != nil {
		t.Fatal(err)
	}
}

// warm reads key until it is in c's memory with this value.
func warm[T comparable](t *testing.T, c *pgcache.Cache, key string, value T) {
	t.Helper()
	eventually(t, "the value is in memory", func() bool {
		before := c.Stats().LocalHits
		v, found := get[T](t, c, key)
		return found && v == value && c.Stats().LocalHits > before
	})
}

// async runs f in a goroutine; the returned function waits for its result, for a minute at most.
func async[T any](t *testing.T, f func() T) (result func() T) {
	t.Helper()
	done := make(chan T, 1)
	go func() { done <- f() }()
	return func() T {
		t.Helper()
		select {
		case v := <-done:
			return v
		case <-time.After(time.Minute):
			t.Fatal("it does not return within a minute")
			panic("unreachable")
		}
	}
}

// cause checks that err is an *Error of this operation and key, and returns it.
func cause(t *testing.T, err error, op, key string) *pgcache.Error {
	t.Helper()
	var e *pgcache.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v (%T) is no *pgcache.Error", err, err)
	}
	if e.Op != op || e.Key != key || e.Err == nil {
		t.Fatalf("the error is of %q %q: %v; want %q %q and a cause", e.Op, e.Key, e.Err, op, key)
	}
	if s := err.Error(); !strings.HasPrefix(s, "pgcache: "+op) {
		t.Fatalf("the error reads %q", s)
	}
	return e
}

// wantErr fails unless err is target, in an *Error.
func wantErr(t *testing.T, err, target error) {
	t.Helper()
	var e *pgcache.Error
	if !errors.Is(err, target) || !errors.As(err, &e) {
		t.Errorf("%v (%T), want a *pgcache.Error of %v", err, err, target)
	}
}

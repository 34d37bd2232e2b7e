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
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

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

// forWindows runs test over a cluster that publishes every write at once, and over one that publishes a window's together.
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

// expire makes the rows that where selects look as if they had been written and had expired long ago, without publishing
// anybody.
func (cl *cluster) expire(where string) {
	cl.t.Helper()
	cl.exec("UPDATE " + cl.table() + ` SET version = version + 1, stamp = version + 1, expires_at = clock_timestamp() - interval '1 hour',
		written_at = clock_timestamp() - interval '2 hours' WHERE ` + where)
	cl.ended()
}

// ended makes the transactions of before look as if they had ended long ago.
func (cl *cluster) ended() {
	cl.t.Helper()
	cl.exec("UPDATE " + cl.object("cache_state") + " SET ended_before = pg_snapshot_xmax(pg_current_snapshot())")
}

// follow puts a mark that a writes and b keeps in memory. caughtUp waits until b has received everything that was
// committed before the call. w is b's wire, or nil: what it holds up does not hold up this.
func (cl *cluster) follow(a, b *pgcache.Cache, w *wire) (caughtUp func()) {
	cl.t.Helper()
	if w == nil {
		w = &wire{}
	}
	n := 0
	write := func() {
		cl.t.Helper()
		n++
		// What waits in the log may be overtaken by a mark that is published at once.
		eventually(cl.t, "the log is flushed", func() bool {
			return cl.count("SELECT count(*) FROM "+strings.TrimSuffix(cl.table(), "entries")+"changes") == 0
		})
		set(cl.t, a, "mark", n)
		_ = w.unstopped(func() error { warm(cl.t, b, "mark", n); return nil })
	}
	write()
	return write
}

// on returns a ready node on db, with no listener unless change sets one.
func (cl *cluster) on(db *sql.DB, change func(o *pgcache.Options)) *pgcache.Cache {
	cl.t.Helper()
	c := cl.new(db, change)
	if err := c.Migrate(cl.t.Context()); err != nil {
		cl.t.Fatal(err)
	}
	cl.ready(c)
	return c
}

// new returns a node on db that may not be ready.
func (cl *cluster) new(db *sql.DB, change func(o *pgcache.Options)) *pgcache.Cache {
	cl.t.Helper()
	o := cl.opts
	if change != nil {
		change(&o)
	}
	c, err := pgcache.New(db, o)
	if err != nil {
		cl.t.Fatal(err)
	}
	cl.t.Cleanup(func() { c.Close() })
	return c
}

func (cl *cluster) ready(c *pgcache.Cache) {
	cl.t.Helper()
	ctx, cancel := context.WithTimeout(cl.t.Context(), 20*time.Second)
	defer cancel()
	if err := c.Ready(ctx); err != nil {
		cl.t.Fatal(err)
	}
}

// wired returns a ready node whose statements can be counted and held up, with a listener of its own.
func (cl *cluster) wired(change func(o *pgcache.Options)) (*pgcache.Cache, *wire) {
	cl.t.Helper()
	db, w := openWire(cl.t, "pgx", testdb.DSN(cl.t))
	return cl.on(db, func(o *pgcache.Options) {
		o.Listener = pgxdriver.Listener(db)
		if change != nil {
			change(o)
		}
	}), w
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

// names are the names of the cluster's objects.
func (cl *cluster) names() store.Names {
	cl.t.Helper()
	n, err := store.Names{Schema: cl.opts.Schema, Prefix: cl.opts.Prefix, Channel: cl.opts.Channel}.Resolve()
	if err != nil {
		cl.t.Fatal(err)
	}
	return n
}

// keyLocks are the advisory locks held on keys of this cluster.
func (cl *cluster) keyLocks(what string) int {
	cl.t.Helper()
	n := cl.names()
	return cl.count("SELECT "+what+` FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid = $1::bigint::oid
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
		int64(uint32(n.KeyClass())))
}

// locks is their number.
func (cl *cluster) locks() int {
	cl.t.Helper()
	return cl.keyLocks("count(*)")
}

func (cl *cluster) noLocks() {
	cl.t.Helper()
	eventually(cl.t, "the advisory locks are released", func() bool { return cl.locks() == 0 })
	eventually(cl.t, "the leases are released", func() bool { return cl.leases() == 0 })
}

// leases is the number of leases on keys of this cluster.
func (cl *cluster) leases() int {
	cl.t.Helper()
	if cl.count("SELECT count(to_regclass($1))", cl.object("cache_leases")) == 0 {
		return 0
	}
	return cl.count("SELECT count(*) FROM " + cl.object("cache_leases"))
}

// forGuards runs test over a cluster with each guard.
func forGuards(t *testing.T, test func(t *testing.T, cl *cluster)) {
	t.Helper()
	for name, guard := range map[string]pgcache.Guard{"AdvisoryLock": pgcache.AdvisoryLock(), "Lease": pgcache.Lease()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			cl.opts.Guard = guard
			test(t, cl)
		})
	}
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
	var v any
	if found, err := c.Get(t.Context(), key, &v); found || err != nil {
		t.Fatalf("%q is %v (found: %v, error: %v), want none", key, v, found, err)
	}
}

func set(t *testing.T, c *pgcache.Cache, key string, value any, opts ...pgcache.Option) {
	t.Helper()
	if err := c.Set(t.Context(), key, value, opts...); err != nil {
		t.Fatal(err)
	}
}

func del(t *testing.T, c *pgcache.Cache, keys ...string) {
	t.Helper()
	if err := c.Delete(t.Context(), keys...); err != nil {
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

// async runs f in a goroutine; the returned function waits for its result.
func async[T any](t *testing.T, f func() T) (result func() T) {
	t.Helper()
	done := make(chan T, 1)
	go func() { done <- f() }()
	return func() T {
		t.Helper()
		select {
		case v := <-done:
			return v
		case <-time.After(20 * time.Second):
			t.Fatal("it does not return")
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

// wantMiss fails if c has a T under key.
func wantMiss[T any](t *testing.T, c *pgcache.Cache, key string) {
	t.Helper()
	if v, found := get[T](t, c, key); found {
		t.Errorf("%q is %v", key, v)
	}
}

// object is the name of one of the cluster's objects, with its schema.
func (cl *cluster) object(name string) string {
	return cl.opts.Schema + `."` + cl.opts.Prefix + name + `"`
}

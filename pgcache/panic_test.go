package pgcache_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// faulty is a pool's connector whose connections panic in Gets and Sets while bad is set, after hold has been closed, and in the
// statement on, if that is set.
type faulty struct {
	driver.Connector
	bad    atomic.Bool
	hold   chan struct{}
	on     atomic.Pointer[string]
	panics atomic.Int64 // in on
}

func (f *faulty) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := f.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &faultyConn{&wireConn{conn, &wire{}}, f}, nil
}

type faultyConn struct {
	*wireConn
	f *faulty
}

func (c *faultyConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if c.f.bad.Load() && (strings.Contains(query, named("GetEntr")) || strings.Contains(query, named("PutEntr"))) {
		<-c.f.hold
		panic("index out of range")
	}
	c.f.statement(query)
	return c.wireConn.QueryContext(ctx, query, args)
}

func (c *faultyConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.f.statement(query)
	return c.wireConn.ExecContext(ctx, query, args)
}

func (f *faulty) statement(query string) {
	if on := f.on.Load(); on != nil && strings.Contains(query, named(*on)+" ") {
		f.panics.Add(1)
		panic("index out of range")
	}
}

// TestDriverPanicsInTheBackground: a driver that panics in a statement that the cache sends by itself, on its own goroutines, does not end
// the program. When that is over the cache is as before.
func TestDriverPanicsInTheBackground(t *testing.T) {
	t.Parallel()
	listen := func(o *pgcache.Options) {}
	for statement, opts := range map[string]func(o *pgcache.Options){
		"Pulse": listen, "Flush": listen, "LockAndLook": listen, "StoreLoaded": listen,
		"ClaimSweep":    func(o *pgcache.Options) { o.CleanupInterval = 20 * time.Millisecond },
		"LeaseAndLook":  func(o *pgcache.Options) { o.Guard = pgcache.Lease() },
		"ReleaseLeases": func(o *pgcache.Options) { o.Guard = pgcache.Lease() },
		"Look":          func(o *pgcache.Options) { o.Guard = pgcache.NoGuard() },
		"Poll":          func(o *pgcache.Options) { o.Listener = listener.Poll(10 * time.Millisecond) },
		"Oldest":        func(o *pgcache.Options) { o.Listener = nil },
	} {
		t.Run(statement, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			config, err := pgx.ParseConfig(testdb.DSN(t))
			if err != nil {
				t.Fatal(err)
			}
			f := &faulty{Connector: stdlib.GetConnector(*config)}
			db := sql.OpenDB(f)
			t.Cleanup(func() { db.Close() })
			c := cl.on(db, func(o *pgcache.Options) {
				o.Listener = pgxdriver.ListenerDSN(testdb.DSN(t))
				opts(o)
			})
			f.on.Store(&statement)
			n := 0
			eventually(t, "it panics", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_ = c.Set(ctx, "k", "v")
				_ = c.Set(ctx, "k", "w")
				var v string
				n++
				_ = c.GetOrSet(ctx, fmt.Sprint(n), &v, func(context.Context) (any, error) { return nil, errors.New("a lease is given back") })
				_ = c.GetOrSet(ctx, fmt.Sprint(n), &v, func(context.Context) (any, error) { return "v", nil })
				return f.panics.Load() > 0
			})
			f.on.Store(nil)
			eventually(t, "it is ready", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				return c.Ready(ctx) == nil
			})
			if err := c.Set(t.Context(), "k", "x"); err != nil {
				t.Error(err)
			}
			want(t, c, "k", "x")
		})
	}
}

// TestDriverPanics: a driver that panics fails all callers that wait for its statement, and leaves nothing behind.
func TestDriverPanics(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	config, err := pgx.ParseConfig(testdb.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	f := &faulty{Connector: stdlib.GetConnector(*config)}
	db := sql.OpenDB(f)
	t.Cleanup(func() { db.Close() })
	c := cl.on(db, nil)
	strs := pgcache.For[string](c)
	for name, call := range map[string]func(i int) error{
		"Get of one key":    func(int) error { _, err := c.Get(t.Context(), "k", new(string)); return err },
		"Get of other keys": func(i int) error { _, err := c.Get(t.Context(), fmt.Sprint("k", i), new(string)); return err },
		"GetMany":           func(i int) error { _, err := strs.GetMany(t.Context(), []string{"k", fmt.Sprint("k", i)}); return err },
		"Set":               func(i int) error { return c.Set(t.Context(), fmt.Sprint("k", i), "v") },
		"large Set":         func(i int) error { return c.Set(t.Context(), fmt.Sprint("k", i), strings.Repeat("v", 300<<10)) },
	} {
		f.hold = make(chan struct{})
		f.bad.Store(true)
		var wg sync.WaitGroup
		errs := make([]error, 12)
		for i := range errs {
			wg.Go(func() { errs[i] = call(i) })
		}
		time.AfterFunc(100*time.Millisecond, func() { close(f.hold) }) // most of them wait for another's statement
		all := async(t, func() error { wg.Wait(); return nil })
		_ = all()
		for i, err := range errs {
			if err == nil || !strings.Contains(err.Error(), "index out of range") {
				t.Errorf("%s: caller %d got %v", name, i, err)
			}
		}
		f.bad.Store(false)
		for i := range 3 {
			if err := call(i); err != nil {
				t.Errorf("%s, when it is over: %v", name, err)
			}
		}
	}
}

package pgcache_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/driver/pqdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// Timeouts of the role hit our statements like anybody's: an error, and nothing is left locked. The sessions that are
// idle by trade do not end of it.
func TestRoleTimeouts(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		dsn := testdb.DSN(t)
		for name, ms := range map[string]string{"statement_timeout": "3000", "lock_timeout": "2000", "idle_session_timeout": "2500", "idle_in_transaction_session_timeout": "2500"} {
			dsn = testdb.WithParam(dsn, name, ms)
		}
		db := testdb.Open(t, driver, dsn)
		dial := pgxdriver.DialDSN(dsn)
		if driver == "postgres" {
			dial = pqdriver.DialDSN(dsn)
		}
		var dials atomic.Int32
		c := cl.on(db, func(o *pgcache.Options) {
			o.Timeout = time.Minute
			o.Listener = calm(func(ctx context.Context, on func(channel, payload string)) (listener.Conn, error) {
				dials.Add(1)
				return dial(ctx, on)
			})
		})
		set(t, c, "k", 1)

		tx, err := cl.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(t.Context(), "SELECT FROM "+cl.table()+" WHERE key = 'k' FOR UPDATE"); err != nil {
			t.Fatal(err)
		}
		err = c.Set(t.Context(), "k", 2)
		if e := cause(t, err, "set", "k"); !strings.Contains(e.Error(), "timeout") { // the server's: ours has a capital letter
			t.Error(e)
		}
		// A loader may take longer than all of them: it holds no statement and no transaction.
		var v int
		if err := c.GetOrSet(t.Context(), "slow", &v, func(context.Context) (any, error) {
			time.Sleep(3500 * time.Millisecond)
			if n := cl.locks(); n != 1 {
				t.Errorf("%d locks while it loads", n)
			}
			return 7, nil
		}); err != nil || v != 7 {
			t.Error(v, err)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		cl.noLocks()
		want(t, c, "k", 1)
		set(t, c, "k", 3)
		warm(t, c, "k", 3)
		if n := dials.Load(); n != 1 {
			t.Errorf("the listener connected %d times", n)
		}
	})
}

// Sessions with another isolation by default work like others, also when they meet.
func TestIsolationLevels(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		for _, level := range []string{"repeatable read", "serializable"} {
			t.Run(level, func(t *testing.T) {
				t.Parallel()
				const writers, writes = 3, 40
				cl := newCluster(t)
				dsn := testdb.WithParam(testdb.DSN(t), "default_transaction_isolation", level)
				var nodes []*pgcache.Cache
				for range 2 {
					db := testdb.Open(t, driver, dsn)
					nodes = append(nodes, cl.on(db, func(o *pgcache.Options) { o.Listener = listenerOf(driver, db, dsn) }))
				}
				for name, err := range everything(t.Context(), nodes[0]) {
					if err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
				var wg sync.WaitGroup
				for i, c := range nodes {
					for w := range writers {
						wg.Go(func() {
							for n := range writes {
								key := strconv.Itoa(n % 2)
								if err := c.Set(t.Context(), key, i*1000+w*100+n); err != nil {
									t.Errorf("Set: %v", err)
									return
								}
								if _, err := c.Get(t.Context(), key, new(int)); err != nil {
									t.Errorf("Get: %v", err)
									return
								}
								if err := c.GetOrSet(t.Context(), fmt.Sprint("l", n), new(int), func(context.Context) (any, error) { return n, nil }); err != nil {
									t.Errorf("GetOrSet: %v", err)
									return
								}
							}
						})
					}
				}
				wg.Wait()
				cl.follow(nodes[0], nodes[1], nil)()
				cl.follow(nodes[1], nodes[0], nil)()
				for _, key := range []string{"0", "1"} {
					a, _ := get[int](t, nodes[0], key)
					b, _ := get[int](t, nodes[1], key)
					if a != b {
						t.Errorf("%s is %d and %d", key, a, b)
					}
				}
			})
		}
	})
}

// Sessions that are read-only by default: reads work, GetOrSet loads, writes say why not.
func TestReadOnlySessions(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		set(t, cl.on(testdb.DB(t), nil), "k", 1)
		dsn := testdb.WithParam(testdb.DSN(t), "default_transaction_read_only", "on")
		db := testdb.Open(t, driver, dsn)
		c := cl.new(db, func(o *pgcache.Options) { o.Listener = listenerOf(driver, db, dsn) })
		cl.ready(c)
		warm(t, c, "k", 1)
		typed := pgcache.For[int](c)
		_, cleanup := c.Cleanup(t.Context())
		for name, err := range map[string]error{
			"Set": c.Set(t.Context(), "k", 2), "Delete": c.Delete(t.Context(), "k"), "Cleanup": cleanup,
			"SetMany": typed.SetMany(t.Context(), map[string]int{"k": 2, "l": 2}),
		} {
			var e *pgcache.Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), "read-only") {
				t.Errorf("%s: %v", name, err)
			}
		}
		var v int
		err := c.GetOrSet(t.Context(), "x", &v, func(context.Context) (any, error) { return 7, nil })
		if err != nil && !strings.Contains(err.Error(), "read-only") || err == nil && v != 7 {
			t.Error(v, err)
		}
		want(t, c, "k", 1)
		wantNone(t, c, "x")
		cl.noLocks()
		// Transactions of our own are READ WRITE with lib/pq, as database/sql asks for; pgx leaves it to the session.
		if driver == "postgres" {
			return
		}
		if err := c.Clear(t.Context()); err == nil || !strings.Contains(err.Error(), "read-only") {
			t.Errorf("Clear: %v", err)
		}
		fresh := newCluster(t)
		if err := fresh.new(db, nil).Migrate(t.Context()); err == nil || !strings.Contains(err.Error(), "read-only") {
			t.Errorf("Migrate: %v", err)
		}
	})
}

package pgcache_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// With the database gone, GetOrSet loads and returns; the others say what failed. All recovers alone.
func TestDatabaseDown(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprintf("known=%v", known), func(t *testing.T) {
				t.Parallel()
				cl := newCluster(t)
				link := testdb.NewProxy(t, testdb.DSN(t))
				db := testdb.Open(t, driver, link.DSN())
				cl.on(testdb.DB(t), nil) // makes the tables
				if !known {
					link.Cut()
				}
				c := cl.new(db, func(o *pgcache.Options) { o.Listener = listenerOf(driver, db, link.DSN()) })
				typed := pgcache.For[int](c, pgcache.Namespace("user"))
				if known {
					cl.ready(c)
					set(t, c, "user:1", 1)
					warm(t, c, "user:1", 1)
					before := c.Stats().LocalFlushes
					link.Cut()
					eventually(t, "the listener knows", func() bool { return c.Stats().LocalFlushes > before })
				}
				ctx := t.Context()
				var v int
				_, err := c.Get(ctx, "user:1", &v)
				cause(t, err, "get", "user:1")
				_, _, err = typed.Get(ctx, "1")
				cause(t, err, "get", "user:1")
				cause(t, c.Set(ctx, "user:1", 2), "set", "user:1")
				cause(t, typed.Set(ctx, "1", 2), "set", "user:1")
				cause(t, c.Delete(ctx, "user:1"), "delete", "user:1")
				_, err = typed.GetMany(ctx, []string{"1", "2"})
				cause(t, err, "get many", "")
				cause(t, typed.SetMany(ctx, map[string]int{"1": 1, "2": 2}), "set many", "")
				_, err = c.Cleanup(ctx)
				cause(t, err, "cleanup", "")
				cause(t, c.Clear(ctx), "clear", "")
				_, err = c.MigrationState(ctx)
				cause(t, err, "migration state", "")
				cause(t, c.Migrate(ctx), "migrate", "")
				short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
				cause(t, c.Ready(short), "ready", "")
				cancel()

				// GetOrSet does without. Who came before the loader was called shares what it brings, who came later shares the next.
				l := newLoader(7)
				var results []func() error
				for range 4 {
					results = append(results, async(t, func() error {
						var v int
						err := c.GetOrSet(ctx, "user:1", &v, l.load)
						if v != 7 && err == nil {
							err = fmt.Errorf("got %d", v)
						}
						return err
					}))
				}
				l.wait(t)
				eventually(t, "all wait", func() bool { return c.Stats().Coalesced == 3 })
				l.release()
				for _, result := range results {
					if err := result(); err != nil {
						t.Error(err)
					}
				}
				if n := l.calls.Load(); n > int64(len(results)) {
					t.Errorf("%d loads", n)
				}
				m, err := typed.GetOrSetMany(ctx, []string{"1", "2"}, func(_ context.Context, keys []string) (map[string]int, error) {
					return map[string]int{keys[0]: 1, keys[1]: 2}, nil
				})
				if err != nil || len(m) != 2 {
					t.Error(m, err)
				}
				// What the loader says is still an error.
				boom := errors.New("boom")
				if err := c.GetOrSet(ctx, "user:1", &v, func(context.Context) (any, error) { return nil, boom }); !errors.Is(err, boom) {
					t.Error(err)
				}

				link.Restore()
				cl.ready(c)
				eventually(t, "all is well again", func() bool { return c.Set(ctx, "user:1", 3) == nil })
				warm(t, c, "user:1", 3)
				if err := c.GetOrSet(ctx, "user:9", &v, func(context.Context) (any, error) { return 9, nil }); err != nil {
					t.Error(err)
				}
				want(t, cl.on(testdb.DB(t), nil), "user:9", 9) // stored again
			})
		}
	})
}

// While the database can't be reached a loader may see a change whose notification is yet to come. What memory has from before is not served
// again when the database is back.
func TestDatabaseDown_MemoryFromBefore(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	link := testdb.NewProxy(t, testdb.DSN(t))
	db, direct := testdb.Open(t, "pgx", link.DSN()), testdb.DB(t)
	c := cl.on(db, func(o *pgcache.Options) { o.Listener = pgxdriver.Listener(direct) })
	typed := pgcache.For[int](c)
	ctx := t.Context()
	keys := []string{"one", "many", "none", "other"}
	for _, key := range keys {
		set(t, c, key, 1)
		warm(t, c, key, 1)
	}
	flushes := c.Stats().LocalFlushes
	link.Cut()
	eventually(t, "memory is not trusted", func() bool { _, err := c.Get(ctx, "other", new(int)); return err != nil })
	if n, err := typed.GetOrSet(ctx, "one", func(context.Context) (int, error) { return 2, nil }); err != nil || n != 2 {
		t.Error(n, err)
	}
	many, err := typed.GetOrSetMany(ctx, []string{"many"}, func(context.Context, []string) (map[string]int, error) { return map[string]int{"many": 2}, nil })
	if err != nil || many["many"] != 2 {
		t.Error(many, err)
	}
	if _, err := typed.GetOrSet(ctx, "none", func(context.Context) (int, error) { return 0, pgcache.ErrNotFound }); !errors.Is(err, pgcache.ErrNotFound) {
		t.Error(err)
	}
	link.Restore()
	cl.ready(c)
	served := func(key string) bool {
		before := c.Stats().LocalHits
		want(t, c, key, 1)
		return c.Stats().LocalHits > before
	}
	if !served("other") || c.Stats().LocalFlushes != flushes {
		t.Skip("the machine was so busy that memory was forgotten")
	}
	for _, key := range keys[:3] {
		if served(key) {
			t.Errorf("%q: memory from before is served", key)
		}
	}
}

// Before the database has answered for the first time, callers do not queue up for a timeout each.
func TestSilentFromTheStart(t *testing.T) {
	t.Parallel()
	const callers, timeout = 20, 150 * time.Millisecond
	cl := newCluster(t)
	cl.on(testdb.DB(t), nil)
	link := testdb.NewProxy(t, testdb.DSN(t))
	link.Freeze()
	inTime(t, func() error {
		c := cl.new(testdb.Open(t, "pgx", link.DSN()), func(o *pgcache.Options) { o.Timeout = timeout })
		began := time.Now()
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				var v int
				if err := c.GetOrSet(t.Context(), strconv.Itoa(i), &v, func(context.Context) (any, error) { return i, nil }); err != nil || v != i {
					t.Errorf("%d: %v, %v", i, v, err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took > callers*timeout/2 {
			return fmt.Errorf("%d callers at once took %v, with a Timeout of %v", callers, took, timeout)
		}
		return nil
	})
}

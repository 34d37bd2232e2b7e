package pgcache_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// Whatever a loader does instead of returning a value: every waiter gets that error, the lock is free, nothing is stored,
// and the next call loads.
func TestLoaderFails(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	other := cl.node(nil)
	boom := errors.New("boom")
	var paniced *pgcache.PanicError
	for name, test := range map[string]struct {
		end   func(ctx context.Context) (any, error)
		check func(err error) bool
	}{
		"an error":      {func(context.Context) (any, error) { return nil, boom }, func(err error) bool { return errors.Is(err, boom) }},
		"not found":     {func(context.Context) (any, error) { return 1, pgcache.ErrNotFound }, func(err error) bool { return errors.Is(err, pgcache.ErrNotFound) }},
		"its own cause": {func(context.Context) (any, error) { return nil, context.Canceled }, func(err error) bool { return errors.Is(err, context.Canceled) }},
		"a panic": {func(context.Context) (any, error) { panic("boom") }, func(err error) bool {
			return errors.As(err, &paniced) && paniced.Value == "boom" && strings.Contains(string(paniced.Stack), "load_test.go")
		}},
		"a panic with an error": {func(context.Context) (any, error) { panic(boom) }, func(err error) bool { return errors.Is(err, boom) && errors.As(err, &paniced) }},
		"a nil panic":           {func(context.Context) (any, error) { panic(nil) }, func(err error) bool { return errors.As(err, &paniced) }},
		"Goexit":                {func(context.Context) (any, error) { runtime.Goexit(); return nil, nil }, func(err error) bool { return errors.Is(err, pgcache.ErrLoaderExited) }},
		"its own key": {func(ctx context.Context) (any, error) {
			return pgcache.For[int](c).GetOrSet(ctx, "its own key", func(context.Context) (int, error) { return 1, nil })
		}, func(err error) bool { return errors.Is(err, pgcache.ErrRecursiveLoad) }},
	} {
		t.Run(name, func(t *testing.T) {
			const waiters = 5
			l := newLoader(nil)
			var results []func() error
			load := func(ctx context.Context) (any, error) {
				_, _ = l.load(ctx)
				return test.end(ctx)
			}
			before := c.Stats()
			for range waiters {
				results = append(results, async(t, func() error { return c.GetOrSet(t.Context(), name, new(int), load) }))
			}
			l.wait(t)
			eventually(t, "all wait", func() bool { return c.Stats().Coalesced == before.Coalesced+waiters-1 })
			l.release()
			for _, result := range results {
				if err := result(); !test.check(err) {
					t.Errorf("a waiter got %v", err)
				} else {
					cause(t, err, "get or set", name)
				}
			}
			if n := l.calls.Load(); n != 1 {
				t.Errorf("%d calls", n)
			}
			if s := c.Stats(); s.Loads != before.Loads+1 || s.LoadErrors != before.LoadErrors+1 {
				t.Errorf("%+v", s)
			}
			cl.noLocks()
			if n := cl.count("SELECT count(*) FROM "+cl.table()+" WHERE key = $1", name); n != 0 {
				t.Error("something is stored")
			}
			var v int
			if err := other.GetOrSet(t.Context(), name, &v, func(context.Context) (any, error) { return 7, nil }); err != nil || v != 7 {
				t.Errorf("the next call: %v, %v", v, err)
			}
			want(t, c, name, 7)
		})
	}
}

// A loader may use the cache, but not wait for itself: not through a view, not for many keys, not around a corner.
func TestRecursion(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c, other := cl.node(nil), cl.node(nil)
	view := pgcache.For[int](c, pgcache.Namespace("user"))
	plain := pgcache.For[int](c)
	one := func(context.Context) (int, error) { return 1, nil }
	oneAny := func(context.Context) (any, error) { return 1, nil }
	none := func(context.Context, []string) (map[string]int, error) { return nil, nil }
	untyped := func(ctx context.Context, key string) error { return c.GetOrSet(ctx, key, new(int), oneAny) }

	for name, nested := range map[string]func(ctx context.Context) error{
		"untyped":    func(ctx context.Context) error { return untyped(ctx, "user:1") },
		"view":       func(ctx context.Context) error { _, err := view.GetOrSet(ctx, "1", one); return err },
		"plain view": func(ctx context.Context) error { _, err := plain.GetOrSet(ctx, "user:1", one); return err },
		"many": func(ctx context.Context) error {
			_, err := view.GetOrSetMany(ctx, []string{"0", "1"}, none)
			return err
		},
		"another context": func(ctx context.Context) error { return untyped(context.WithoutCancel(ctx), "user:1") },
		"another key between": func(ctx context.Context) error {
			_, err := plain.GetOrSet(ctx, "between", func(ctx context.Context) (int, error) { return 0, untyped(ctx, "user:1") })
			return err
		},
	} {
		for outer, call := range map[string]func(ctx context.Context, load func(ctx context.Context) error) error{
			"untyped": func(ctx context.Context, load func(ctx context.Context) error) error {
				return c.GetOrSet(ctx, "user:1", new(int), func(ctx context.Context) (any, error) { return 1, load(ctx) })
			},
			"view": func(ctx context.Context, load func(ctx context.Context) error) error {
				_, err := view.GetOrSet(ctx, "1", func(ctx context.Context) (int, error) { return 1, load(ctx) })
				return err
			},
			"many": func(ctx context.Context, load func(ctx context.Context) error) error {
				_, err := view.GetOrSetMany(ctx, []string{"1", "2"}, func(ctx context.Context, _ []string) (map[string]int, error) { return nil, load(ctx) })
				return err
			},
		} {
			began := time.Now()
			if err := call(t.Context(), nested); !errors.Is(err, pgcache.ErrRecursiveLoad) {
				t.Errorf("%s in %s: %v", name, outer, err)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("%s in %s: took %v", name, outer, took)
			}
		}
	}
	// What is no recursion: another key, another cache's same key, a Get, a Set.
	var v int
	err := c.GetOrSet(t.Context(), "user:1", &v, func(ctx context.Context) (any, error) {
		_, getErr := c.Get(ctx, "user:1", new(int))
		return 5, errors.Join(getErr, untyped(ctx, "user:2"), c.Set(ctx, "user:3", 3), c.Delete(ctx, "user:4"))
	})
	if err != nil || v != 5 {
		t.Error(v, err)
	}
	want(t, other, "user:2", 1)
	null := pgcache.Null()
	defer null.Close()
	err = null.GetOrSet(t.Context(), "k", &v, func(ctx context.Context) (any, error) { return 6, c.GetOrSet(ctx, "k", new(int), oneAny) })
	if err != nil || v != 6 {
		t.Error(v, err)
	}
	cl.noLocks()
}

// A caller that gives up leaves the load to the others; the last one ends it.
func TestWaitersLeave(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	t.Run("the first", func(t *testing.T) {
		l := newLoader(7)
		ctx, cancel := context.WithCancel(t.Context())
		var v int
		first := async(t, func() error { return c.GetOrSet(ctx, "first", new(int), l.load) })
		l.wait(t)
		before := c.Stats().Coalesced
		second := async(t, func() error { return c.GetOrSet(t.Context(), "first", &v, noLoad(t)) })
		eventually(t, "the second waits", func() bool { return c.Stats().Coalesced == before+1 })
		cancel()
		if err := first(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		l.release()
		if err := second(); err != nil || v != 7 {
			t.Error(v, err)
		}
		want(t, c, "first", 7)
	})
	t.Run("the last", func(t *testing.T) {
		ended := make(chan error, 1)
		l := newLoader(nil)
		ctx, cancel := context.WithCancel(t.Context())
		var waiters []func() error
		for range 3 {
			waiters = append(waiters, async(t, func() error {
				return c.GetOrSet(ctx, "last", new(int), func(ctx context.Context) (any, error) {
					_, err := l.load(ctx)
					ended <- err
					return nil, err
				})
			}))
		}
		l.wait(t)
		cancel()
		for _, w := range waiters {
			if err := w(); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		case <-time.After(5 * time.Second):
			t.Error("nobody waits, and the loader still runs")
		}
		cl.noLocks()
		// And does not stand in the way of the next.
		var v int
		if err := c.GetOrSet(t.Context(), "last", &v, func(context.Context) (any, error) { return 8, nil }); err != nil || v != 8 {
			t.Error(v, err)
		}
	})
	t.Run("values of the context", func(t *testing.T) {
		type key struct{}
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "x"), time.Hour)
		defer cancel()
		err := c.GetOrSet(ctx, "values", new(int), func(ctx context.Context) (any, error) {
			if ctx.Value(key{}) != "x" {
				t.Error("the loader does not have the caller's values")
			}
			if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > pgcache.DefaultLoadTimeout {
				t.Error("the loader's deadline is not LoadTimeout's:", deadline, ok)
			}
			return 1, nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("before it began", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.GetOrSet(ctx, "never", new(int), noLoad(t)); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestLoadTimeout(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.on(testdb.DB(t), func(o *pgcache.Options) { o.LoadTimeout = 150 * time.Millisecond })
	l := newLoader(1)
	deaf := make(chan struct{})
	defer close(deaf)
	for name, load := range map[string]func(context.Context) (any, error){
		"obeys its context":   l.load,
		"ignores its context": func(context.Context) (any, error) { <-deaf; return 1, nil },
		"wraps its context":   func(ctx context.Context) (any, error) { <-ctx.Done(); return nil, fmt.Errorf("query: %w", ctx.Err()) },
	} {
		began := time.Now()
		err := c.GetOrSet(t.Context(), name, new(int), load)
		wantErr(t, err, pgcache.ErrLoadTimeout)
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
		if err != nil && !strings.Contains(err.Error(), "150ms") {
			t.Errorf("%s: the error does not name the timeout: %v", name, err)
		}
		cl.noLocks()
		var v int
		if err := c.GetOrSet(t.Context(), name, &v, func(context.Context) (any, error) { return 7, nil }); err != nil || v != 7 {
			t.Errorf("%s: the next call: %v, %v", name, v, err)
		}
	}
}

// The other node waits for the one that holds the lock, gets its value, and nothing more is loaded or stored.
func TestTwoNodesOneLoad(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)
	for i := range 10 {
		key := strconv.Itoa(i)
		l := newLoader("a's " + key)
		var va, vb string
		first := async(t, func() error { return a.GetOrSet(t.Context(), key, &va, l.load) })
		l.wait(t)
		before := b.Stats().Misses
		second := async(t, func() error { return b.GetOrSet(t.Context(), key, &vb, noLoad(t)) })
		if i%2 == 1 {
			eventually(t, "b misses it", func() bool { return b.Stats().Misses == before+1 })
		}
		l.release()
		if err := errors.Join(first(), second()); err != nil || va != "a's "+key || vb != va {
			t.Fatal(va, vb, err)
		}
		cl.noLocks()
	}
}

// The lock is on the numbers that package store makes of schema, prefix and key: a foreign holder of it is waited for no
// longer than LockTimeout.
func TestForeignHolder(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.on(testdb.DB(t), func(o *pgcache.Options) { o.LockTimeout = 150 * time.Millisecond })

	l := newLoader(1)
	loaded := async(t, func() error { return c.GetOrSet(t.Context(), "user:1", new(int), l.load) })
	l.wait(t)
	id := cl.keyLocks("coalesce(max(objid::bigint), 0)")
	if n := cl.locks(); n != 1 || id != int(uint32(store.Hash("user:1"))) {
		t.Errorf("%d locks, of %d; want one of %d", n, id, uint32(store.Hash("user:1")))
	}
	l.release()
	if err := loaded(); err != nil {
		t.Fatal(err)
	}
	cl.noLocks()
	del(t, c, "user:1")

	holder, err := cl.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	if _, err := holder.ExecContext(t.Context(), "SELECT pg_advisory_lock($1::int, $2::int)", cl.names().Class(), store.Hash("user:1")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var v int
	if err := c.GetOrSet(t.Context(), "user:1", &v, func(context.Context) (any, error) { return 2, nil }); err != nil || v != 2 {
		t.Error(v, err)
	}
	if took := time.Since(began); took < 150*time.Millisecond || took > 3*time.Second {
		t.Errorf("took %v", took)
	}
	want(t, c, "user:1", 2) // and stored: the fence alone decides
	if n := cl.locks(); n != 1 {
		t.Errorf("%d locks: the holder's own is gone, or another one is left", n)
	}
}

// Where the pool has no connection left for the lock session, LockTimeout bounds the wait for it too: those who hold the
// connections may be waiting for this very load.
func TestNoConnectionForTheLock(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	db, wire := openWire(t, "pgx", testdb.DSN(t))
	db.SetMaxOpenConns(4)
	cl.on(testdb.DB(t), nil) // makes the tables, with more time
	c := cl.new(db, func(o *pgcache.Options) { o.LockTimeout, o.Timeout = 100*time.Millisecond, 400*time.Millisecond })
	reply := wire.after(named("GetEntry"))
	var v int
	load := async(t, func() error {
		return c.GetOrSet(t.Context(), "k", &v, func(context.Context) (any, error) { return 7, nil })
	})
	reply.wait(t)
	for range 3 {
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	// The fourth waits for the connection of the read.
	fourth := async(t, func() error {
		conn, err := db.Conn(t.Context())
		if err == nil {
			t.Cleanup(func() { conn.Close() })
		}
		return err
	})
	eventually(t, "the fourth waits", func() bool { return db.Stats().WaitCount > 0 })
	reply.release()
	if err := fourth(); err != nil {
		t.Fatal(err)
	}
	if err := load(); err != nil || v != 7 {
		t.Error(v, err)
	}
}

// P6: a load that began before a Set, Delete or Clear finished never stores over it, whoever had the lock. And who asks
// after it, never gets what was loaded before.
func TestP6_StaleSet(t *testing.T) {
	t.Parallel()
	type nodes struct{ loading, other *pgcache.Cache }
	for what, write := range map[string]func(ctx context.Context, c *pgcache.Cache, key string) error{
		"Set": func(ctx context.Context, c *pgcache.Cache, key string) error { return c.Set(ctx, key, "new") },
		"SetMany": func(ctx context.Context, c *pgcache.Cache, key string) error {
			return pgcache.For[string](c).SetMany(ctx, map[string]string{key: "new", "x": "new"})
		},
		"Delete":      func(ctx context.Context, c *pgcache.Cache, key string) error { return c.Delete(ctx, key) },
		"Delete many": func(ctx context.Context, c *pgcache.Cache, key string) error { return c.Delete(ctx, "x", key) },
		"Clear":       func(ctx context.Context, c *pgcache.Cache, _ string) error { return c.Clear(ctx) },
	} {
		for guard, g := range map[string]pgcache.Guard{"AdvisoryLock": pgcache.AdvisoryLock(), "NoGuard": pgcache.NoGuard()} {
			t.Run(what+"/"+guard, func(t *testing.T) {
				t.Parallel()
				cl := newCluster(t)
				cl.opts.Guard = g
				n := nodes{cl.node(nil), cl.node(nil)}
				rounds := 60
				if what == "Clear" {
					rounds = 15
				}
				for round := range rounds {
					key := fmt.Sprint("k", round)
					// Rows of all kinds may be there before: none, an expired one, a tombstone, one that does not decode.
					switch round % 4 {
					case 1:
						set(t, n.other, key, "older")
						cl.exec("UPDATE "+cl.table()+" SET expires_at = clock_timestamp() - interval '1 minute' WHERE key = $1", key)
					case 2:
						del(t, n.other, key)
					case 3:
						set(t, n.other, key, 5) // not a string
					}
					writer := n.other
					if round%2 == 1 {
						writer = n.loading
					}
					l := newLoader("old")
					var first, late string
					asked := async(t, func() error { return n.loading.GetOrSet(t.Context(), key, &first, l.load) })
					l.wait(t)
					if err := write(t.Context(), writer, key); err != nil {
						t.Fatal(err)
					}
					// It joins the load that is under way, if it may.
					joined := async(t, func() error {
						return n.loading.GetOrSet(t.Context(), key, &late, func(context.Context) (any, error) { return "newer", nil })
					})
					if round%3 == 0 {
						runtime.Gosched()
					} else {
						time.Sleep(time.Millisecond)
					}
					l.release()
					if err := errors.Join(asked(), joined()); err != nil {
						t.Fatal(err)
					}
					if late == "old" {
						t.Fatalf("round %d: who asked after the %s got what was loaded before", round, what)
					}
					for _, c := range []*pgcache.Cache{n.loading, n.other} {
						if v, found := get[string](t, c, key); v == "old" {
							t.Fatalf("round %d: stale after %s: %q, %v; the first caller got %q, the late one %q", round, what, v, found, first, late)
						}
					}
					var stored string
					if err := cl.db.QueryRowContext(t.Context(), "SELECT coalesce(max(convert_from(value, 'UTF8')), '') FROM "+cl.table()+" WHERE key = $1", key).Scan(&stored); err != nil || stored == `"old"` {
						t.Fatalf("round %d: stored: %s, %v", round, stored, err)
					}
				}
				cl.noLocks()
			})
		}
	}
}

// Who asks after a write does not wait for the loader from before it: not where the write was this node's, nor where
// another's has been heard of.
func TestLoadAfterAWrite(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)
	caughtUp := cl.follow(b, a, nil)
	for i, writer := range []*pgcache.Cache{a, b} {
		key := strconv.Itoa(i)
		l := newLoader("old")
		var old, v string
		first := async(t, func() error { return a.GetOrSet(t.Context(), key, &old, l.load) })
		l.wait(t)
		del(t, writer, key)
		caughtUp()
		if err := async(t, func() error {
			return a.GetOrSet(t.Context(), key, &v, func(context.Context) (any, error) { return "new", nil })
		})(); err != nil || v != "new" {
			t.Error(v, err)
		}
		l.release()
		if err := first(); err != nil {
			t.Error(err)
		}
		want(t, a, key, "new")
		want(t, b, key, "new")
	}
	cl.noLocks()
}

// P6 where the write came and its row has gone again: expired, and removed by Cleanup.
func TestP6_WriteThatIsGone(t *testing.T) {
	t.Parallel()
	gone := func(cl *cluster) bool { return cl.count("SELECT count(*) FROM "+cl.table()+" WHERE key = 'k'") == 0 }
	expires := func(t *testing.T, cl *cluster) {
		eventually(t, "it expires", func() bool {
			return cl.count("SELECT count(*) FROM "+cl.table()+" WHERE key = 'k' AND expires_at < clock_timestamp()") == 1
		})
	}
	for name, clean := range map[string]func(t *testing.T, cl *cluster, b *pgcache.Cache, w *wire){
		"before Cleanup": func(t *testing.T, cl *cluster, b *pgcache.Cache, _ *wire) {
			set(t, b, "k", "new", pgcache.TTL(time.Millisecond))
			expires(t, cl)
			if _, err := b.Cleanup(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
		"during Cleanup": func(t *testing.T, cl *cluster, b *pgcache.Cache, w *wire) {
			set(t, b, "k", "new", pgcache.TTL(300*time.Millisecond))
			held := w.before(named("DeleteExpired"))
			cleaned := async(t, func() error { _, err := b.Cleanup(t.Context()); return err })
			held.wait(t)
			expires(t, cl)
			held.release()
			if err := cleaned(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for _, keys := range [][]string{{"k"}, {"a", "k"}} {
			t.Run(fmt.Sprint(name, keys), func(t *testing.T) {
				t.Parallel()
				cl := newCluster(t)
				a, loading := cl.wired(nil)
				b, w := cl.wired(func(o *pgcache.Options) { o.CleanupInterval = -1 })
				l := newLoader("old")
				loaded := async(t, func() error {
					_, err := pgcache.For[string](a).GetOrSetMany(t.Context(), keys, func(ctx context.Context, keys []string) (map[string]string, error) {
						_, err := l.load(ctx)
						m := map[string]string{}
						for _, k := range keys {
							m[k] = "old"
						}
						return m, err
					})
					return err
				})
				l.wait(t)
				if len(keys) > 1 {
					// The store has its snapshot, and waits for another key's row while k's comes and goes.
					tx, err := cl.db.BeginTx(t.Context(), nil)
					if err != nil {
						t.Fatal(err)
					}
					defer tx.Rollback() //nolint:errcheck // it ends below
					if _, err := tx.ExecContext(t.Context(), "INSERT INTO "+cl.table()+" (key, version, codec) VALUES ('a', 1, 'json')"); err != nil {
						t.Fatal(err)
					}
					sent := loading.count(named("StoreLoaded"))
					l.release()
					eventually(t, "the store waits", func() bool {
						return loading.count(named("StoreLoaded")) > sent && cl.count("SELECT count(*) FROM pg_stat_activity WHERE pg_blocking_pids(pid) <> '{}' AND query LIKE '%StoreLoaded%' AND query LIKE '%"+cl.opts.Schema+"%'") == 1
					})
					clean(t, cl, b, w)
					if err := tx.Rollback(); err != nil {
						t.Fatal(err)
					}
				} else {
					clean(t, cl, b, w)
					l.release()
				}
				if err := loaded(); err != nil {
					t.Fatal(err)
				}
				if !gone(cl) && cl.count("SELECT count(*) FROM "+cl.table()+" WHERE key = 'k' AND expires_at > clock_timestamp()") > 0 {
					t.Error("what was loaded before the Set is stored")
				}
				wantNone(t, a, "k")
				wantNone(t, b, "k")
			})
		}
	}
}

// P6 where sessions read old snapshots: Clear waits for its lock in front of a store that has begun before it.
func TestP6_ClearAndIsolation(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		for _, level := range []string{"read committed", "repeatable read", "serializable"} {
			cl := newCluster(t)
			dbA := testdb.Open(t, driver, testdb.WithParam(testdb.DSN(t), "default_transaction_isolation", level))
			a := cl.on(dbA, func(o *pgcache.Options) { o.PrepareStatements = driver == "postgres" })
			for i := range 3 { // so that its statements are prepared: then there is but one wait, with the snapshot taken
				if err := a.GetOrSet(t.Context(), strconv.Itoa(i), new(int), func(context.Context) (any, error) { return i, nil }); err != nil {
					t.Fatal(err)
				}
			}
			dbB, wire := openWire(t, "pgx", testdb.DSN(t))
			b := cl.on(dbB, nil)
			l := newLoader("old")
			loaded := async(t, func() error { return a.GetOrSet(t.Context(), "k", new(string), l.load) })
			l.wait(t)
			held := wire.after(named("FenceLoads"))
			cleared := async(t, func() error { return b.Clear(t.Context()) })
			held.wait(t)
			l.release() // the store waits for Clear
			eventually(t, "the store waits", func() bool {
				return cl.count("SELECT count(*) FROM pg_locks WHERE relation = $1::regclass AND NOT granted", cl.table()) > 0
			})
			held.release()
			if err := errors.Join(cleared(), loaded()); err != nil {
				t.Fatal(level, err)
			}
			if n := cl.count("SELECT count(*) FROM " + cl.table()); n != 0 {
				t.Errorf("%s: what was loaded before the Clear is stored", level)
			}
		}
	})
}

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

				// GetOrSet does without, once for all callers at a time.
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
				if n := l.calls.Load(); n != 1 {
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

// Before the database has answered for the first time, callers do not queue up for a timeout each.
func TestSilentFromTheStart(t *testing.T) {
	t.Parallel()
	const callers, timeout = 20, 150 * time.Millisecond
	cl := newCluster(t)
	cl.on(testdb.DB(t), nil)
	link := testdb.NewProxy(t, testdb.DSN(t))
	link.Freeze()
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
		t.Errorf("%d callers at once took %v, with a Timeout of %v", callers, took, timeout)
	}
}

func TestGetOrSetMany(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c, wire := cl.wired(func(o *pgcache.Options) { o.InvalidationWindow = pgcache.Immediate })
	other := cl.node(nil)
	typed := pgcache.For[int](c, pgcache.Namespace("n"))
	ctx := t.Context()
	keys := func(from, to int) (ks []string) {
		for i := from; i < to; i++ {
			ks = append(ks, strconv.Itoa(i))
		}
		return ks
	}
	values := func(ks []string) map[string]int {
		m := map[string]int{}
		for _, k := range ks {
			m[k], _ = strconv.Atoi(k)
		}
		return m
	}
	var asked []string
	load := func(_ context.Context, missing []string) (map[string]int, error) {
		asked = slices.Clone(missing)
		return values(missing), nil
	}
	// Rows that are there: one statement.
	if err := pgcache.For[int](other, pgcache.Namespace("n")).SetMany(ctx, values(keys(0, 10))); err != nil {
		t.Fatal(err)
	}
	wire.forget()
	m, err := typed.GetOrSetMany(ctx, keys(0, 10), load)
	if err != nil || !cmp.Equal(m, values(keys(0, 10))) || asked != nil {
		t.Fatal(m, err, asked)
	}
	if got, want := wire.statements(), []string{"GetEntries"}; !cmp.Equal(got, want) {
		t.Errorf("sent %q", got)
	}
	// Keys in memory: none.
	wire.forget()
	if m, err = typed.GetOrSetMany(ctx, keys(0, 10), load); err != nil || len(m) != 10 {
		t.Fatal(m, err)
	}
	if got := wire.statements(); len(got) != 0 {
		t.Errorf("sent %q", got)
	}
	// Absent keys: the loader gets these, each once, in one call; one statement stores them.
	set(t, other, "n:13", -13)
	wire.forget()
	m, err = typed.GetOrSetMany(ctx, append(keys(5, 15), keys(10, 15)...), load)
	expected := values(keys(5, 15))
	expected["13"] = -13
	if err != nil || !cmp.Equal(m, expected) {
		t.Error(err, cmp.Diff(expected, m))
	}
	if !cmp.Equal(asked, []string{"10", "11", "12", "14"}) {
		t.Errorf("the loader was asked for %q", asked)
	}
	for query, times := range map[string]int{"GetEntries": 2, "GetEntry": 0, "TryLocks": 1, "GetGeneration": 1, "StoreLoaded": 1, "Unlocks": 1} {
		if n := wire.count(named(query)); n != times { // the lock session's own affairs aside
			t.Errorf("%s was sent %d times, want %d: %q", query, n, times, wire.statements())
		}
	}
	for k, v := range expected {
		if got, found := get[int](t, other, "n:"+k); !found || got != v {
			t.Errorf("%s: %d, %v", k, got, found)
		}
	}
	// Keys that the loader leaves out are absent, and are asked for again; others that it returns are not looked at.
	calls := 0
	for range 2 {
		m, err = typed.GetOrSetMany(ctx, []string{"0", "none", "20"}, func(context.Context, []string) (map[string]int, error) {
			calls++
			return map[string]int{"20": 20, "0": 999, "foreign": 1}, nil
		})
		if err != nil || !cmp.Equal(m, map[string]int{"0": 0, "20": 20}) {
			t.Error(m, err)
		}
	}
	if calls != 2 {
		t.Errorf("%d calls", calls)
	}
	wantNone(t, other, "n:foreign")
	wantNone(t, other, "n:none")
	if v, _ := get[int](t, other, "n:0"); v != 0 {
		t.Errorf("a key that was there was overwritten: %d", v)
	}
	// A loader's error, once; what was there is returned beside it.
	boom := errors.New("boom")
	m, err = typed.GetOrSetMany(ctx, []string{"0", "30", "31"}, func(context.Context, []string) (map[string]int, error) { return map[string]int{"30": 30}, boom })
	if !errors.Is(err, boom) || strings.Count(err.Error(), "boom") != 1 || !cmp.Equal(m, map[string]int{"0": 0}) {
		t.Error(m, err)
	}
	wantNone(t, other, "n:30")
	var panicked *pgcache.PanicError
	if _, err = typed.GetOrSetMany(ctx, []string{"30", "31"}, func(context.Context, []string) (map[string]int, error) { panic("boom") }); !errors.As(err, &panicked) {
		t.Error(err)
	}
	if _, err = typed.GetOrSetMany(ctx, []string{"30", "31"}, func(context.Context, []string) (map[string]int, error) { runtime.Goexit(); return nil, nil }); !errors.Is(err, pgcache.ErrLoaderExited) {
		t.Error(err)
	}
	// One value that can't be stored fails alone.
	anys := pgcache.For[any](c, pgcache.Namespace("any"))
	vs, err := anys.GetOrSetMany(ctx, []string{"good", "bad", "fine"}, func(context.Context, []string) (map[string]any, error) {
		return map[string]any{"good": 1.0, "bad": make(chan int), "fine": "x"}, nil
	})
	cause(t, err, "get or set many", "any:bad")
	if !cmp.Equal(vs, map[string]any{"good": 1.0, "fine": "x"}) {
		t.Error(vs)
	}
	want2, _ := get[any](t, other, "any:good")
	if want2 != 1.0 {
		t.Error(want2)
	}
	cl.noLocks()
}

// Calls for overlapping keys on several nodes: each key is loaded once in the fleet, and everybody gets everything.
func TestOverlappingLoads(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		const nodes, callers, keys, width = 3, 4, 40, 15
		cl := newCluster(t)
		var mu sync.Mutex
		loads := map[string]int{}
		var wg sync.WaitGroup
		var calls atomic.Int64
		for n := range nodes {
			db := testdb.Open(t, driver, testdb.DSN(t))
			c := cl.on(db, func(o *pgcache.Options) { o.Listener = listenerOf(driver, db, testdb.DSN(t)) })
			typed := pgcache.For[string](c)
			for i := range callers {
				wg.Go(func() {
					for round := range 4 {
						var ks []string
						for k := range width {
							ks = append(ks, fmt.Sprintf("%d:%d", round, (n*7+i*11+k)%keys))
						}
						load := func(_ context.Context, missing []string) (map[string]string, error) {
							calls.Add(1)
							m := map[string]string{}
							mu.Lock()
							defer mu.Unlock()
							for _, k := range missing {
								loads[k]++
								m[k] = "v" + k
							}
							return m, nil
						}
						m, err := typed.GetOrSetMany(t.Context(), ks, load)
						if err != nil || len(m) != width {
							t.Errorf("%d values, %v", len(m), err)
						}
						for k, v := range m {
							if v != "v"+k {
								t.Errorf("%s: %s", k, v)
							}
						}
						// One at a time beside them.
						one, err := typed.GetOrSet(t.Context(), ks[0], func(ctx context.Context) (string, error) {
							m, err := load(ctx, ks[:1])
							return m[ks[0]], err
						})
						if err != nil || one != "v"+ks[0] {
							t.Error(one, err)
						}
					}
				})
			}
		}
		wg.Wait()
		for _, k := range slices.Sorted(maps.Keys(loads)) {
			if loads[k] != 1 {
				t.Errorf("%s: loaded %d times", k, loads[k])
			}
		}
		cl.noLocks()
	})
}

// What a loader returns that the caller can't take is an error, for that caller.
func TestLoadedTypes(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	l := newLoader("a string")
	first := async(t, func() error { return c.GetOrSet(t.Context(), "k", new(string), l.load) })
	l.wait(t)
	second := async(t, func() error { return c.GetOrSet(t.Context(), "k", new(int), noLoad(t)) })
	eventually(t, "the second waits", func() bool { return c.Stats().Coalesced == 1 })
	l.release()
	if err := first(); err != nil {
		t.Error(err)
	}
	if e := cause(t, second(), "get or set", "k"); !strings.Contains(e.Error(), "decode") {
		t.Error(e)
	}
	// Later it finds a row that does not decode: it loads anew and overwrites.
	var v int
	if err := c.GetOrSet(t.Context(), "k", &v, func(context.Context) (any, error) { return 7, nil }); err != nil || v != 7 {
		t.Error(v, err)
	}
	want(t, c, "k", 7)
	if n := c.Stats().DecodeErrors; n == 0 {
		t.Error("not counted")
	}
}

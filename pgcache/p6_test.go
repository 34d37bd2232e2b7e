package pgcache_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

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
		for guard, g := range map[string]pgcache.Guard{"AdvisoryLock": pgcache.AdvisoryLock(), "Lease": pgcache.Lease(), "NoGuard": pgcache.NoGuard()} {
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

// Who asks after a write does not get what the loader from before it brings, where the write was this node's and where it
// was another's; nor is another loader run beside it.
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
		second := async(t, func() error {
			return a.GetOrSet(t.Context(), key, &v, func(context.Context) (any, error) {
				select {
				case <-l.resumed:
				default:
					t.Error("two loaders at once")
				}
				return "new", nil
			})
		})
		time.Sleep(10 * time.Millisecond)
		l.release()
		if err := errors.Join(first(), second()); err != nil || v != "new" {
			t.Error(v, err)
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
			held := w.before(named("Expire"))
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
					eventually(t, "the store is sent, and waits for a tenth of a second", func() bool { return loading.count(named("StoreLoaded")) > sent })
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

// P6 where sessions read old snapshots, and a load stores while a Clear is under way.
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
			held := wire.after(named("TruncateEntries"))
			cleared := async(t, func() error { return b.Clear(t.Context()) })
			held.wait(t)
			l.release()
			err := loaded()
			held.release()
			if err := errors.Join(cleared(), err); err != nil {
				t.Fatal(level, err)
			}
			if n := cl.count("SELECT count(*) FROM " + cl.table()); n != 0 {
				t.Errorf("%s: what was loaded before the Clear is stored", level)
			}
		}
	})
}

// P6 when the session that holds the lock is killed while the loader runs: another node loads and stores, and the first one's value stays out.
func TestP6_LockLost(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)
	got, err := pgcache.For[int](a).GetOrSet(t.Context(), "k", func(context.Context) (int, error) {
		if n := cl.keyLocks("count(pg_terminate_backend(pid))"); n != 1 {
			t.Errorf("%d sessions held the lock", n)
		}
		cl.noLocks()
		if v, err := loaded(b, "k", 2); v != 2 || err != nil {
			t.Error(v, err)
		}
		return 1, nil
	})
	if err != nil || got != 2 {
		t.Errorf("%v, %v", got, err)
	}
	want(t, a, "k", 2)
	want(t, b, "k", 2)
	if a, b := a.Stats(), b.Stats(); a.Loads != 1 || b.Loads != 1 || a.Fenced != 1 || b.Fenced != 0 {
		t.Errorf("%+v\n%+v", a, b)
	}
	if v, err := loaded(a, "l", 3); v != 3 || err != nil { // and the lock works again
		t.Error(v, err)
	}
	cl.noLocks()
}

// P6 where the two meet in the table: the store began before the other write committed, and does not see it. What counts
// is the row as it is when its turn has come.
func TestP6_FenceJudgesTheNewestRow(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]int{"no row before": 0, "a row before": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			own := cl.node(nil)
			meet := func(key string) {
				if before > 0 {
					set(t, own, key, before)
					cl.exec("UPDATE " + cl.table() + " SET expires_at = clock_timestamp() - interval '1 minute'")
					eventually(t, "it has expired", func() bool { _, found := get[int](t, own, key); return !found })
				}
				l := newLoader(1)
				loads := async(t, func() error { return own.GetOrSet(t.Context(), key, new(int), l.load) })
				l.wait(t)
				tx, err := cl.db.BeginTx(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer tx.Rollback()
				if _, err := tx.ExecContext(t.Context(), "INSERT INTO "+cl.table()+` (key, value, version, codec) VALUES ($1, '2', 9, 'json')
					ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, version = EXCLUDED.version, expires_at = NULL`, key); err != nil {
					t.Fatal(err)
				}
				// The text of a statement is cut off in pg_stat_activity before it names the table: whom it waits for says whose it is.
				var pid int
				if err := tx.QueryRowContext(t.Context(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
					t.Fatal(err)
				}
				l.release()
				for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); {
					if cl.count("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%StoreLoaded%' AND $1::int = ANY (pg_blocking_pids(pid))", pid) == 1 {
						break
					}
				}
				if err := tx.Commit(); err != nil {
					t.Fatal(err)
				}
				if err := loads(); err != nil {
					t.Fatal(err)
				}
				want(t, own, key, 2)
			}
			// The store waits for a tenth of a second, and gives up then: the other must have ended by that time.
			end := time.Now().Add(time.Minute)
			for try := 0; own.Stats().Fenced == 0; try++ {
				if time.Now().After(end) {
					t.Fatal("no value was fenced")
				}
				meet(fmt.Sprint("k", try))
			}
		})
	}
}

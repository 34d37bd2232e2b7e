package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/internal/lock"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

func newLeased(t *testing.T) *cluster {
	t.Helper()
	cl := newCluster(t)
	cl.opts.Guard, cl.opts.LockTimeout = pgcache.Lease(), time.Minute // after it others load too
	return cl
}

// One cold key, 200 callers on eight nodes: one loader, and no node sends more than it must.
func TestLease_ColdKey(t *testing.T) {
	t.Parallel()
	for name, listener := range map[string]bool{"listener": true, "none": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newLeased(t)
			var nodes []*pgcache.Cache
			for range 8 {
				if listener {
					nodes = append(nodes, cl.node(nil))
				} else {
					nodes = append(nodes, cl.on(testdb.DB(t), nil))
				}
			}
			for round := range 5 {
				var loads atomic.Int32
				key := fmt.Sprint("cold ", round)
				var wg sync.WaitGroup
				for i := range 200 {
					wg.Go(func() {
						var v int
						err := nodes[i%8].GetOrSet(t.Context(), key, &v, func(context.Context) (any, error) {
							loads.Add(1)
							time.Sleep(time.Duration(round) * 40 * time.Millisecond)
							return round, nil
						})
						if err != nil || v != round {
							t.Error(v, err)
						}
					})
				}
				wg.Wait()
				if n := loads.Load(); n != 1 {
					t.Errorf("round %d: %d loads", round, n)
				}
			}
			cl.noLocks()
			for _, c := range nodes {
				if s := c.Stats(); s.GuardErrors != 0 || s.Unguarded != 0 || s.Fenced != 0 {
					t.Errorf("%+v", s)
				}
			}
		})
	}
}

// slowUnlock is a Guard on leases, where a load that has ended is slow to give back what it has left of them.
type slowUnlock struct {
	*lock.Leases
	slow atomic.Pointer[chan struct{}]
	done chan struct{}
}

func (g *slowUnlock) Open(db *sql.DB, space string) pgcache.Locks {
	g.Leases, g.done = lock.OpenLeases(db, space), make(chan struct{}, 1)
	return g
}

func (g *slowUnlock) wait() (done func()) {
	slow := g.slow.Swap(nil)
	if slow == nil {
		return func() {}
	}
	<-*slow
	return func() { g.done <- struct{}{} }
}

func (g *slowUnlock) Unlock(keys []string) {
	defer g.wait()()
	g.Leases.Unlock(keys)
}

func (g *slowUnlock) GiveBack(leases []store.Lease) {
	defer g.wait()()
	g.Leases.GiveBack(leases)
}

// What a load gives back when it has ended is its own lease, not that of the next load of the key, which may have begun.
func TestLease_OfTheNextLoad(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	g, slow := &slowUnlock{}, make(chan struct{})
	cl.opts.Guard = g
	c := cl.on(testdb.DB(t), nil)
	g.slow.Store(&slow)
	var v int
	if err := c.GetOrSet(t.Context(), "k", &v, func(context.Context) (any, error) { return 1, nil }); err != nil || v != 1 {
		t.Fatal(v, err)
	}
	del(t, c, "k")
	l := newLoader(2)
	next := async(t, func() error { return c.GetOrSet(t.Context(), "k", &v, l.load) })
	l.wait(t)
	lease := g.Lease("k")
	close(slow)
	<-g.done
	if g.Lease("k") != lease || lease.ID == 0 {
		t.Errorf("it had the lease %v, and has %v", lease, g.Lease("k"))
	}
	l.release()
	if err := next(); err != nil || v != 2 {
		t.Error(v, err)
	}
	cl.noLocks()
}

// A loader that takes longer than a lease keeps it: nobody else loads. One that fails gives it back at once.
func TestLease_Renewed(t *testing.T) {
	t.Parallel()
	cl := newLeased(t)
	patient := func(o *pgcache.Options) { o.LockTimeout = time.Minute }
	a, b := cl.on(testdb.DB(t), patient), cl.on(testdb.DB(t), patient)
	l := newLoader(1)
	var va, vb int
	first := async(t, func() error { return a.GetOrSet(t.Context(), "k", &va, l.load) })
	l.wait(t)
	second := async(t, func() error { return b.GetOrSet(t.Context(), "k", &vb, noLoad(t)) })
	began := time.Now()
	time.Sleep(store.LeaseTerm + 2*time.Second) // nothing signals that nothing happens
	eventually(t, fmt.Sprint("it is renewed after ", time.Since(began)), func() bool {
		return cl.count("SELECT count(*) FROM "+cl.object("cache_leases")+" WHERE until > clock_timestamp() + interval '3 seconds'") == 1
	})
	l.release()
	if err := errors.Join(first(), second()); err != nil || va != 1 || vb != 1 {
		t.Error(va, vb, err)
	}
	cl.noLocks()
	boom := errors.New("boom")
	slow := 0 // on a machine that stalls one may be
	for range 10 {
		if err := a.GetOrSet(t.Context(), "fails", new(int), func(context.Context) (any, error) { return nil, boom }); !errors.Is(err, boom) {
			t.Fatal(err)
		}
		began := time.Now()
		if err := b.GetOrSet(t.Context(), "fails", new(int), func(context.Context) (any, error) { return nil, boom }); !errors.Is(err, boom) {
			t.Fatal(err)
		}
		if time.Since(began) > 3*time.Second {
			slow++
		}
	}
	if slow > 2 {
		t.Errorf("%d of 10 waited for a loader that had failed", slow)
	}
	cl.noLocks()
}

// A lease that was lost, whatever the reason: another node loads, and its value is the one that stays. The late one ends no lease
// but its own, also where the other is loading still.
func TestLease_Lost(t *testing.T) {
	t.Parallel()
	for name, until := range map[string]string{
		"a node was frozen":      "clock_timestamp() - interval '1 ms'",
		"the clock was set back": "clock_timestamp() + interval '1 hour'",
		"a crash":                "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newLeased(t)
			a, b := cl.node(nil), cl.node(nil)
			late, l := newLoader(1), newLoader(2)
			var va, vb, vc int
			frozen := async(t, func() error { return a.GetOrSet(t.Context(), "k", &va, late.load) })
			late.wait(t)
			owner := cl.count("SELECT owner FROM " + cl.object("cache_leases"))
			if name == "a crash" {
				cl.exec("TRUNCATE " + cl.object("cache_leases") + ", " + cl.object("cache_incarnation"))
			}
			other := async(t, func() error { return b.GetOrSet(t.Context(), "k", &vb, l.load) })
			eventually(t, "the other loads", func() bool {
				if until != "" { // again and again: its node renews it meanwhile
					cl.exec("UPDATE "+cl.object("cache_leases")+" SET until = "+until+" WHERE owner = $1", owner)
				}
				return l.calls.Load() > 0
			})
			late.release()
			if err := frozen(); err != nil {
				t.Fatal(err)
			}
			if name != "a crash" { // after which what was loaded before is not stored, and the next caller loads
				want(t, b, "k", 1)
			}
			if n := cl.leases(); n != 1 {
				t.Errorf("%d leases, want that of the other", n)
			}
			l.release()
			if err := other(); err != nil {
				t.Fatal(err)
			}
			cl.noLocks()
			// Both loaded what was true; which is stored is the fence's: the first to store.
			if err := a.GetOrSet(t.Context(), "k", &vc, noLoad(t)); err != nil {
				t.Fatal(err)
			}
			if wants := map[bool]int{true: 2, false: 1}[name == "a crash"]; vc != wants || vb != wants {
				t.Errorf("the others have %d and %d, want %d", vb, vc, wants)
			}
			if s := a.Stats().Fenced + b.Stats().Fenced; s != 1 {
				t.Errorf("%d were fenced", s)
			}
		})
	}
}

// Somebody holds the table: loads go on without a lease, and what they bring is stored.
func TestLease_LockedTable(t *testing.T) {
	t.Parallel()
	cl := newLeased(t)
	c := cl.on(testdb.DB(t), nil)
	load := func(key string) (took time.Duration) {
		t.Helper()
		began := time.Now()
		var v int
		if err := c.GetOrSet(t.Context(), key, &v, func(context.Context) (any, error) { return 7, nil }); err != nil || v != 7 {
			t.Error(v, err)
		}
		return time.Since(began)
	}
	load("before")
	l := newLoader(8)
	during := async(t, func() error { return c.GetOrSet(t.Context(), "during", new(int), l.load) })
	l.wait(t)
	tx, err := cl.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // it ends below
	if _, err := tx.ExecContext(t.Context(), "CREATE INDEX ON "+cl.object("cache_leases")+" (until)"); err != nil {
		t.Fatal(err)
	}
	locked := ""
	inTime(t, func() error {
		locked += "locked"
		before := c.Stats().GuardErrors
		took := load(locked)
		if n := c.Stats().GuardErrors; n != before+1 {
			t.Errorf("%d guard errors, %d before", n, before)
		}
		if took > 3*time.Second {
			return fmt.Errorf("took %v", took)
		}
		return nil
	})
	l.release()
	if err := during(); err != nil {
		t.Error(err)
	}
	want(t, c, locked, 7)
	want(t, c, "during", 8)
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	cl.noLocks() // what could not be released then is released now
}

// A pool of one connection is enough without a Listener: the guard takes one for a statement, no longer.
func TestLease_SmallPool(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		for limit := 1; limit <= 2; limit++ {
			cl := newLeased(t)
			db := testdb.Open(t, driver, testdb.DSN(t))
			db.SetMaxOpenConns(limit)
			c := cl.on(db, nil)
			var wg sync.WaitGroup
			for i := range 60 {
				wg.Go(func() {
					var v int
					err := c.GetOrSet(t.Context(), fmt.Sprint(i%20), &v, func(ctx context.Context) (any, error) {
						return i % 20, db.QueryRowContext(ctx, "SELECT $1::int", i%20).Scan(&v)
					})
					if err != nil || v != i%20 {
						t.Error(i, v, err)
					}
				})
			}
			wg.Wait()
			if s := c.Stats(); s.GuardErrors != 0 || s.Loads != 20 {
				t.Errorf("%d connections: %+v", limit, s)
			}
			cl.noLocks()
			eventually(t, "the pool has its connections back", func() bool { return db.Stats().InUse == 0 })
		}
	})
}

// A process holds at most 128 leases, and many keys are one.
func TestLease_Bound(t *testing.T) {
	t.Parallel()
	cl := newLeased(t)
	db := testdb.DB(t)
	c := cl.on(db, nil)
	started, release := make(chan struct{}, 200), make(chan struct{})
	var wg sync.WaitGroup
	for i := range 140 {
		wg.Go(func() {
			err := c.GetOrSet(t.Context(), fmt.Sprint(i), new(int), func(context.Context) (any, error) {
				started <- struct{}{}
				<-release
				return i, nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	for range 140 {
		<-started
	}
	if n, s := cl.leases(), c.Stats(); n != 128 || s.Unguarded != 12 || s.GuardErrors != 0 {
		t.Errorf("%d leases, %+v", n, s)
	}
	close(release)
	wg.Wait()
	cl.noLocks()
	var keys []string
	for i := range 15_000 {
		keys = append(keys, fmt.Sprint("many ", i))
	}
	m, err := pgcache.For[int](c).GetOrSetMany(t.Context(), keys, func(_ context.Context, keys []string) (map[string]int, error) {
		if n := cl.leases(); n != 1 {
			t.Errorf("%d leases", n)
		}
		m := map[string]int{}
		for i, k := range keys {
			m[k] = i
		}
		return m, nil
	})
	if err != nil || len(m) != len(keys) {
		t.Error(len(m), err)
	}
	cl.noLocks()
}

// Calls for overlapping lists of keys, on several nodes: each key is loaded once, and nobody waits for who waits for him.
func TestLease_Overlapping(t *testing.T) {
	t.Parallel()
	cl := newLeased(t)
	var loads [12]atomic.Int32
	var wg sync.WaitGroup
	for n := range 4 {
		c := pgcache.For[int](cl.on(testdb.DB(t), nil))
		for from := range 4 {
			wg.Go(func() {
				var keys []string
				for i := range 8 {
					keys = append(keys, fmt.Sprint((from+n+i)%12))
				}
				m, err := c.GetOrSetMany(t.Context(), keys, func(_ context.Context, keys []string) (map[string]int, error) {
					m := map[string]int{}
					for _, k := range keys {
						var i int
						_, _ = fmt.Sscan(k, &i)
						loads[i].Add(1)
						m[k] = i
					}
					time.Sleep(5 * time.Millisecond)
					return m, nil
				})
				if err != nil || len(m) != 8 {
					t.Error(m, err)
				}
			})
		}
	}
	wg.Wait()
	for i := range loads {
		if n := loads[i].Load(); n != 1 {
			t.Errorf("%d was loaded %d times", i, n)
		}
	}
	cl.noLocks()
}

// A row that is live and does not decode is loaded anew, under a lease: once in the fleet.
func TestLease_Unusable(t *testing.T) {
	t.Parallel()
	cl := newLeased(t)
	a, b := cl.on(testdb.DB(t), nil), cl.on(testdb.DB(t), nil)
	set(t, a, "k", "not a number")
	l := newLoader(5)
	var va, vb int
	first := async(t, func() error { return a.GetOrSet(t.Context(), "k", &va, l.load) })
	l.wait(t)
	if n := cl.leases(); n != 1 {
		t.Errorf("%d leases", n)
	}
	second := async(t, func() error { return b.GetOrSet(t.Context(), "k", &vb, noLoad(t)) })
	eventually(t, "b misses it", func() bool { return b.Stats().DecodeErrors > 0 })
	l.release()
	if err := errors.Join(first(), second()); err != nil || va != 5 || vb != 5 {
		t.Error(va, vb, err)
	}
	cl.noLocks()
}

// The janitor removes what processes that died have left, and nothing that is in force.
func TestLease_Janitor(t *testing.T) {
	t.Parallel()
	cl := newLeased(t)
	c := cl.on(testdb.DB(t), func(o *pgcache.Options) { o.CleanupInterval = -1 })
	cl.exec("INSERT INTO " + cl.object("cache_leases") + ` (id, owner, until) SELECT i, i, clock_timestamp() - interval '2 minutes' FROM generate_series(1, 300) i
		UNION ALL SELECT 1001, 1, clock_timestamp() + interval '8 seconds' UNION ALL SELECT 1002, 2, clock_timestamp() + interval '2 hours'`)
	l := newLoader(1)
	loaded := async(t, func() error { return c.GetOrSet(t.Context(), "k", new(int), l.load) })
	l.wait(t)
	cl.on(testdb.DB(t), func(o *pgcache.Options) { o.CleanupInterval = 10 * time.Millisecond })
	eventually(t, "two are left", func() bool { return cl.leases() == 2 })
	l.release()
	if err := loaded(); err != nil {
		t.Error(err)
	}
	eventually(t, "one is left", func() bool { return cl.leases() == 1 })
}

// Close gives back what loads have that it ends.
func TestLease_Close(t *testing.T) {
	t.Parallel()
	cl := newLeased(t)
	a, b := cl.node(nil), cl.node(nil)
	l := newLoader(1)
	loaded := async(t, func() error { return a.GetOrSet(t.Context(), "k", new(int), l.load) })
	l.wait(t)
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := loaded(); !errors.Is(err, pgcache.ErrClosed) {
		t.Error(err)
	}
	if n := cl.leases(); n != 0 {
		t.Errorf("%d leases after Close", n)
	}
	if v, err := pgcache.For[int](b).GetOrSet(t.Context(), "k", func(context.Context) (int, error) { return 2, nil }); v != 2 || err != nil {
		t.Error(v, err)
	}
	l.release()
}

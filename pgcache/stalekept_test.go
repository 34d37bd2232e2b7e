package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// While the pool can't reach the database, a loader that fails is answered from memory with what this node has written, as long as its
// listener and its pulse are trusted; a Set elsewhere ends that at once.
func TestStaleFromMemory(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	other := cl.node(nil)
	link := testdb.NewProxy(t, testdb.DSN(t))
	db, direct := testdb.Open(t, "pgx", link.DSN()), testdb.DB(t)
	c := cl.on(db, func(o *pgcache.Options) { o.Listener = pgxdriver.Listener(direct) })
	v := pgcache.For[string](c, pgcache.TTL(300*time.Millisecond), pgcache.StaleFor(time.Hour))
	inTime(t, func() error { // the pulses go over the link too: some seconds after it is cut nothing in memory is trusted
		link.Restore()
		cl.ready(c)
		for _, key := range []string{"k", "overwritten"} {
			eventually(t, "it is set", func() bool { return v.Set(t.Context(), key, "old") == nil })
		}
		time.Sleep(350 * time.Millisecond) // they have expired
		link.Cut()
		r, err := fetched(t, v, fails)
		many, errMany := v.GetOrSetMany(t.Context(), []string{"k", "none"}, func(context.Context, []string) (map[string]string, error) { return nil, errSource })
		if errors.Is(err, errSource) || len(many) == 0 {
			return fmt.Errorf("nothing is at hand: %+v, %w, %v", r, err, many)
		}
		wantStale(t, r, err, "old", errSource)
		if r.Source != pgcache.FromMemory {
			t.Errorf("from %v", r.Source)
		}
		if !errors.Is(errMany, errSource) || many["k"] != "old" {
			t.Error(many, errMany)
		}
		return nil
	})
	forgotten := c.Stats().Invalidations
	set(t, other, "overwritten", "new")
	eventually(t, "the Set is seen", func() bool { return c.Stats().Invalidations > forgotten })
	if s, err := v.GetOrSet(t.Context(), "overwritten", fails); err == nil {
		t.Errorf("after a Set elsewhere: %q", s)
	}
	// Trust ends by itself, and with it what is stale in memory.
	eventually(t, "trust ends", func() bool { _, err := fetched(t, v, fails); return errors.Is(err, errSource) })
	link.Restore()
	eventually(t, "the table has it", func() bool {
		r, err := fetched(t, v, fails)
		return err == nil && r.Stale && r.Source == pgcache.FromDatabase
	})
}

// The janitor and Cleanup leave a row as long as it may be handed out.
func TestCleanupKeepsWhatIsStale(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.CleanupInterval = 20 * time.Millisecond })
	v := pgcache.For[string](c, pgcache.StaleFor(time.Hour))
	for _, key := range []string{"kept", "over"} {
		if err := v.Set(t.Context(), key, "old"); err != nil {
			t.Fatal(err)
		}
	}
	set(t, c, "dead", "x")
	cl.exec("UPDATE " + cl.table() + " SET stale_until = clock_timestamp() - interval '30 minutes' WHERE key = 'over'")
	cl.expire("true")
	eventually(t, "the others are removed", func() bool {
		cl.ended()
		return cl.count("SELECT count(*) FROM "+cl.table()+" WHERE key <> 'kept'") == 0
	})
	for range 3 {
		if n, err := c.Cleanup(t.Context()); n != 0 || err != nil {
			t.Error(n, err)
		}
	}
	if s, err := v.GetOrSet(t.Context(), "kept", fails); err != nil || s != "old" {
		t.Error(s, err)
	}
	cl.exec("UPDATE " + cl.table() + " SET stale_until = clock_timestamp() - interval '30 minutes'")
	eventually(t, "it is removed", func() bool { cl.ended(); return cl.count("SELECT count(*) FROM "+cl.table()) == 0 })
}

// Close ends a load in the background, and one that its callers have left; no lock stays and nothing is stored.
func TestCloseDuringBackgroundLoads(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		db := testdb.Open(t, driver, testdb.DSN(t))
		c := cl.on(db, func(o *pgcache.Options) { o.Listener = listenerOf(driver, db, testdb.DSN(t)) })
		v := pgcache.For[string](c, pgcache.TTL(time.Minute), pgcache.RefreshAfter(0.5), pgcache.HardTimeout(20*time.Millisecond))
		if err := v.Set(t.Context(), "due", "old", pgcache.TTL(20*time.Second)); err != nil {
			t.Fatal(err)
		}
		refresh, late := newLoader("refreshed"), newLoader("late")
		load := func(l *loader) func(ctx context.Context) (string, error) {
			return func(ctx context.Context) (string, error) { v, err := l.load(ctx); s, _ := v.(string); return s, err }
		}
		// A machine that is too busy does not even read within HardTimeout.
		eventually(t, "both loaders run", func() bool {
			if s, err := v.GetOrSet(t.Context(), "due", load(refresh)); s != "old" && !errors.Is(err, pgcache.ErrLoadTimeout) {
				t.Fatal(s, err)
			}
			if s, err := v.GetOrSet(t.Context(), "late", load(late)); !errors.Is(err, pgcache.ErrLoadTimeout) {
				t.Fatal(s, err)
			}
			return refresh.calls.Load() > 0 && late.calls.Load() > 0
		})
		began := time.Now()
		if err := c.Close(); err != nil || time.Since(began) > 20*time.Second { // LoadTimeout is 30 s
			t.Error(err, time.Since(began))
		}
		refresh.release()
		late.release()
		cl.noLocks()
		if n := cl.count("SELECT count(*) FROM " + cl.table() + " WHERE value <> convert_to('\"old\"', 'UTF8')"); n != 0 {
			t.Error("something was stored")
		}
	})
}

// The updates of a key in one process go one after the other: none is in vain.
func TestUpdatesWaitForTheirTurn(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	db, w := openWire(t, "pgx", testdb.DSN(t))
	v := pgcache.For[int](cl.on(db, nil))
	set(t, cl.on(testdb.DB(t), nil), "k", 0)
	const callers = 64
	var wg sync.WaitGroup
	begun := time.Now()
	for range callers {
		wg.Go(func() {
			if _, err := v.Update(t.Context(), "k", func(old int, _ bool) (int, error) { return old + 1, nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	// A turn is waited for a second at most: on a machine that takes longer for all of them the last go without.
	if n := w.count(named("ReplaceEntry")); n != callers && time.Since(begun) < time.Second {
		t.Errorf("%d writes for %d updates", n, callers)
	}
	if n, found, err := v.Get(t.Context(), "k"); n != callers || !found || err != nil {
		t.Error(n, found, err)
	}
	// A function that panics, or whose caller has gone, gives its turn back; one that updates the very key waits for itself no longer than
	// a second.
	func() {
		defer func() { _ = recover() }()
		_, _ = v.Update(t.Context(), "k", func(int, bool) (int, error) { panic("x") })
	}()
	gone, cancel := context.WithCancel(t.Context())
	if _, err := v.Update(gone, "k", func(int, bool) (int, error) { cancel(); return 0, nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	began, inner := time.Now(), false
	n, err := v.Update(t.Context(), "k", func(old int, _ bool) (int, error) {
		if !inner {
			inner = true
			return v.Update(t.Context(), "k", func(old int, _ bool) (int, error) { return old + 10, nil })
		}
		return old + 1, nil
	})
	if n != callers+11 || err != nil || time.Since(began) > 10*time.Second {
		t.Error(n, err, time.Since(began))
	}
}

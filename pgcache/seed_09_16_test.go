package pgcache_test

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// When its listener failed to start, a second connect found the pool and said "connected": memory on, nobody listening.
func TestS09_ListenerNeverStarts(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.node(nil)
	link := testdb.NewProxy(t, testdb.DSN(t))
	link.Cut()
	b := cl.new(testdb.DB(t), func(o *pgcache.Options) { o.Listener = pgxdriver.ListenerDSN(link.DSN()) })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := b.Ready(ctx); err == nil || !strings.Contains(err.Error(), "listener") {
		t.Errorf("Ready without a listener: %v", err)
	}
	for v := range 3 {
		set(t, a, "k", v)
		want(t, b, "k", v)
		want(t, b, "k", v)
	}
	if n := b.Stats().LocalHits; n != 0 {
		t.Errorf("%d hits in memory", n)
	}
	link.Restore()
	warm(t, b, "k", 2)
	cl.ready(b)
}

// Its memory survived close and went on answering.
func TestS10_ClosedCacheAnswers(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	set(t, c, "k", 1)
	warm(t, c, "k", 1)
	typed := pgcache.For[int](c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	var v int
	found, err := c.Get(t.Context(), "k", &v)
	if found || v != 0 {
		t.Error("a closed cache answers", v)
	}
	wantErr(t, err, pgcache.ErrClosed)
	v, found, err = typed.Get(t.Context(), "k")
	if found || v != 0 {
		t.Error("a closed cache's view answers", v)
	}
	wantErr(t, err, pgcache.ErrClosed)
}

// It compared a timestamptz with a local time. West of Greenwich live rows were dead at once, and its cleanup deleted
// them; in the east dead rows lived.
func TestS11_TimeZones(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		for _, zone := range []string{"America/New_York", "Asia/Tokyo", "Asia/Kathmandu"} {
			cl := newCluster(t)
			dsn := testdb.WithParam(testdb.DSN(t), "TimeZone", zone)
			db := testdb.Open(t, driver, dsn)
			c := cl.on(db, func(o *pgcache.Options) { o.CleanupInterval = -1; o.Listener = pgxdriver.ListenerDSN(testdb.DSN(t)) })
			reader := cl.on(testdb.DB(t), nil)
			var is string
			if err := db.QueryRowContext(t.Context(), "SHOW TimeZone").Scan(&is); err != nil || is != zone {
				t.Fatal(is, err)
			}
			set(t, c, "long", 1, pgcache.TTL(time.Hour))
			set(t, c, "short", 1, pgcache.TTL(20*time.Millisecond))
			set(t, c, "never", 1, pgcache.TTL(pgcache.NoExpiry))
			eventually(t, "short expires", func() bool {
				return cl.count("SELECT count(*) FROM "+cl.table()+" WHERE key = 'short' AND expires_at < clock_timestamp()") == 1
			})
			for name, node := range map[string]*pgcache.Cache{"the zone's": c, "UTC's": reader} {
				for range 2 {
					for key, should := range map[string]bool{"long": true, "short": false, "never": true} {
						if _, found := get[int](t, node, key); found != should {
							t.Errorf("%s, %s node: %s found: %v", zone, name, key, found)
						}
					}
				}
			}
			cl.expire("key = 'short'")
			if n, err := c.Cleanup(t.Context()); n != 1 || err != nil {
				t.Errorf("%s: Cleanup removed %d, %v", zone, n, err)
			}
			want(t, reader, "long", 1)
			if n := cl.count("SELECT count(*) FROM " + cl.table() + " WHERE abs(date_part('epoch', expires_at - clock_timestamp()) - 3600) < 60"); n != 1 {
				t.Errorf("%s: an hour is not an hour", zone)
			}
		}
	})
}

// It made expires_at from the writer's clock, at the time of the call, and judged it by the reader's.
func TestS12_WhoseClock(t *testing.T) {
	t.Parallel()
	t.Run("the database's, when it writes", func(t *testing.T) {
		t.Parallel()
		cl := newCluster(t)
		c, wire := cl.wired(nil)
		typed := pgcache.For[int](c)
		for query, write := range map[string]func() error{
			"PutEntry": func() error { return c.Set(t.Context(), "PutEntry", 1, pgcache.TTL(time.Minute)) },
			"PutEntries": func() error {
				return typed.SetMany(t.Context(), map[string]int{"PutEntries": 1, "x": 2}, pgcache.TTL(time.Minute))
			},
			"StoreLoaded": func() error {
				return c.GetOrSet(t.Context(), "StoreLoaded", new(int), func(context.Context) (any, error) { return 1, nil }, pgcache.TTL(time.Minute))
			},
		} {
			stop := wire.before(named(query))
			written := async(t, write)
			stop.wait(t)
			time.Sleep(20 * time.Millisecond) // the statement is late by this, and whoever reads a clock before it
			var now time.Time
			if err := cl.db.QueryRowContext(t.Context(), "SELECT clock_timestamp()").Scan(&now); err != nil {
				t.Fatal(err)
			}
			stop.release()
			if err := written(); err != nil {
				t.Fatal(err)
			}
			if n := cl.count("SELECT count(*) FROM "+cl.table()+" WHERE key = $1 AND expires_at >= $2::timestamptz + interval '1 minute'", query, now); n != 1 {
				t.Errorf("%s: the TTL does not begin when the database writes", query)
			}
		}
	})
	t.Run("none, when it reads", func(t *testing.T) {
		t.Parallel()
		cl := newCluster(t)
		a := cl.node(nil)
		b, wire := cl.wired(nil)
		set(t, a, "k", 1, pgcache.TTL(600*time.Millisecond))
		reply := wire.after(named("GetEntry"))
		read := async(t, func() error {
			found, err := b.Get(t.Context(), "k", new(int))
			if !found {
				t.Error("the row was live when it was read")
			}
			return err
		})
		reply.wait(t)
		// What was left of its life counts from when the statement was sent, not from when the reply is looked at.
		eventually(t, "the row expires", func() bool {
			return cl.count("SELECT count(*) FROM "+cl.table()+" WHERE expires_at < clock_timestamp()") == 1
		})
		reply.release()
		if err := read(); err != nil {
			t.Fatal(err)
		}
		wantNone(t, b, "k")
	})
}

// Its cleanup picked expired keys and then deleted rows of these keys: one that had been set again meanwhile too.
func TestS13_CleanupOfARowThatWasSetAgain(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.CleanupInterval = -1 })
	for round := range 20 {
		key := strconv.Itoa(round)
		set(t, c, key, 1)
		cl.expire("key = '" + key + "'")

		tx, err := cl.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		var pid int
		if err := tx.QueryRowContext(t.Context(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(t.Context(), "UPDATE "+cl.table()+" SET version = $1, expires_at = clock_timestamp() + interval '1 hour' WHERE key = $2", round+1, key); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			n, err := c.Cleanup(context.WithoutCancel(t.Context()))
			if n != 0 {
				err = fmt.Errorf("%d rows removed", n)
			}
			done <- err
		}()
		// Either it is done, or it waits for the row.
		eventually(t, "Cleanup meets the row", func() bool {
			return len(done) == 1 || cl.count("SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))", pid) == 1
		})
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		want(t, c, key, 1)
	}
}

// A stored None looked like a miss: every call took a connection and a lock, and loaded again.
func TestS14_NothingIsAValue(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)
	loads := 0
	nothing := func(context.Context) (any, error) { loads++; return nil, nil }
	for _, c := range []*pgcache.Cache{a, a, b, b} {
		v := &user{Name: "before"}
		if err := c.GetOrSet(t.Context(), "k", &v, nothing); err != nil || v != nil {
			t.Fatal(v, err)
		}
	}
	if loads != 1 {
		t.Errorf("%d loads of nothing", loads)
	}
	var none *user
	set(t, a, "ptr", none)
	v, found, err := pgcache.For[*user](b).Get(t.Context(), "ptr")
	if v != nil || !found || err != nil {
		t.Error(v, found, err)
	}
	// A zero is a value too.
	if _, err := pgcache.For[int](a).GetOrSet(t.Context(), "zero", func(context.Context) (int, error) { return 0, nil }); err != nil {
		t.Fatal(err)
	}
	want(t, b, "zero", 0)
}

// A TTL of 0 meant 300 s in get_or_set and "for ever" in set.
func TestS15_OneRuleForTTLs(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.DefaultTTL = 1000 * time.Second })
	typed := pgcache.For[int](c)
	view := pgcache.For[int](c, pgcache.TTL(2000*time.Second))
	load := func(context.Context) (any, error) { return 1, nil }
	loadInt := func(context.Context) (int, error) { return 1, nil }
	loadMany := func(_ context.Context, keys []string) (map[string]int, error) {
		m := map[string]int{}
		for _, k := range keys {
			m[k] = 1
		}
		return m, nil
	}
	for i, o := range []struct {
		opts    []pgcache.Option
		plain   int // seconds; 0: for ever
		ofView  int
		meaning string
	}{
		{nil, 1000, 2000, "nothing said"},
		{[]pgcache.Option{pgcache.TTL(0)}, 1000, 2000, "0"},
		{[]pgcache.Option{pgcache.TTL(3000 * time.Second)}, 3000, 3000, "50 minutes"},
		{[]pgcache.Option{pgcache.TTL(3000 * time.Second), {}}, 3000, 3000, "50 minutes and the zero Option"},
		{[]pgcache.Option{pgcache.TTL(pgcache.NoExpiry)}, 0, 0, "NoExpiry"},
		{[]pgcache.Option{pgcache.TTL(1<<63 - 1)}, int(pgcache.MaxTTL.Seconds()), int(pgcache.MaxTTL.Seconds()), "292 years"},
	} {
		key := func(s string) string { return fmt.Sprint(s, i) }
		calls := map[string]func(k string) error{
			"Set":       func(k string) error { return c.Set(t.Context(), k, 1, o.opts...) },
			"GetOrSet":  func(k string) error { return c.GetOrSet(t.Context(), k, new(int), load, o.opts...) },
			"typed Set": func(k string) error { return typed.Set(t.Context(), k, 1, o.opts...) },
			"typed SetMany": func(k string) error {
				return typed.SetMany(t.Context(), map[string]int{k: 1, k + "'": 1}, o.opts...)
			},
			"typed GetOrSet": func(k string) error { _, err := typed.GetOrSet(t.Context(), k, loadInt, o.opts...); return err },
			"typed GetOrSetMany": func(k string) error {
				_, err := typed.GetOrSetMany(t.Context(), []string{k}, loadMany, o.opts...)
				return err
			},
			"view Set":      func(k string) error { return view.Set(t.Context(), k, 1, o.opts...) },
			"view GetOrSet": func(k string) error { _, err := view.GetOrSet(t.Context(), k, loadInt, o.opts...); return err },
		}
		for name, call := range calls {
			if err := call(key(name)); err != nil {
				t.Fatalf("%s with %s: %v", name, o.meaning, err)
			}
			seconds := o.plain
			if strings.HasPrefix(name, "view") {
				seconds = o.ofView
			}
			if got := cl.count("SELECT coalesce(round(date_part('epoch', expires_at - clock_timestamp()) / 10) * 10, 0)::bigint FROM "+
				cl.table()+" WHERE key = $1", key(name)); got != seconds/10*10 {
				t.Errorf("%s with %s: expires in %d s, want %d", name, o.meaning, got, seconds)
			}
		}
	}
}

// Each waiter held a connection of the pool while it polled. With as many misses as connections the loader, which wanted
// one too, never got it, and after 5 s all failed.
func TestS16_LoadersUseASmallPool(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		const keys, callers = 60, 3
		cl := newCluster(t)
		db := testdb.Open(t, driver, testdb.DSN(t))
		db.SetMaxOpenConns(4)
		c := cl.on(db, func(o *pgcache.Options) { o.Listener = listenerOf(driver, db, testdb.DSN(t)) })
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
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

package pgcache_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// The Python library compared a timestamptz with a local time. West of Greenwich live rows were dead at once, and its cleanup deleted
// them; in the east dead rows lived.
func TestTimeZones(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		for _, zone := range []string{"America/New_York", "Asia/Tokyo", "Asia/Kathmandu"} {
			cl := newCluster(t)
			dsn := testdb.WithParam(testdb.DSN(t), "TimeZone", zone)
			db := testdb.Open(t, driver, dsn)
			c := cl.on(db, func(o *pgcache.Options) { o.CleanupInterval = -1; o.Listener = pgxdriver.ListenerDSN(testdb.DSN(t)) })
			reader := cl.on(testdb.DB(t), func(o *pgcache.Options) { o.CleanupInterval = -1 })
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

// The Python library made expires_at from the writer's clock, at the time of the call, and judged it by the reader's.
func TestWhoseClock(t *testing.T) {
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
		set(t, a, "k", 1, pgcache.TTL(3*time.Second))
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

// A TTL of 0 meant 300 s in get_or_set and "for ever" in set.
func TestOneRuleForTTLs(t *testing.T) {
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

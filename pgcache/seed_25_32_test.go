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
	"github.com/pgcache/go/localcache"
	"github.com/pgcache/go/pgcache"
)

// It notified of every row, new ones and the ones that its cleanup removed too.
func TestS25_NobodyNeedsToKnow(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	typed := pgcache.For[int](c)
	recorder := cl.record()
	set(t, c, "new", 1)
	if err := typed.SetMany(t.Context(), map[string]int{"new1": 1, "new2": 2}); err != nil {
		t.Fatal(err)
	}
	if err := c.GetOrSet(t.Context(), "loaded", new(int), func(context.Context) (any, error) { return 1, nil }); err != nil {
		t.Fatal(err)
	}
	cl.expire("true")
	if n, err := c.Cleanup(t.Context()); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	if received := recorder.received(); len(received) != 0 {
		t.Errorf("%q", received)
	}
}

// Concurrent migrations failed with 23505 (pg_type_typname_nsp_index) or XX000 (tuple concurrently updated).
func TestS26_ConcurrentMigrate(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	cl.opts.Schema += "_new" // Migrate makes the schema too
	defer cl.exec("DROP SCHEMA " + cl.opts.Schema + " CASCADE")
	var pools []*sql.DB
	for i := range 50 {
		db := testdb.Open(t, []string{"pgx", "postgres"}[i%2], testdb.DSN(t))
		db.SetMaxOpenConns(1)
		pools = append(pools, db)
	}
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i, db := range pools {
		c := cl.new(db, func(o *pgcache.Options) {
			o.Guard = pgcache.NoGuard()
			o.Prefix = []string{"x_", "x_", "x_", "x_", "y_"}[i%5] // a second cache in the same schema
		})
		wg.Go(func() {
			<-start
			if err := c.Migrate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	close(start)
	wg.Wait()
	if n := cl.count("SELECT count(*) FROM "+cl.opts.Schema+".x_cache_state") + cl.count("SELECT count(*) FROM "+cl.opts.Schema+".y_cache_state"); n != 2 {
		t.Errorf("%d rows of state", n)
	}
}

// Prefixes went into SQL unquoted: A_ and a_ were one, a leading digit was a syntax error, long names were cut and met.
func TestS27_Prefixes(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	prefixes := []string{"", "A_", "a_", "1st_", "select", "_", strings.Repeat("x", 40) + "1", strings.Repeat("x", 40) + "2"}
	for _, p := range prefixes {
		cl.opts.Prefix = p
		c := cl.node(nil)
		wantNone(t, c, "k")
		set(t, c, "k", p)
	}
	for _, p := range prefixes {
		cl.opts.Prefix = p
		want(t, cl.node(nil), "k", p)
	}
	if n := cl.count("SELECT count(*) FROM pg_tables WHERE schemaname = $1", cl.opts.Schema); n < 2*len(prefixes) {
		t.Errorf("%d tables", n)
	}
}

// Bytes that did not decode made get raise until they expired.
func TestS28_CorruptBytes(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c, other := cl.node(nil), cl.node(nil)
	caughtUp := cl.follow(other, c, nil)
	for i, corrupt := range []string{`''`, `'\x00'`, `'{"ID":'`, `'"a string"'`, `'{"ID":1} '::bytea || '\xff'`} {
		key := strconv.Itoa(i)
		set(t, c, key, user{ID: 1})
		cl.exec("UPDATE " + cl.table() + " SET value = " + corrupt + "::bytea WHERE key = '" + key + "'")
		caughtUp()
		before := c.Stats().DecodeErrors
		for range 2 {
			var u user
			if found, err := c.Get(t.Context(), key, &u); found || err != nil {
				t.Errorf("%s: %v, %v, %v", corrupt, u, found, err)
			}
			if _, found, err := pgcache.For[user](c).Get(t.Context(), key); found || err != nil {
				t.Errorf("%s, typed: %v, %v", corrupt, found, err)
			}
		}
		if n := c.Stats().DecodeErrors - before; n != 4 {
			t.Errorf("%s: %d decode errors counted", corrupt, n)
		}
		var u user
		if err := c.GetOrSet(t.Context(), key, &u, func(context.Context) (any, error) { return user{ID: 2}, nil }); err != nil || u.ID != 2 {
			t.Errorf("%s: %v, %v", corrupt, u, err)
		}
		if u, found := get[user](t, other, key); !found || u.ID != 2 {
			t.Errorf("%s: GetOrSet did not overwrite it: %v, %v", corrupt, u, found)
		}
	}
}

// Hits in memory handed out the caller's own mutable object; and what came from memory was of another type than what came
// from the database.
func TestS29_NobodyElsesValue(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	typed := pgcache.For[*user](c)
	plain := pgcache.For[map[string][]int](c)
	mine := &user{Name: "Ann", Roles: []string{"x"}}
	set(t, c, "u", mine)
	mine.Name, mine.Roles[0] = "changed", "changed"
	for range 4 {
		u, found, err := typed.Get(t.Context(), "u")
		if !found || err != nil || u.Name != "Ann" || u.Roles[0] != "x" {
			t.Fatal(u, found, err)
		}
		u.Name, u.Roles[0] = "changed", "changed"
		var v user
		if v, _ = get[user](t, c, "u"); v.Name != "Ann" || v.Roles[0] != "x" {
			t.Fatal(v)
		}
		v.Roles[0] = "changed"
	}
	for range 3 {
		m, err := plain.GetOrSet(t.Context(), "m", func(context.Context) (map[string][]int, error) { return map[string][]int{"a": {1}}, nil })
		if err != nil || m["a"][0] != 1 {
			t.Fatal(m, err)
		}
		m["a"][0] = 2
	}
	// What waiters of one load get is not one value either.
	l := newLoader(map[string][]int{"a": {1}})
	var results []func() map[string][]int
	for range 3 {
		results = append(results, async(t, func() map[string][]int {
			var m map[string][]int
			if err := c.GetOrSet(t.Context(), "m2", &m, l.load); err != nil {
				t.Error(err)
			}
			return m
		}))
	}
	l.wait(t)
	l.release()
	for i, result := range results {
		m := result()
		if m["a"][0] != 1 {
			t.Errorf("waiter %d got another's change", i)
		}
		m["a"][0] = 100
	}
	// From memory and from the database: the same types, whatever is asked for.
	set(t, c, "any", []any{1, "x", map[string]any{"y": nil}})
	remote, _ := get[any](t, c, "any")
	local, _ := get[any](t, c, "any")
	if fmt.Sprintf("%#v", remote) != fmt.Sprintf("%#v", local) {
		t.Errorf("from the database %#v, from memory %#v", remote, local)
	}
}

// When full, it evicted another entry even where it overwrote one, and looked at all of them to choose.
func TestS30_OverwritingEvictsNobody(t *testing.T) {
	t.Parallel()
	const entries = 16
	cl := newCluster(t)
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) {
		o.Local, o.Listener = localcache.New(localcache.Options{MaxEntries: entries}), calm(pgxdriver.DialDSN(testdb.DSN(t)))
	})
	for i := range entries {
		set(t, c, strconv.Itoa(i), i)
	}
	inMemory := func() (n int) {
		for i := range entries {
			before := c.Stats().LocalHits
			want(t, c, strconv.Itoa(i), i)
			n += int(c.Stats().LocalHits - before)
		}
		return n
	}
	inMemory()
	before := inMemory()
	for range 50 {
		set(t, c, "0", 0)
	}
	if after := inMemory(); after < before || before < entries/2 {
		t.Errorf("%d entries in memory before, %d after", before, after)
	}
}

// The table of a cache was logged: every write waited for the disk.
func TestS31_Unlogged(t *testing.T) {
	t.Parallel()
	for durable, persistence := range map[bool]string{false: "u", true: "p"} {
		cl := newCluster(t)
		cl.opts.Durable = durable
		c := cl.node(nil)
		set(t, c, "k", 1)
		for table, want := range map[string]string{"cache_entries": persistence, "cache_state": "p"} {
			if n := cl.count("SELECT count(*) FROM pg_class WHERE oid = to_regclass($1) AND relpersistence = $2::text::\"char\"", cl.opts.Schema+"."+cl.opts.Prefix+table, want); n != 1 {
				t.Errorf("Durable %v: %s is not %q", durable, table, want)
			}
		}
	}
}

// Its timeout for reads was never used: a server that stalled blocked for ever.
func TestS32_StalledServer(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		for name, stall := range map[string]func(cl *cluster, link *testdb.Proxy) (end func()){
			"table locked": func(cl *cluster, _ *testdb.Proxy) func() {
				tx, err := cl.db.BeginTx(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := tx.ExecContext(t.Context(), "LOCK TABLE "+cl.table()+" IN ACCESS EXCLUSIVE MODE"); err != nil {
					t.Fatal(err)
				}
				return func() { _ = tx.Rollback() }
			},
			"network silent": func(_ *cluster, link *testdb.Proxy) func() { link.Freeze(); return link.Thaw },
		} {
			if name == "network silent" && driver == "postgres" {
				continue // lib/pq does not return before it has tried for 10 s to cancel the statement over another connection
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				const timeout = 300 * time.Millisecond
				cl := newCluster(t)
				cl.on(testdb.DB(t), nil) // makes the tables, with more time
				link := testdb.NewProxy(t, testdb.DSN(t))
				c := cl.new(testdb.Open(t, driver, link.DSN()), func(o *pgcache.Options) {
					o.Timeout, o.CleanupInterval = timeout, -1
				})
				typed := pgcache.For[int](c)
				eventually(t, "it works", func() bool { return c.Set(t.Context(), "k", 1) == nil })
				end := stall(cl, link)
				defer end()
				var v int
				for _, op := range []struct {
					name string
					call func() error
				}{
					{"get", func() error { _, err := c.Get(t.Context(), "k", new(int)); return err }},
					{"set", func() error { return c.Set(t.Context(), "k", 2) }},
					{"delete", func() error { return c.Delete(t.Context(), "k") }},
					{"get many", func() error { _, err := typed.GetMany(t.Context(), []string{"k", "l"}); return err }},
					{"cleanup", func() error { _, err := c.Cleanup(t.Context()); return err }},
					{"clear", func() error { return c.Clear(t.Context()) }},
					{"get or set", func() error { // does without
						return c.GetOrSet(t.Context(), "other", &v, func(context.Context) (any, error) { return 7, nil })
					}},
				} {
					began, done := time.Now(), make(chan error, 1)
					go func() { done <- op.call() }()
					select {
					case err := <-done:
						if took := time.Since(began); took > 8*timeout {
							t.Errorf("%s: after %v", op.name, took)
						}
						if op.name == "get or set" {
							if err != nil || v != 7 {
								t.Errorf("%s: %v, %v", op.name, v, err)
							}
						} else if err == nil || !strings.Contains(err.Error(), "Timeout") {
							t.Errorf("%s: %v", op.name, err)
						}
					case <-time.After(10 * timeout):
						t.Errorf("%s: not within %v, Timeout is %v", op.name, time.Since(began), timeout)
					}
				}
			})
		}
	})
}

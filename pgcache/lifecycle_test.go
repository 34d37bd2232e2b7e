package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/internal/migrate"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// everything calls all methods with good arguments.
func everything(ctx context.Context, c *pgcache.Cache) map[string]error {
	typed := pgcache.For[int](c, pgcache.Namespace("n"))
	load := func(context.Context) (int, error) { return 1, nil }
	loadMany := func(_ context.Context, keys []string) (map[string]int, error) {
		m := map[string]int{}
		for _, k := range keys {
			m[k] = 1
		}
		return m, nil
	}
	errs := map[string]error{
		"Set": c.Set(ctx, "k", 1), "Delete": c.Delete(ctx, "k"), "Clear": c.Clear(ctx), "Ready": c.Ready(ctx),
		"GetOrSet":  c.GetOrSet(ctx, "k", new(int), func(context.Context) (any, error) { return 1, nil }),
		"typed Set": typed.Set(ctx, "k", 1), "typed Delete": typed.Delete(ctx, "k"), "Delete of none": c.Delete(ctx),
		"SetMany": typed.SetMany(ctx, map[string]int{"a": 1, "b": 2}), "SetMany of none": typed.SetMany(ctx, nil),
	}
	_, errs["Get"] = c.Get(ctx, "k", new(int))
	_, errs["Cleanup"] = c.Cleanup(ctx)
	_, errs["MigrationState"] = c.MigrationState(ctx)
	_, _, errs["typed Get"] = typed.Get(ctx, "k")
	_, errs["typed GetOrSet"] = typed.GetOrSet(ctx, "k", load)
	_, errs["GetMany"] = typed.GetMany(ctx, []string{"a", "b"})
	_, errs["GetMany of none"] = typed.GetMany(ctx, nil)
	_, errs["GetOrSetMany of none"] = typed.GetOrSetMany(ctx, nil, loadMany)
	_, errs["GetOrSetMany"] = typed.GetOrSetMany(ctx, []string{"a", "b"}, loadMany)
	return errs
}

func TestClosed(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	for name, err := range everything(t.Context(), c) {
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for name, err := range everything(t.Context(), c) {
		if !errors.Is(err, pgcache.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if s := c.Stats(); s.Sets == 0 {
		t.Errorf("%+v", s)
	}
}

// Nothing of ours is left after Close, and the pool is the caller's as before.
func TestCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		app := cl.opts.Schema + driver
		dsn := testdb.WithParam(testdb.DSN(t), "application_name", app)
		db := testdb.Open(t, driver, dsn)
		sessions := func() int { return cl.count("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", app) }
		for round := range 3 {
			var nodes []*pgcache.Cache
			for i := range 2 { // two caches on one pool share listener and lock session
				c := cl.on(db, func(o *pgcache.Options) {
					o.Listener, o.Prefix = listenerOf(driver, db, dsn), fmt.Sprint("p", i, "_")
				})
				for name, err := range everything(t.Context(), c) {
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
				}
				nodes = append(nodes, c)
			}
			nodes[round%2].Close()
			other := nodes[1-round%2]
			l := newLoader(1)
			loaded := async(t, func() error { return other.GetOrSet(t.Context(), fmt.Sprint("loaded", round), new(int), l.load) })
			l.wait(t)
			other.Close()
			if err := loaded(); !errors.Is(err, pgcache.ErrClosed) {
				t.Error(err)
			}
			if n := db.Stats().InUse; n != 0 {
				t.Errorf("%d connections of the pool are still in use", n)
			}
			if err := db.PingContext(t.Context()); err != nil {
				t.Error("the pool is closed:", err)
			}
			db.SetMaxIdleConns(-1)
			eventually(t, "the sessions have ended", func() bool { return sessions() == 0 })
			db.SetMaxIdleConns(2)
		}
	})
}

// Close while everything is going on: operations end well or with ErrClosed, and nothing hangs.
func TestCloseUnderLoad(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	db := testdb.DB(t)
	cl.on(db, nil)
	for round := range 15 {
		c := cl.new(db, func(o *pgcache.Options) { o.Listener = listenerOf("pgx", db, "") })
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				for n := 0; ; n++ {
					errs := map[string]error{}
					key := strconv.Itoa((n + i) % 5)
					switch n % 5 {
					case 0:
						errs["Set"] = c.Set(t.Context(), key, n)
					case 1:
						_, errs["Get"] = c.Get(t.Context(), key, new(int))
					case 2:
						errs["Delete"] = c.Delete(t.Context(), key)
					case 3:
						_, errs["GetOrSetMany"] = pgcache.For[int](c).GetOrSetMany(t.Context(), []string{key, "x"}, func(_ context.Context, keys []string) (map[string]int, error) {
							return map[string]int{keys[0]: 1}, nil
						})
					case 4:
						errs["GetOrSet"] = c.GetOrSet(t.Context(), key, new(int), func(ctx context.Context) (any, error) { return n, ctx.Err() })
					}
					for name, err := range errs {
						if errors.Is(err, pgcache.ErrClosed) {
							return
						}
						if err != nil {
							t.Errorf("%s: %v", name, err)
							return
						}
					}
				}
			})
		}
		if round%3 > 0 { // else before it is live
			cl.ready(c)
		}
		time.Sleep(time.Duration(round) * time.Millisecond)
		began := time.Now()
		c.Close()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("Close took %v", took)
		}
		wg.Wait()
	}
	cl.noLocks()
}

// Close does not wait for a loader that does not listen to its context, nor for a server that is silent.
func TestCloseIsQuick(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	link := testdb.NewProxy(t, testdb.DSN(t))
	db := testdb.Open(t, "pgx", link.DSN())
	for _, silent := range []bool{false, true} {
		c := cl.on(db, func(o *pgcache.Options) { o.Listener = listenerOf("pgx", db, "") })
		deaf, began := make(chan struct{}), make(chan struct{})
		defer close(deaf)
		if silent {
			set(t, c, "k", 1)
			link.Freeze()
			defer link.Thaw()
		} else {
			loaded := async(t, func() error {
				return c.GetOrSet(t.Context(), "k", new(int), func(context.Context) (any, error) { close(began); <-deaf; return 1, nil })
			})
			<-began
			defer func() {
				if err := loaded(); !errors.Is(err, pgcache.ErrClosed) {
					t.Error(err)
				}
			}()
		}
		start := time.Now()
		c.Close()
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("silent %v: Close took %v", silent, took)
		}
	}
}

func TestNull(t *testing.T) {
	t.Parallel()
	c := pgcache.Null()
	ctx := t.Context()
	for range 2 {
		for name, err := range everything(ctx, c) {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	set(t, c, "k", 1)
	wantNone(t, c, "k")
	loads := 0
	for range 3 {
		var v user
		if err := c.GetOrSet(ctx, "k", &v, func(context.Context) (any, error) { loads++; return user{ID: 7, Roles: []string{"x"}}, nil }); err != nil || v.ID != 7 {
			t.Error(v, err)
		}
	}
	if loads != 3 {
		t.Errorf("%d loads", loads)
	}
	view := pgcache.For[int](c, pgcache.Namespace("n"))
	if m, err := view.GetMany(ctx, []string{"a"}); len(m) != 0 || err != nil {
		t.Error(m, err)
	}
	m, err := view.GetOrSetMany(ctx, []string{"a", "b", "c"}, func(_ context.Context, keys []string) (map[string]int, error) {
		return map[string]int{"a": 1, "b": len(keys)}, nil
	})
	if err != nil || !cmp.Equal(m, map[string]int{"a": 1, "b": 3}) {
		t.Error(m, err)
	}
	// Keys, TTLs and values are checked as ever.
	wantErr(t, c.Set(ctx, "", 1), pgcache.ErrInvalidKey)
	wantErr(t, c.Delete(ctx, "a\x00"), pgcache.ErrInvalidKey)
	_, err = c.Get(ctx, "\xff", new(int))
	wantErr(t, err, pgcache.ErrInvalidKey)
	wantErr(t, c.Set(ctx, "k", 1, pgcache.TTL(-5)), pgcache.ErrInvalidTTL)
	wantErr(t, c.Set(ctx, "k", strings.Repeat("x", pgcache.DefaultMaxValueBytes)), pgcache.ErrValueTooLarge)
	if err := c.Set(ctx, "k", make(chan int)); err == nil {
		t.Error("a channel was encoded")
	}
	wantErr(t, c.GetOrSet(ctx, "k", new(int), func(ctx context.Context) (any, error) {
		return 1, c.GetOrSet(ctx, "k", new(int), noLoad(t))
	}), pgcache.ErrRecursiveLoad)
	// And it closes.
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Error(err)
	}
	for name, err := range everything(ctx, c) {
		if !errors.Is(err, pgcache.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// catalog describes the objects of a schema.
func (cl *cluster) catalog(schema string) (lines []string) {
	cl.t.Helper()
	rows, err := cl.db.QueryContext(cl.t.Context(), `
		SELECT replace(line, $1::text, 'SCHEMA') FROM (
			SELECT format('%s %s %s %s', c.relkind, c.relname, c.relpersistence, c.reloptions) AS line FROM pg_class c WHERE c.relnamespace = $1::text::regnamespace
			UNION ALL SELECT format('%s.%s %s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attcollation::regcollation, pg_get_expr(d.adbin, d.adrelid))
				FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
				WHERE c.relnamespace = $1::text::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
			UNION ALL SELECT format('%s %s', conname, pg_get_constraintdef(oid)) FROM pg_constraint WHERE connamespace = $1::text::regnamespace
			UNION ALL SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = $1::text::regnamespace
			UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = $1::text::regnamespace
		) o ORDER BY 1`, schema)
	if err != nil {
		cl.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			cl.t.Fatal(err)
		}
		lines = append(lines, line)
	}
	if err := rows.Err(); err != nil {
		cl.t.Fatal(err)
	}
	return lines
}

// state is the row of cache_state, without what changes by itself.
func (cl *cluster) state() string {
	cl.t.Helper()
	var s string
	if err := cl.db.QueryRowContext(cl.t.Context(), "SELECT schema_version || ' ' || channel || ' ' || generation FROM "+cl.names().State()).Scan(&s); err != nil {
		cl.t.Fatal(err)
	}
	return s
}

// The printed SQL, run with another tool, makes what Migrate makes.
func TestMigrationSQL(t *testing.T) {
	t.Parallel()
	for _, durable := range []bool{false, true} {
		for driver, db := range map[string]*sql.DB{"pgx": testdb.DB(t), "postgres": testdb.Open(t, "postgres", testdb.DSN(t))} {
			ours, theirs := newCluster(t), newCluster(t)
			ours.opts.Durable, theirs.opts.Durable = durable, durable
			ours.opts.Prefix, theirs.opts.Prefix = "P1_", "P1_"
			ours.node(nil)
			text, err := pgcache.MigrationSQL(theirs.opts)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.ExecContext(t.Context(), text); err != nil {
				t.Fatalf("%s: %v\n%s", driver, err, text)
			}
			if diff := cmp.Diff(ours.catalog(ours.opts.Schema), theirs.catalog(theirs.opts.Schema)); diff != "" {
				t.Errorf("%s, Durable %v: by Migrate (-) and by hand (+): %s", driver, durable, diff)
			}
			c := theirs.new(db, nil)
			if err := c.Ready(t.Context()); err != nil { // without Migrate
				t.Fatal(err)
			}
			set(t, c, "k", 1)
			want(t, c, "k", 1)
			before := theirs.state()
			if err := c.Migrate(t.Context()); err != nil { // which finds nothing to do
				t.Fatal(err)
			}
			if after := theirs.state(); after != before {
				t.Errorf("%s, then %s", before, after)
			}
			want(t, c, "k", 1)
		}
	}
	for _, bad := range []pgcache.Options{{Prefix: `"`}, {Schema: "a b"}, {Channel: "'"}, {Prefix: strings.Repeat("x", 46)}} {
		if text, err := pgcache.MigrationSQL(bad); err == nil || text != "" {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestMigrationState(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		c := cl.new(testdb.Open(t, driver, testdb.DSN(t)), nil)
		var names []string
		for _, m := range migrate.All(cl.names()) {
			names = append(names, m.Name)
		}
		latest := migrate.Latest()
		check := func(when string, want pgcache.MigrationState) {
			t.Helper()
			got, err := c.MigrationState(t.Context())
			if err != nil || !cmp.Equal(got, want) {
				t.Errorf("%s: %+v, %v", when, got, err)
			}
		}
		check("before", pgcache.MigrationState{Have: 0, Want: latest, Pending: names})
		if n := len(cl.catalog(cl.opts.Schema)); n != 0 {
			t.Errorf("asking made %d objects", n)
		}
		for range 2 {
			if err := c.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			check("after", pgcache.MigrationState{Have: latest, Want: latest})
		}
		cl.exec("UPDATE " + cl.names().State() + " SET schema_version = 99")
		check("newer", pgcache.MigrationState{Have: 99, Want: latest})
	})
}

// A schema of another version is refused with both versions, whatever is called, and nothing in it is changed.
func TestOtherVersions(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		old := cl.node(nil)
		set(t, old, "k", 1)
		latest := migrate.Latest()
		for _, have := range []int{latest + 1, 99, latest - 1} {
			cl.exec("UPDATE "+cl.names().State()+" SET schema_version = $1", have)
			before := cl.catalog(cl.opts.Schema)
			c := cl.new(testdb.Open(t, driver, testdb.DSN(t)), nil)
			calls := everything(t.Context(), c)
			delete(calls, "MigrationState") // which tells, see there
			delete(calls, "Delete of none")
			delete(calls, "SetMany of none")
			delete(calls, "GetMany of none")
			delete(calls, "GetOrSetMany of none")
			if have > latest { // else Migrate is the way out
				calls["Migrate"] = c.Migrate(t.Context())
			}
			for name, err := range calls {
				var e *pgcache.SchemaError
				if !errors.As(err, &e) || e.Have != have || e.Want != latest {
					t.Errorf("%d, %s: %v", have, name, err)
				} else if s := err.Error(); !strings.Contains(s, strconv.Itoa(have)) || !strings.Contains(s, strconv.Itoa(latest)) {
					t.Errorf("%d, %s: the error does not say both versions: %v", have, name, err)
				}
			}
			if diff := cmp.Diff(before, cl.catalog(cl.opts.Schema)); diff != "" {
				t.Error(diff)
			}
		}
		if n := cl.count("SELECT count(*) FROM " + cl.table() + " WHERE key = 'k'"); n != 1 {
			t.Error("an entry was lost")
		}
	})
}

// Tables dropped while nodes run: ErrNotMigrated, from memory nothing that is no more, and all is well after a Migrate.
func TestTablesDropped(t *testing.T) {
	t.Parallel()
	for what, drop := range map[string]string{
		"schema":      "DROP SCHEMA %[1]s CASCADE; CREATE SCHEMA %[1]s",
		"all tables":  "DROP TABLE %[1]s.t_cache_entries, %[1]s.t_cache_state, %[1]s.t_cache_changes, %[1]s.t_cache_notices CASCADE",
		"the entries": "DROP TABLE %[1]s.t_cache_entries",
		"the log":     "DROP TABLE %[1]s.t_cache_changes CASCADE",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			forDrivers(t, func(t *testing.T, driver string) {
				cl := newCluster(t)
				db := testdb.Open(t, driver, testdb.DSN(t))
				a := cl.on(db, func(o *pgcache.Options) { o.Listener = listenerOf(driver, db, testdb.DSN(t)) })
				b := cl.node(nil)
				set(t, a, "k", 1)
				warm(t, b, "k", 1)
				caughtUp := cl.follow(a, b, nil)
				cl.exec(fmt.Sprintf(drop, cl.opts.Schema))
				eventually(t, "every write says so", func() bool { return errors.Is(a.Set(t.Context(), "x", 1), pgcache.ErrNotMigrated) })
				if what != "the log" {
					_, err := a.Get(t.Context(), "x", new(int))
					wantErr(t, err, pgcache.ErrNotMigrated)
				}
				wantErr(t, a.GetOrSet(t.Context(), "x", new(int), func(context.Context) (any, error) { return 1, nil }), pgcache.ErrNotMigrated)

				if err := a.Migrate(t.Context()); err != nil {
					t.Fatal(err)
				}
				set(t, a, "k", 2)
				set(t, a, "mark", -1)
				caughtUp()
				want(t, a, "k", 2)
				want(t, b, "k", 2)
				if err := b.GetOrSet(t.Context(), "x", new(int), func(context.Context) (any, error) { return 1, nil }); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// Cleanup removes one batch of what has expired, tombstones too, and nothing else.
func TestCleanup(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.CleanupBatch, o.CleanupInterval = 10, -1 })
	typed := pgcache.For[int](c)
	rows := map[string]int{}
	for i := range 25 {
		rows[fmt.Sprint("dead", i)] = i
	}
	if err := typed.SetMany(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	set(t, c, "live", 1)
	set(t, c, "never", 1, pgcache.TTL(pgcache.NoExpiry))
	del(t, c, "deleted", "dead0")
	cl.expire("key LIKE 'dead%'")
	for _, want := range []int64{10, 10, 5, 0} {
		if n, err := c.Cleanup(t.Context()); n != want || err != nil {
			t.Errorf("%d removed, %v; want %d", n, err, want)
		}
	}
	if n := cl.count("SELECT count(*) FROM " + cl.table()); n != 3 { // live, never, and the tombstone of deleted
		t.Errorf("%d rows left", n)
	}
	want(t, c, "live", 1)
	want(t, c, "never", 1)
	cl.expire("value IS NULL")
	if n, err := c.Cleanup(t.Context()); n != 1 || err != nil {
		t.Error("the tombstone:", n, err)
	}
	if n := c.Stats().Cleaned; n != 26 {
		t.Errorf("%d cleaned", n)
	}
	// Two at once do not get into each other's way.
	if err := typed.SetMany(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	cl.expire("key LIKE 'dead%'")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := c.Cleanup(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := cl.count("SELECT count(*) FROM " + cl.table()); n != 2 {
		t.Errorf("%d rows left", n)
	}
}

// The janitor runs by itself, on one node an interval, in front of the writers of the same rows.
func TestJanitor(t *testing.T) {
	t.Parallel()
	const interval = 200 * time.Millisecond
	cl := newCluster(t)
	var wires []*wire
	var nodes []*pgcache.Cache
	began := time.Now()
	for range 4 {
		c, w := cl.wired(func(o *pgcache.Options) { o.CleanupInterval, o.CleanupBatch = interval, 3 })
		nodes, wires = append(nodes, c), append(wires, w)
	}
	set(t, nodes[0], "live", 1)
	set(t, nodes[0], "never", 1, pgcache.TTL(pgcache.NoExpiry))
	for i := range 20 {
		set(t, nodes[0], fmt.Sprint("dead", i), 1)
	}
	cl.expire("key LIKE 'dead%'")
	cl.exec("INSERT INTO " + cl.table() + " (key, version, codec) VALUES ('stone', 1, 'json')")
	cl.expire("key = 'stone'")
	// What has expired a moment ago is left for the loaders that began before.
	set(t, nodes[0], "just", 1, pgcache.TTL(time.Millisecond))
	// Writers revive dead rows all the while.
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				set(t, nodes[1], "dead0", 1)
				want(t, nodes[1], "dead0", 1)
				cl.expire("key = 'dead0'")
			}
		}
	})
	eventually(t, "the dead are gone", func() bool {
		return cl.count("SELECT count(*) FROM "+cl.table()+" WHERE key IN ('stone') OR key LIKE 'dead_%' AND key <> 'dead0'") == 0
	})
	time.Sleep(2 * interval)
	close(stop)
	wg.Wait()
	claims, elapsed := 0, time.Since(began)
	for _, c := range nodes {
		c.Close()
	}
	for _, w := range wires {
		claims += w.count(named("ClaimSweep"))
	}
	swept := nodes[0].Stats().Cleaned + nodes[1].Stats().Cleaned + nodes[2].Stats().Cleaned + nodes[3].Stats().Cleaned
	if swept < 20 {
		t.Errorf("%d cleaned", swept)
	}
	// A sweep is a DeleteExpired that found less than a batch; the others asked and were told that it is done.
	most := int(elapsed/(interval/2)) + 1
	sweeps := 0
	for _, w := range wires {
		sweeps += w.count(named("DeleteExpired"))
	}
	if sweeps -= int(swept) / 3; sweeps > most {
		t.Errorf("%d sweeps of 4 nodes in %v (%d claims): more than one an interval", sweeps, elapsed, claims)
	}
	if claims <= sweeps {
		t.Errorf("%d claims, %d sweeps: nobody was refused", claims, sweeps)
	}
	if n := cl.count("SELECT count(*) FROM " + cl.table() + " WHERE key IN ('live', 'never', 'just')"); n != 3 {
		t.Errorf("%d of 3 rows left", n)
	}
}

// Timeouts of the role hit our statements like anybody's: an error, and nothing is left locked. The sessions that are
// idle by trade do not end of it.
func TestRoleTimeouts(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		dsn := testdb.DSN(t)
		for name, ms := range map[string]string{"statement_timeout": "800", "lock_timeout": "500", "idle_session_timeout": "900", "idle_in_transaction_session_timeout": "900"} {
			dsn = testdb.WithParam(dsn, name, ms)
		}
		db := testdb.Open(t, driver, dsn)
		c := cl.on(db, func(o *pgcache.Options) { o.Listener = listenerOf(driver, db, dsn) })
		set(t, c, "k", 1)
		flushes := c.Stats().LocalFlushes

		tx, err := cl.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(t.Context(), "SELECT FROM "+cl.table()+" WHERE key = 'k' FOR UPDATE"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		err = c.Set(t.Context(), "k", 2)
		if e := cause(t, err, "set", "k"); !strings.Contains(e.Error(), "timeout") {
			t.Error(e)
		}
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("took %v", took)
		}
		// A loader may take longer than all of them: it holds no statement and no transaction.
		var v int
		if err := c.GetOrSet(t.Context(), "slow", &v, func(context.Context) (any, error) {
			time.Sleep(1200 * time.Millisecond)
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
		if n := c.Stats().LocalFlushes; n > flushes+1 { // a slow machine may miss a heartbeat; a role's timeout would end every session
			t.Error("the listener was lost")
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
				caughtUp := cl.follow(nodes[0], nodes[1], nil)
				caughtUp()
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

// At least 90 % of overwrites are HOT: no index knows of what they change, and pages have room for them. Not beside other
// tests: a transaction that is open anywhere in the database keeps dead rows from making room.
func TestHOTUpdates(t *testing.T) {
	const keys, writes = 50, 2000
	value := strings.Repeat("x", 200)
	updated, hot := 0, 0
	for range 3 { // other packages' tests may be using the same server
		cl := newCluster(t)
		db := testdb.DB(t)
		c := cl.on(db, nil)
		typed := pgcache.For[string](c)
		for i := range writes / 10 {
			m := map[string]string{}
			for j := range 10 {
				m[strconv.Itoa((i*10+j)%keys)] = value
			}
			if err := typed.SetMany(t.Context(), m, pgcache.TTL(time.Duration(i+1)*time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
		db.Close() // sessions that end report what they did
		count := func(column string) int {
			return cl.count("SELECT "+column+" FROM pg_stat_user_tables WHERE schemaname = $1 AND relname = 't_cache_entries'", cl.opts.Schema)
		}
		eventually(t, "the statistics are there", func() bool { return count("n_tup_upd") >= writes-keys })
		updated, hot = count("n_tup_upd"), count("n_tup_hot_upd")
		if hot*10 >= updated*9 {
			return
		}
	}
	t.Errorf("%d of %d updates were HOT", hot, updated)
}

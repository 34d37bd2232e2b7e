package pgcache_test

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// parsed is what payloads say: keys, and "*" for everything.
func parsed(t *testing.T, payloads []string) (keys []string) {
	t.Helper()
	for _, p := range payloads {
		if len(p) > notify.MaxPayload {
			t.Errorf("a payload of %d bytes", len(p))
		}
		m, err := notify.Parse(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Items(func(key string, _ []int64) { keys = append(keys, key) }, func(notify.Group) {}, func() { keys = append(keys, "*") }); err != nil {
			t.Error(err)
		}
	}
	slices.Sort(keys)
	return keys
}

// What is changed by hand, or by another program, is published by triggers.
func TestSideDoors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		sql       string
		publishes []string
		left      map[string]int // of a, b and c
	}{
		"UPDATE":                 {"UPDATE %s SET value = '9' WHERE key = 'a'", []string{"a"}, map[string]int{"a": 9, "b": 1, "c": 1}},
		"UPDATE of all":          {"UPDATE %s SET value = '9'", []string{"a", "b", "c"}, map[string]int{"a": 9, "b": 9, "c": 9}},
		"UPDATE of the expiry":   {"UPDATE %s SET expires_at = clock_timestamp() WHERE key = 'a'", []string{"a"}, map[string]int{"b": 1, "c": 1}},
		"UPDATE of a key":        {"UPDATE %s SET key = 'd' WHERE key = 'a'", []string{"a", "d"}, map[string]int{"b": 1, "c": 1, "d": 1}},
		"UPDATE of key, version": {"UPDATE %s SET key = 'd', version = version + 1 WHERE key = 'a'", []string{"a", "d"}, map[string]int{"b": 1, "c": 1, "d": 1}},
		"UPDATE of key, stamp":   {"UPDATE %s SET key = 'd', version = version + 1, stamp = stamp + 1 WHERE key = 'a'", []string{"a", "d"}, map[string]int{"b": 1, "c": 1, "d": 1}},
		"DELETE":                 {"DELETE FROM %s WHERE key IN ('a', 'b')", []string{"a", "b"}, map[string]int{"c": 1}},
		"TRUNCATE":               {"TRUNCATE %s", []string{"*"}, map[string]int{}},
		"UPSERT":                 {"INSERT INTO %s (key, value, version, codec) VALUES ('a', '9', 1, 'json') ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value", []string{"a"}, map[string]int{"a": 9, "b": 1, "c": 1}},
		"INSERT":                 {"INSERT INTO %s (key, value, version, codec) VALUES ('d', '9', 1, 'json')", nil, map[string]int{"a": 1, "b": 1, "c": 1, "d": 9}},
		"in one transaction":     {"BEGIN; UPDATE %[1]s SET value = '8' WHERE key = 'a'; UPDATE %[1]s SET value = '9' WHERE key = 'a'; DELETE FROM %[1]s WHERE key = 'b'; COMMIT", []string{"a", "b"}, map[string]int{"a": 9, "c": 1}},
		"rolled back":            {"BEGIN; UPDATE %[1]s SET value = '8' WHERE key = 'a'; TRUNCATE %[1]s; ROLLBACK", nil, map[string]int{"a": 1, "b": 1, "c": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			a, b := cl.node(nil), cl.node(nil)
			for _, k := range []string{"a", "b", "c"} {
				set(t, a, k, 1)
				warm(t, b, k, 1)
				warm(t, a, k, 1)
			}
			recorder := cl.record()
			cl.exec(fmt.Sprintf(test.sql, cl.table()))
			if got := parsed(t, recorder.received()); !cmp.Equal(got, test.publishes) {
				t.Errorf("published %q, want %q", got, test.publishes)
			}
			caughtUp := cl.follow(a, b, nil)
			caughtUp()
			cl.follow(b, a, nil)()
			for _, c := range []*pgcache.Cache{a, b} {
				got := map[string]int{}
				for _, k := range []string{"a", "b", "c", "d"} {
					if v, found := get[int](t, c, k); found {
						got[k] = v
					}
				}
				if diff := cmp.Diff(test.left, got); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

// A change of very many rows by hand becomes "forget everything", in a bounded number of notifications.
func TestSideDoorBulk(t *testing.T) {
	t.Parallel()
	const rows = 2500
	cl := newCluster(t)
	cl.opts.InvalidationWindow = pgcache.Immediate
	a, b := cl.node(nil), cl.node(func(db *sql.DB, o *pgcache.Options) { o.Listener = calm(pgxdriver.Dial(db)) })
	cl.exec("INSERT INTO "+cl.table()+" (key, value, version, codec) SELECT 'k' || i, '1', 1, 'json' FROM generate_series(1, $1) i", rows)
	warm(t, b, "k1", 1)
	warm(t, b, "k"+strconv.Itoa(rows), 1)
	caughtUp, caughtUpToo := cl.follow(a, b, nil), cl.follow(b, a, nil)
	for v, stmt := range []string{2: "UPDATE %s SET value = '2'", 3: "UPDATE %s SET value = '3'"} {
		if stmt == "" {
			continue
		}
		before := b.Stats().LocalFlushes
		recorder := cl.record()
		cl.exec(fmt.Sprintf(stmt, cl.table()) + " WHERE key LIKE 'k%'")
		received := recorder.received()
		if n := len(received); n > 1001 || !slices.ContainsFunc(received, isAll) {
			t.Errorf("%d notifications", n)
		}
		caughtUp()
		caughtUpToo()
		if n := b.Stats().LocalFlushes; n != before+1 {
			t.Errorf("forgot everything %d times", n-before)
		}
		for _, k := range []string{"k1", "k1500", "k" + strconv.Itoa(rows)} {
			want(t, b, k, v)
			want(t, a, k, v)
		}
	}
	// The next transaction counts from the start.
	recorder := cl.record()
	cl.exec("UPDATE " + cl.table() + " SET value = '9' WHERE key = 'k7'")
	if got := parsed(t, recorder.received()); !cmp.Equal(got, []string{"k7"}) {
		t.Errorf("published %q", got)
	}
}

// Who may change rows but owns nothing, also publishes.
func TestSideDoorOfAnotherRole(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)
	role := cl.opts.Schema + "_role"
	cl.exec(fmt.Sprintf("CREATE ROLE %[1]s; GRANT USAGE ON SCHEMA %[2]s TO %[1]s; GRANT SELECT, UPDATE, DELETE, TRUNCATE ON %[3]s TO %[1]s", role, cl.opts.Schema, cl.table()))
	defer cl.exec("DROP OWNED BY " + role + "; DROP ROLE " + role)
	db := testdb.Open(t, "pgx", testdb.WithParam(testdb.DSN(t), "role", role))
	caughtUp := cl.follow(a, b, nil)
	for i, stmt := range []string{"UPDATE %s SET value = '9' WHERE key = 'k'", "DELETE FROM %s WHERE key = 'k'", "TRUNCATE %s"} {
		set(t, a, "k", i)
		warm(t, b, "k", i)
		if _, err := db.ExecContext(t.Context(), fmt.Sprintf(stmt, cl.table())); err != nil {
			t.Fatal(err)
		}
		set(t, a, "mark", -1)
		caughtUp()
		if v, found := get[int](t, b, "k"); found && v != 9 {
			t.Errorf("after %s: %v", stmt, v)
		}
	}
}

// What the library itself publishes, with Immediate: each overwrite once, inserts and the janitor's deletes not at all.
func TestNotifications(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		cl.opts.InvalidationWindow, cl.opts.CleanupInterval = pgcache.Immediate, -1
		c := cl.on(testdb.Open(t, driver, testdb.DSN(t)), nil)
		typed := pgcache.For[int](c)
		ctx := t.Context()
		recorder := cl.record()
		keys := func(n int) map[string]int {
			m := map[string]int{}
			for i := range n {
				m[fmt.Sprintf("key-%d", i)] = i
			}
			return m
		}
		all := slices.Sorted(maps.Keys(keys(900)))
		for _, step := range []struct {
			what      string
			do        func() error
			publishes []string
			messages  int
		}{
			{"an insert", func() error { return c.Set(ctx, "k", 1) }, nil, 0},
			{"an overwrite", func() error { return c.Set(ctx, "k", 2) }, []string{"k"}, 1},
			{"the same value", func() error { return c.Set(ctx, "k", 2) }, []string{"k"}, 1},
			{"a delete", func() error { return c.Delete(ctx, "k") }, []string{"k"}, 1},
			{"a set after it", func() error { return c.Set(ctx, "k", 3) }, []string{"k"}, 1},
			{"a delete of what is absent", func() error { return c.Delete(ctx, "absent") }, []string{"absent"}, 1},
			{"a delete of several", func() error { return c.Delete(ctx, "x", "y", "x") }, []string{"x", "y"}, 1},
			{"900 inserts", func() error { return typed.SetMany(ctx, keys(900)) }, nil, 0},
			{"900 overwrites", func() error { return typed.SetMany(ctx, keys(900)) }, all, 5},
			{"900 deletes", func() error { return c.Delete(ctx, all...) }, all, 5},
			{"5000 overwrites", func() error {
				m := keys(5000)
				for k := range m {
					m[k]++
				}
				return typed.SetMany(ctx, m)
			}, nil, -1},
			{"a load", func() error {
				return c.GetOrSet(ctx, "loaded", new(int), func(context.Context) (any, error) { return 1, nil })
			}, nil, 0},
			{"a clear", func() error { return c.Clear(ctx) }, []string{"*"}, 1},
			{"a clear of nothing", func() error { return c.Clear(ctx) }, []string{"*"}, 1},
		} {
			if err := step.do(); err != nil {
				t.Fatalf("%s: %v", step.what, err)
			}
			received := recorder.received()
			published := parsed(t, received)
			if step.messages < 0 { // several statements
				if len(received) > 50 {
					t.Errorf("%s: %d messages", step.what, len(received))
				}
				continue
			}
			if len(received) > step.messages || !cmp.Equal(published, step.publishes) {
				t.Errorf("%s: published %.300q in %d messages, want %d", step.what, published, len(received), step.messages)
			}
		}
		// The janitor and Cleanup publish nothing.
		if err := typed.SetMany(ctx, keys(10)); err != nil {
			t.Fatal(err)
		}
		cl.expire("true")
		if n, err := c.Cleanup(ctx); n != 10 || err != nil {
			t.Fatal(n, err)
		}
		if received := recorder.received(); len(received) != 0 {
			t.Errorf("Cleanup published %q", received)
		}
		// Clear where somebody reads the table for long goes row by row, and does not publish each row.
		if err := typed.SetMany(ctx, keys(900)); err != nil {
			t.Fatal(err)
		}
		tx, err := cl.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
		if err != nil {
			t.Fatal(err)
		}
		var n int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM "+cl.table()).Scan(&n); err != nil || n != 900 {
			t.Fatal(n, err)
		}
		if err := c.Clear(ctx); err != nil {
			t.Fatal(err)
		}
		if received := recorder.received(); len(received) != 1 || !isAll(received[0]) {
			t.Errorf("Clear published %.200q", received)
		}
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM "+cl.table()).Scan(&n); err != nil || n != 900 {
			t.Errorf("the reader sees %d, %v", n, err)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		if n := cl.count("SELECT count(*) FROM " + cl.table()); n != 0 {
			t.Errorf("%d rows after Clear", n)
		}
	})
}

// isAll says that a payload is of a writing statement or a trigger and means everything.
func isAll(payload string) bool {
	m, err := notify.Parse(payload)
	return err == nil && !m.Flush && m.Body == notify.All
}

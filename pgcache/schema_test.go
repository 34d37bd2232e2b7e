package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/internal/migrate"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

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
	if err := cl.db.QueryRowContext(cl.t.Context(), "SELECT schema_version || ' ' || channel || ' ' || id FROM "+cl.names().State()).Scan(&s); err != nil {
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
	for _, bad := range []pgcache.Options{{Prefix: `"`}, {Schema: "a b"}, {Channel: "'"}, {Prefix: strings.Repeat("x", 42)}} {
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
			delete(calls, "MigrationState") // which answers, see there
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

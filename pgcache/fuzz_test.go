package pgcache_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// The fuzz targets give the cache every string that comes from outside, on a running server: names, keys, namespaces,
// payloads of notifications, and what is stored in rows. make fuzz runs each for a while; go test runs what is kept in
// testdata/fuzz.

// fuzzOptions are those of the nodes of a target: they publish at once, in a schema of the target's own.
func fuzzOptions(f *testing.F) pgcache.Options {
	f.Helper()
	return pgcache.Options{
		Schema: testdb.Schema(f), Prefix: "t_", InvalidationWindow: pgcache.Immediate, CleanupInterval: -1,
		Logger: slog.New(slog.DiscardHandler),
	}
}

// fuzzNode returns a ready node on db.
func fuzzNode(f *testing.F, db *sql.DB, o pgcache.Options) *pgcache.Cache {
	f.Helper()
	c, err := pgcache.New(db, o)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { c.Close() })
	ctx, cancel := context.WithTimeout(f.Context(), 30*time.Second)
	defer cancel()
	if err := errors.Join(c.Migrate(ctx), c.Ready(ctx)); err != nil {
		f.Fatal(err)
	}
	return c
}

// nearNode returns a ready node with a memory.
func nearNode(f *testing.F, o pgcache.Options) *pgcache.Cache {
	f.Helper()
	db := testdb.DB(f)
	o.Listener = calm(pgxdriver.Dial(db))
	return fuzzNode(f, db, o)
}

func mustExec(tb testing.TB, db *sql.DB, query string, args ...any) {
	tb.Helper()
	if _, err := db.ExecContext(context.Background(), query, args...); err != nil {
		tb.Fatal(err)
	}
}

// fuzzDatabase creates a database of its own, so that everything which appears in it or changes is seen.
func fuzzDatabase(f *testing.F) *sql.DB {
	f.Helper()
	admin, name := testdb.DB(f), "fuzz_"+strings.ToLower(rand.Text()[:16])
	mustExec(f, admin, "CREATE DATABASE "+name)
	f.Cleanup(func() { mustExec(f, admin, "DROP DATABASE "+name+" WITH (FORCE)") })
	return testdb.Open(f, "pgx", testdb.WithParam(testdb.DSN(f), "dbname", name))
}

// objects are the schemas, relations and functions of a database that somebody created, and how to drop each.
func objects(t *testing.T, db *sql.DB) map[string]string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `
		SELECT 'schema ' || n.nspname, format('DROP SCHEMA IF EXISTS %I CASCADE', n.nspname)
		FROM pg_namespace n WHERE n.nspname !~ '^pg_(temp|toast_temp)_'
		UNION ALL
		SELECT 'relation ' || n.nspname || '.' || c.relname, CASE c.relkind WHEN 'r' THEN format('DROP TABLE IF EXISTS %I.%I CASCADE', n.nspname, c.relname) ELSE '' END
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid >= 16384 AND n.nspname <> 'pg_toast'
		UNION ALL
		SELECT 'function ' || n.nspname || '.' || p.proname, format('DROP FUNCTION IF EXISTS %s CASCADE', p.oid::regprocedure)
		FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid >= 16384
		ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	all := map[string]string{}
	for rows.Next() {
		var name, drop string
		if err := rows.Scan(&name, &drop); err != nil {
			t.Fatal(err)
		}
		all[name] = drop
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// tryNames makes a cache of which option has been given a string. New refuses it with an error that names the option, or the
// cache works; then it creates nothing but what mine says, and what was there stays as it was. Everything is dropped again.
func tryNames(t *testing.T, db *sql.DB, o pgcache.Options, option string, mine func(object string) bool, use func(c *pgcache.Cache)) {
	t.Helper()
	o.CleanupInterval, o.Logger = -1, slog.New(slog.DiscardHandler)
	c, err := pgcache.New(db, o)
	if err != nil {
		if !strings.HasPrefix(err.Error(), "pgcache: option "+option+" ") || len(err.Error()) > 600 {
			t.Errorf("the error does not name the option, or is long: %v", err)
		}
		return
	}
	defer c.Close()
	before := objects(t, db)
	defer func() {
		c.Close()
		for object, drop := range objects(t, db) {
			if _, old := before[object]; !old && drop != "" {
				mustExec(t, db, drop)
			}
		}
	}()
	if err := c.Migrate(t.Context()); err != nil {
		t.Fatal("New accepts what Migrate can't use:", err)
	}
	if err := c.Migrate(t.Context()); err != nil {
		t.Fatal("the second Migrate:", err)
	}
	use(c)
	after := objects(t, db)
	for object := range before {
		if _, ok := after[object]; !ok {
			t.Errorf("%s is gone", object)
		}
	}
	for object := range after {
		if _, old := before[object]; !old && !mine(object) {
			t.Errorf("%s was created", object)
		}
	}
}

// neighbour makes a cache that must not notice the others, and returns the check that it has not.
func neighbour(f *testing.F, db *sql.DB, o pgcache.Options) (unharmed func(t *testing.T)) {
	f.Helper()
	o.CleanupInterval, o.Logger = -1, slog.New(slog.DiscardHandler)
	c := fuzzNode(f, db, o)
	if err := c.Set(f.Context(), "neighbour", 7); err != nil {
		f.Fatal(err)
	}
	return func(t *testing.T) {
		t.Helper()
		want(t, c, "neighbour", 7)
		wantNone(t, c, "k")
	}
}

// works sets, reads and deletes.
func works(t *testing.T, c *pgcache.Cache) {
	t.Helper()
	set(t, c, "k", 1)
	want(t, c, "k", 1)
	if v, err := loaded(c, "l", 2); v != 2 || err != nil {
		t.Error(v, err)
	}
	del(t, c, "k", "l")
	wantNone(t, c, "k")
	if err := c.Clear(t.Context()); err != nil {
		t.Error(err)
	}
}

func FuzzPrefix(f *testing.F) {
	db := fuzzDatabase(f)
	unharmed := neighbour(f, db, pgcache.Options{Schema: "fuzz"})
	f.Fuzz(func(t *testing.T, prefix string) {
		mine := func(object string) bool {
			_, name, _ := strings.Cut(object, " fuzz.")
			return strings.HasPrefix(name, prefix+"cache_")
		}
		tryNames(t, db, pgcache.Options{Schema: "fuzz", Prefix: prefix}, "Prefix", mine, func(c *pgcache.Cache) {
			if prefix != "" {
				works(t, c)
			}
		})
		unharmed(t)
	})
}

func FuzzSchema(f *testing.F) {
	db := fuzzDatabase(f)
	unharmed := neighbour(f, db, pgcache.Options{Schema: "fuzz"})
	f.Fuzz(func(t *testing.T, schema string) {
		mine := func(object string) bool {
			where := schema
			if where == "" {
				where = "public"
			}
			return object == "schema "+where || strings.HasPrefix(object, "relation "+where+".x_cache_") || strings.HasPrefix(object, "function "+where+".x_cache_")
		}
		tryNames(t, db, pgcache.Options{Schema: schema, Prefix: "x_"}, "Schema", mine, func(c *pgcache.Cache) { works(t, c) })
		unharmed(t)
	})
}

func FuzzChannel(f *testing.F) {
	db := fuzzDatabase(f)
	unharmed := neighbour(f, db, pgcache.Options{Schema: "fuzz"})
	f.Fuzz(func(t *testing.T, channel string) {
		mine := func(object string) bool {
			return strings.HasPrefix(object, "relation fuzz.x_cache_") || strings.HasPrefix(object, "function fuzz.x_cache_")
		}
		o := pgcache.Options{Schema: "fuzz", Prefix: "x_", Channel: channel, InvalidationWindow: pgcache.Immediate, Logger: slog.New(slog.DiscardHandler)}
		tryNames(t, db, o, "Channel", mine, func(c *pgcache.Cache) {
			works(t, c)
			near, err := pgcache.New(db, func() pgcache.Options { o.Listener = pgxdriver.Listener(db); return o }())
			if err != nil {
				t.Fatal(err)
			}
			defer near.Close()
			set(t, c, "k", 1)
			warm(t, near, "k", 1)
			set(t, c, "k", 2)
			eventually(t, "the change arrives", func() bool { v, _ := get[int](t, near, "k"); return v == 2 })
		})
		unharmed(t)
	})
}

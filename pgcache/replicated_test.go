package pgcache_test

import (
	"database/sql"
	"log/slog"
	"testing"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// TestReplicated: a publication of all tables has those of a Durable cache in it, and the database that subscribes has a cache too. No
// node there serves what the subscription has replaced, the subscription goes on, and Doctor says what is wrong.
func TestReplicated(t *testing.T) {
	t.Parallel()
	s, err := pgserver.StartWith(t.Context(), pgserver.Config{Own: true, Settings: map[string]string{"wal_level": "logical"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	admin := testdb.Open(t, "pgx", s.DSN)
	exec := func(db *sql.DB, query string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	node := func(database string) (*pgcache.Cache, *sql.DB) {
		exec(admin, "CREATE DATABASE "+database)
		db := testdb.Open(t, "pgx", testdb.WithParam(s.DSN, "dbname", database))
		cl := &cluster{t: t, db: db, opts: pgcache.Options{Durable: true, CleanupInterval: -1, Logger: slog.New(slog.DiscardHandler)}}
		return cl.on(db, func(o *pgcache.Options) { o.Listener = pgxdriver.Listener(db) }), db
	}
	from, source := node("source")
	to, target := node("target")
	well(t, to, "a cache that nothing replicates to", ofOthers)
	set(t, to, "mine", 1)
	exec(source, "CREATE PUBLICATION p FOR ALL TABLES")
	exec(source, "SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
	exec(target, "CREATE SUBSCRIPTION s CONNECTION '"+testdb.WithParam(s.DSN, "dbname", "source")+"' PUBLICATION p WITH (create_slot = false, copy_data = false)")
	sees := func(key string, wanted int) {
		t.Helper()
		eventually(t, "the other database's node sees it", func() bool {
			v, _ := get[int](t, to, key)
			return v == wanted
		})
	}
	set(t, from, "mine", 10) // an INSERT of a key that is there
	sees("mine", 10)
	set(t, from, "k", 1)
	sees("k", 1)
	warm(t, to, "k", 1)
	set(t, from, "k", 2)
	sees("k", 2)
	if err := from.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	sees("k", 0)
	set(t, from, "k", 3)
	sees("k", 3)
	exec(source, "DELETE FROM cache_entries") // with a tombstone, where the change arrives too
	sees("k", 0)
	set(t, from, "k", 4)
	sees("k", 4)
	if f := finds(t, to, "replicated", "cache_entries", "cache_state"); f.Severity != pgcache.Fault {
		t.Errorf("%+v", f)
	}
	exec(target, "DROP SUBSCRIPTION s")
}

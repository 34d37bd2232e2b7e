package pgcache_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// finds waits until Doctor has a finding of this id whose text has all of has.
func finds(t *testing.T, c *pgcache.Cache, id string, has ...string) pgcache.Finding {
	t.Helper()
	var all []pgcache.Finding
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		var err error
		if all, err = c.Doctor(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			if f.ID == id && !slices.ContainsFunc(has, func(s string) bool { return !strings.Contains(f.What, s) }) {
				if f.Remedy == "" {
					t.Errorf("%+v says not what to do", f)
				}
				return f
			}
		}
		time.Sleep(100 * time.Millisecond) // statistics come late
	}
	t.Errorf("no finding %q %q in %+v", id, has, all)
	return pgcache.Finding{}
}

// well waits until Doctor has no finding but those that may be: a listener or a pulse may be late on a busy machine.
func well(t *testing.T, c *pgcache.Cache, what string, maybe func(f pgcache.Finding) bool) {
	t.Helper()
	var found []pgcache.Finding
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		var err error
		if found, err = c.Doctor(t.Context()); err != nil {
			t.Fatal(err)
		}
		if found = slices.DeleteFunc(found, maybe); len(found) == 0 {
			return
		}
	}
	t.Errorf("%s: %+v", what, found)
}

// ofOthers says that a finding is of other tests.
func ofOthers(f pgcache.Finding) bool { return f.ID == "old-transaction" }

// A cache that is well has no finding of its own, and after each thing that is done to it Doctor names it.
func TestDoctor(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	c := w.node(nil)
	well(t, c, "a new cache", ofOthers)
	finds(t, w.c, "no-listener")

	w.watch(pgcache.TableWatch{Keys: []string{"user:{id}:{name}"}})
	w.exec("ALTER TABLE " + w.name("users") + " DROP COLUMN name")
	finds(t, c, "watch", "users", "column name")
	w.exec("ALTER TABLE " + w.name("users") + " DISABLE TRIGGER ALL")
	finds(t, c, "watch", "disabled")
	w.exec("DROP TABLE " + w.name("users"))
	finds(t, c, "watch", "the table is gone")
	if err := w.c.UnwatchTable(t.Context(), w.name("users")); err != nil {
		t.Fatal(err)
	}

	entries := w.object("cache_entries")
	w.exec("ALTER TABLE " + entries + " DISABLE TRIGGER cache_guard_update")
	finds(t, c, "guards", "do not fire", "cache_guard_update")
	w.exec("DROP TRIGGER cache_guard_update ON " + entries)
	finds(t, c, "guards", "are gone", "cache_guard_update")
	if err := w.c.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	well(t, c, "guards that Migrate has made again", ofOthers)
	w.exec("ALTER TABLE " + entries + " SET (autovacuum_enabled = off)")
	finds(t, c, "autovacuum", entries[:strings.Index(entries, ".")])
	w.exec("CREATE INDEX ON " + entries + " (written_at)")
	w.exec("INSERT INTO " + entries + " (key, value) SELECT i::text, '1' FROM generate_series(1, 6000) i")
	w.exec("UPDATE " + entries + " SET written_at = written_at + interval '1 second'")
	w.counted(6000)
	finds(t, c, "hot-updates", "of 6000 updates")
	w.exec("UPDATE " + entries + " SET written_at = written_at + interval '1 second'")
	w.counted(12000)
	finds(t, c, "dead-rows", "dead rows")

	w.exec("ALTER TABLE " + entries + " SET LOGGED")
	finds(t, w.node0(), "persistence", "is LOGGED")
	w.exec("UPDATE " + w.object("cache_state") + " SET schema_version = 1")
	if f := finds(t, w.node0(), "schema", "version 1"); f.Severity != pgcache.Fault || f.Severity.String() != "fault" {
		t.Error(f)
	}
}

// counted waits until the statistics have so many updates of entries. A session of PostgreSQL 14 reports what it did with a later statement.
func (w *watched) counted(updates int) {
	w.t.Helper()
	eventually(w.t, "the updates are counted", func() bool {
		return w.count("SELECT n_tup_upd FROM pg_stat_user_tables WHERE relid = '"+w.object("cache_entries")+"'::regclass") >= updates
	})
}

// node0 returns a node that is not waited for.
func (w *watched) node0() *pgcache.Cache { return w.new(testdb.DB(w.t), nil) }

// What a node has to say of itself and of its sessions.
func TestDoctor_Node(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	cl.on(testdb.DB(t), nil)
	db := testdb.Open(t, "pgx", testdb.WithParam(testdb.DSN(t), "default_transaction_read_only", "on"))
	c := cl.new(db, func(o *pgcache.Options) { o.Listener = pgxdriver.Listener(db) })
	finds(t, c, "read-only")
	off := testdb.Open(t, "pgx", testdb.WithParam(testdb.DSN(t), "track_counts", "off"))
	finds(t, cl.new(off, nil), "track-counts")
	hides := cl.new(testdb.DB(t), func(o *pgcache.Options) { o.HideKeys = true })
	finds(t, hides, "schema", "HideKeys")
	lost := cl.new(testdb.DB(t), func(o *pgcache.Options) { o.Listener = pgxdriver.Listener(db); o.Channel = "other" })
	finds(t, lost, "listener")
	finds(t, lost, "schema", "channel")

	small := testdb.Open(t, "pgx", testdb.DSN(t))
	small.SetMaxOpenConns(4)
	waits := cl.new(small, nil)
	var results []func() error
	for range 150 {
		results = append(results, async(t, func() error { _, err := small.Exec("SELECT pg_sleep(0.02)"); return err }))
	}
	for _, r := range results {
		if err := r(); err != nil {
			t.Fatal(err)
		}
	}
	finds(t, waits, "pool", "of 4 connections")
	if _, err := pgcache.Null().Doctor(t.Context()); err != nil {
		t.Error(err)
	}
}

// A role that lacks a right is told which, and what it can't see is said.
func TestDoctor_Roles(t *testing.T) {
	t.Parallel()
	w := newRights(t, "own", "P1_")
	w.migrated()
	app := w.on(w.as("pgx", "app"), nil)
	well(t, app, "the application's role", func(f pgcache.Finding) bool {
		return f.Severity <= pgcache.Note && (f.ID != "unseen" || !strings.Contains(f.What, "could not look"))
	})
	finds(t, app, "unseen", "sessions of other roles")
	w.exec("REVOKE DELETE ON " + w.object("cache_changes") + " FROM app" + w.suffix)
	finds(t, app, "rights", "DELETE on "+w.object("cache_changes"))
	w.exec("REVOKE SELECT ON " + w.object("cache_watches") + " FROM app" + w.suffix)
	finds(t, app, "unseen", "the watched tables")
}

// What follows from a finding is none of its own: without tables the listener can't be live.
func TestDoctor_NoTables(t *testing.T) {
	t.Parallel()
	c := newCluster(t).start(nil)
	found, err := c.Doctor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].ID != "schema" {
		t.Errorf("%+v", found)
	}
}

// Settings of a role or a database that change how the server writes and reads texts are no fault, and nothing fails with them.
func TestDoctor_OddSettings(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	w.watch(pgcache.TableWatch{Keys: []string{"user:{id}:{name}"}})
	cl := w.cluster
	dsn := testdb.DSN(t)
	for _, s := range [][2]string{
		{"quote_all_identifiers", "on"},
		{"bytea_output", "escape"},
		{"DateStyle", "SQL, DMY"},
		{"IntervalStyle", "sql_standard"},
		{"extra_float_digits", "-15"},
		{"array_nulls", "off"},
		{"TimeZone", "Pacific/Chatham"},
		{"default_transaction_isolation", "serializable"},
	} {
		dsn = testdb.WithParam(dsn, s[0], s[1])
	}
	for _, driver := range []string{"pgx", "postgres"} {
		db := testdb.Open(t, driver, dsn)
		c := cl.new(db, func(o *pgcache.Options) { o.Listener = pgxdriver.ListenerDSN(dsn) })
		ready, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := c.Ready(ready); err != nil {
			t.Fatalf("%s: %v", driver, err)
		}
		well(t, c, driver, ofOthers)
		for name, err := range everything(t.Context(), c) {
			if err != nil {
				t.Errorf("%s: %s: %v", driver, name, err)
			}
		}
	}
}

func ExampleCache_Doctor() {
	c := pgcache.Null()
	findings, err := c.Doctor(context.Background())
	if err != nil {
		fmt.Println(err)
	}
	for _, f := range findings {
		fmt.Printf("%s: %s. %s.\n", f.Severity, f.What, f.Remedy)
	}
	// Output:
}

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
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// The blocks on the page are enough: the application role does everything, with each driver and each transport.
func TestRights_Application(t *testing.T) {
	t.Parallel()
	forNames(t, func(t *testing.T, w *rightsWorld) {
		w.migrated()
		ctx := t.Context()
		for name, kind := range map[string]struct {
			driver string
			window time.Duration
			listen func(db *sql.DB) pgcache.Listener
		}{
			"window":    {"pgx", 0, pgxdriver.Listener},
			"immediate": {"pgx", pgcache.Immediate, pgxdriver.Listener},
			"lib/pq":    {"postgres", 0, func(*sql.DB) pgcache.Listener { return listenerOf("postgres", nil, w.dsnOf("app")) }},
			"poll":      {"pgx", 0, func(*sql.DB) pgcache.Listener { return listener.Poll(5 * time.Millisecond) }},
			"none":      {"pgx", 0, func(*sql.DB) pgcache.Listener { return nil }},
		} {
			node := func() *pgcache.Cache {
				db := w.as(kind.driver, "app")
				return w.on(db, func(o *pgcache.Options) {
					o.InvalidationWindow, o.Listener, o.Refresh = kind.window, kind.listen(db), true
					o.CleanupInterval, o.MaxRows = 20*time.Millisecond, 50
				}) // Migrate finds nothing to do
			}
			a, b := node(), node()
			for range 2 { // the second time over rows that exist
				for call, err := range everything(ctx, a) {
					if err != nil {
						t.Errorf("%s, %s: %v", name, call, err)
					}
				}
			}
			many := map[string]int{}
			for i := range 100 {
				many[rand.Text()] = i
			}
			if err := pgcache.For[int](a).SetMany(ctx, many); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			eventually(t, name+": the janitor keeps the table to its bounds", func() bool {
				return w.count("SELECT count(*) FROM "+w.object("cache_entries")+" WHERE value IS NOT NULL") <= 50
			})
			tx, err := w.db.BeginTx(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.ExecContext(ctx, "SET LOCAL ROLE app"+w.suffix); err != nil {
				t.Fatal(err)
			}
			inTx := a.WithTx(tx)
			_, got := inTx.Get(ctx, "tx", new(int))
			if err := errors.Join(inTx.Set(ctx, "tx", 1), inTx.Delete(ctx, "tx"), got, tx.Commit()); err != nil {
				t.Errorf("%s, in a transaction: %v", name, err)
			}
			set(t, a, name, 1)
			if name != "none" {
				warm(t, b, name, 1)
			}
			set(t, a, name, 2)
			eventually(t, name+": b gets what a has set", func() bool { v, found := get[int](t, b, name); return found && v == 2 })
			reader, err := w.db.BeginTx(ctx, nil) // who reads the table keeps Clear from truncating it
			if err != nil {
				t.Fatal(err)
			}
			if _, err := reader.ExecContext(ctx, "SELECT FROM "+w.object("cache_entries")); err != nil {
				t.Fatal(err)
			}
			if err := a.Clear(ctx); err != nil {
				t.Errorf("%s: Clear beside a reader: %v", name, err)
			}
			if err := reader.Rollback(); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(a.Close(), b.Close()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		// The log is emptied by who does not own it.
		if _, err := w.as("pgx", "app").ExecContext(ctx, "SELECT "+w.object("cache_flush")+"('', 1, 1, true)"); err != nil {
			t.Error(err)
		}
		if n := w.count("SELECT count(*) FROM " + w.object("cache_changes")); n != 0 {
			t.Errorf("%d changes are left in the log", n)
		}
	})
}

// A reader Gets, from memory too, and is coherent; all that writes is refused by the server.
func TestRights_Reader(t *testing.T) {
	t.Parallel()
	forNames(t, func(t *testing.T, w *rightsWorld) {
		owner := w.migrated()
		ctx := t.Context()
		db := w.as("pgx", "reader")
		var log logBuffer
		reading := func(o *pgcache.Options) {
			o.CleanupInterval, o.Listener, o.Refresh, o.Logger = -1, pgxdriver.Listener(db), true, slog.New(slog.NewTextHandler(&log, nil))
		}
		set(t, owner, "k", 1)
		r := w.on(db, reading) // Migrate finds nothing to do
		for v := range 3 {
			set(t, owner, "k", v)
			warm(t, r, "k", v)
		}
		if err := r.GetOrSet(ctx, "k", new(int), noLoad(t)); err != nil {
			t.Error(err)
		}
		if n := strings.Count(log.String(), "may only read"); n != 1 {
			t.Errorf("said %d times that it may only read:\n%s", n, log.String())
		}
		errs := map[string]error{
			"set": r.Set(ctx, "k", 9), "delete": r.Delete(ctx, "k"), "clear": r.Clear(ctx),
			"get or set": r.GetOrSet(ctx, "none", new(int), func(context.Context) (any, error) { return 1, nil }),
			"set many":   pgcache.For[int](r).SetMany(ctx, map[string]int{"a": 1, "b": 2}),
		}
		_, errs["cleanup"] = r.Cleanup(ctx)
		for name, err := range errs {
			var e *pgcache.Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), "permission denied") || !strings.Contains(err.Error(), "docs/rights.md") {
				t.Errorf("%s: %v", name, err)
			}
		}
		want(t, owner, "k", 2)
		w.ready(r) // still

		// What is published by nobody it can't publish. It forgets, until somebody has.
		if err := owner.Close(); err != nil {
			t.Fatal(err)
		}
		w.exec("INSERT INTO " + w.object("cache_changes") + " (key, version, logged_at) VALUES ('x', 1, clock_timestamp() - interval '1 hour')")
		eventually(t, "a pulse finds an old change", func() bool { return r.Stats().Unpublished > 0 })
		warm(t, r, "k", 2)
		w.exec("DELETE FROM " + w.object("cache_changes"))

		// After a crash there is no incarnation, and the reader can't make one.
		w.exec("DELETE FROM " + w.object("cache_incarnation"))
		again := w.new(db, reading)
		w.ready(again)
		warm(t, again, "k", 2)

		// It can't poll, and says so at once.
		polling := w.new(db, func(o *pgcache.Options) { reading(o); o.Listener = listener.Poll(0) })
		soon, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := polling.Ready(soon); err == nil || !strings.Contains(err.Error(), "can't poll") || soon.Err() != nil {
			t.Errorf("Ready of a reader that polls: %v", err)
		}
		// Without a Listener it needs less.
		w.exec("REVOKE SELECT (logged_at) ON " + w.object("cache_changes") + " FROM reader" + w.suffix + "; REVOKE SELECT (id) ON " + w.object("cache_incarnation") + " FROM reader" + w.suffix)
		w.ready(w.new(db, func(o *pgcache.Options) { reading(o); o.Listener = nil }))
		wantLacks(t, w.new(db, reading).Ready(ctx), "reader"+w.suffix, "SELECT (id) on "+w.full("cache_incarnation"), "SELECT (logged_at) on "+w.full("cache_changes"))
		// With the janitor it is not meant to only read.
		err := w.new(db, func(o *pgcache.Options) { reading(o); o.CleanupInterval = 0 }).Ready(ctx)
		if err == nil || !strings.Contains(err.Error(), "INSERT on "+w.full("cache_entries")) || !strings.Contains(err.Error(), "EXECUTE on "+w.full("cache_flush")) {
			t.Errorf("with the janitor: %v", err)
		}
	})
}

// Each right of the application's is taken away in turn: Ready names it.
func TestRights_ReadyNamesEach(t *testing.T) {
	t.Parallel()
	forNames(t, func(t *testing.T, w *rightsWorld) {
		w.migrated()
		ctx, role := t.Context(), "app"+w.suffix
		for _, driver := range testdb.Drivers(t) {
			db := w.as(driver, "app")
			ready := func() error { return w.new(db, nil).Ready(ctx) }
			if err := ready(); err != nil {
				t.Fatal(err)
			}
			single := w.singles("app")
			if len(single) < 20 {
				t.Errorf("only %d rights: %q", len(single), single)
			}
			for _, right := range single {
				w.exec("REVOKE " + right + " FROM " + role)
				err := ready()
				w.exec("GRANT " + right + " TO " + role)
				var e *pgcache.RightsError
				if !errors.As(err, &e) || len(e.Lacks) != 1 || e.Role != role {
					t.Errorf("without %s: %v", right, err)
					continue
				}
				squeeze := strings.NewReplacer("public.", "", "ON FUNCTION", "on", "ON SCHEMA", "on schema", "ON ", "on", `"`, "", "public", "P", "own.", "")
				if got, want := squeeze.Replace(e.Lacks[0]), squeeze.Replace(right); !strings.HasPrefix(got, strings.TrimSuffix(want, ")")) {
					t.Errorf("without %s it lacks %s", right, e.Lacks[0])
				}
			}
			// All at once, before the first statement gets through.
			w.exec("REVOKE ALL ON ALL TABLES IN SCHEMA " + w.schema() + " FROM " + role + "; REVOKE USAGE ON SCHEMA " + w.schema() + " FROM " + role)
			var e *pgcache.RightsError
			if err := ready(); !errors.As(err, &e) || len(e.Lacks) != 27 || e.Lacks[0] != "USAGE on schema "+w.schema() {
				t.Errorf("without any on tables: %v", err)
			}
			w.exec(w.blocks["app"])
			if err := ready(); err != nil {
				t.Fatal(err)
			}
		}
		// A cache that has been Ready looks again after it was refused something.
		db := w.as("pgx", "app")
		c := w.on(db, nil)
		w.exec("REVOKE DELETE ON " + w.object("cache_changes") + " FROM " + role)
		w.exec("REVOKE INSERT ON " + w.object("cache_entries") + " FROM " + role)
		if err := c.Set(ctx, "k", 1); err == nil || !strings.Contains(err.Error(), "docs/rights.md") {
			t.Error(err)
		}
		wantLacks(t, c.Ready(ctx), role, "INSERT on "+w.full("cache_entries"), "DELETE on "+w.full("cache_changes"))
	})
}

// Another service writes through the functions, and can read nothing; its writes are published.
func TestRights_OtherService(t *testing.T) {
	t.Parallel()
	forNames(t, func(t *testing.T, w *rightsWorld) {
		w.migrated()
		app := w.as("pgx", "app")
		c := w.on(app, func(o *pgcache.Options) { o.Listener = pgxdriver.Listener(app) })
		for _, driver := range testdb.Drivers(t) {
			db := w.as(driver, "other_service")
			set(t, c, "k", 0)
			warm(t, c, "k", 0)
			do := func(query string) error { _, err := db.ExecContext(t.Context(), query); return err }
			if err := do("SELECT " + w.object("cache_set") + "('k', '7', interval '1 minute')"); err != nil {
				t.Fatal(err)
			}
			eventually(t, "its value is seen", func() bool { v, _ := get[int](t, c, "k"); return v == 7 })
			if err := do("SELECT " + w.object("cache_delete") + "('k')"); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is deleted", func() bool { _, found := get[int](t, c, "k"); return !found })
			for _, query := range []string{
				"SELECT value FROM " + w.object("cache_entries"), "SELECT count(*) FROM " + w.object("cache_entries"), "TABLE " + w.object("cache_notices"),
				"TABLE " + w.object("cache_changes"), "TABLE " + w.object("cache_state"), "DELETE FROM " + w.object("cache_entries"),
				"INSERT INTO " + w.object("cache_changes") + " (key, version) VALUES ('k', 0)", "SELECT " + w.object("cache_truncate") + "()",
				"SELECT " + w.object("cache_flush") + "('', 1, 1, false)", "SELECT " + w.object("cache_changed") + "('')",
				"SELECT " + w.object("cache_publish") + "('2', '', '{*}')", "SELECT * FROM " + w.object("cache_look") + "(pg_backend_pid(), 1, '{}', '{k}', 1, false)",
			} {
				if err := do(query); err == nil || !strings.Contains(err.Error(), "permission denied") {
					t.Errorf("%s: %v", query, err)
				}
			}
		}
	})
}

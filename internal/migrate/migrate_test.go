package migrate_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/pgcache/go/internal/migrate"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

func names(t *testing.T) store.Names {
	t.Helper()
	n, err := store.Names{Schema: testdb.Schema(t), Prefix: "m_"}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAll(t *testing.T) {
	t.Parallel()
	n, err := store.Names{Schema: "S1", Prefix: "P1_", Channel: "C1"}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	all := migrate.All(n)
	if len(all) == 0 || migrate.Latest() != len(all) || all[0].Name != "entries" {
		t.Fatal(all)
	}
	bare := regexp.MustCompile(`(^|[^\w"])cache_\w+`)
	comment := regexp.MustCompile(`--[^\n]*`)
	for i, m := range all {
		if m.Version != i+1 || m.Name == "" || strings.ContainsAny(m.Name, " ./") {
			t.Errorf("%d: %+v", i, m)
		}
		if strings.Contains(m.SQL, "TEMPLATE: prefix") || strings.Contains(m.SQL, "TEMPLATE: channel") {
			t.Errorf("%s: a template is left", m.Name)
		}
		text := strings.ReplaceAll(comment.ReplaceAllString(m.SQL, ""), "RAISE EXCEPTION 'cache_set", "")
		for _, name := range bare.FindAllString(text, -1) {
			if !strings.Contains(name, "cache_guard_") { // triggers belong to their table
				t.Errorf("%s: %q without schema and prefix", m.Name, name)
			}
		}
		if strings.Contains(text, "timezone(") {
			t.Errorf("%s: timezone()", m.Name)
		}
		if !strings.Contains(m.SQL, `"S1"."P1_cache_state"`) {
			t.Errorf("%s does not record itself", m.Name)
		}
	}
	if text := all[0].SQL; !strings.Contains(text, "'C1'") || !strings.Contains(text, "UNLOGGED TABLE") {
		t.Error(text)
	}
	n.Durable = true
	if strings.Contains(migrate.All(n)[0].SQL, "UNLOGGED TABLE \"S1\".\"P1_cache_entries\"") {
		t.Error("Durable is unlogged")
	}
}

// Any number at once, by both drivers; and a step that failed leaves nothing, and can be done again.
func TestRun(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"pgx", "postgres"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			ctx, n := t.Context(), names(t)
			db := testdb.Open(t, driver, testdb.DSN(t))
			s := store.New(db, n, 0, false)
			have := func(want int) {
				t.Helper()
				if have, err := migrate.Have(ctx, s); err != nil || have != want {
					t.Fatalf("have %d, %v; want %d", have, err, want)
				}
			}
			have(0)
			exec := func(query string) {
				t.Helper()
				if _, err := db.ExecContext(ctx, query); err != nil {
					t.Fatal(err)
				}
			}
			// In the way of the second step.
			exec(fmt.Sprintf("CREATE FUNCTION %s.m_cache_item(key text, secret bytea, versions text) RETURNS int LANGUAGE sql AS 'SELECT 1'", n.Schema))
			err := migrate.Run(ctx, db, n)
			if err == nil || !strings.Contains(err.Error(), "migration 2 (changes)") || !strings.Contains(err.Error(), "return type") {
				t.Fatal(err)
			}
			have(1)
			exec(fmt.Sprintf("DROP FUNCTION %s.m_cache_item", n.Schema))
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() {
					if err := migrate.Run(ctx, db, n); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			have(migrate.Latest())
			// A newer one is left alone.
			exec("UPDATE " + n.State() + " SET schema_version = 1000")
			if err := migrate.Run(ctx, db, n); err != nil {
				t.Error(err)
			}
			have(1000)
			// A row that somebody removed is not guessed at.
			exec("DELETE FROM " + n.State())
			if err := migrate.Run(ctx, db, n); err == nil || !strings.Contains(err.Error(), "empty") {
				t.Error(err)
			}
			// Two ends of a context.
			ended, cancel := context.WithCancel(ctx)
			cancel()
			if err := migrate.Run(ended, db, n); err == nil {
				t.Error("migrated with an ended context")
			}
		})
	}
}

// TestForeign: a table of somebody else's under one of our names stays as it is.
func TestForeign(t *testing.T) {
	t.Parallel()
	db := testdb.DB(t)
	all := store.Names{}.Tables()
	for i := range all[:] {
		n := names(t)
		table := n.Tables()[i]
		if _, err := db.Exec("CREATE TABLE " + table + " (key text, note text)"); err != nil {
			t.Fatal(err)
		}
		if err := migrate.Run(t.Context(), db, n); err == nil || !strings.Contains(err.Error(), table) {
			t.Error(err)
		}
		var objects int
		if err := db.QueryRow("SELECT count(*) FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind = 'r'", n.Schema).Scan(&objects); err != nil || objects != 1 {
			t.Error(objects, err)
		}
	}
}

package pgcache_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pgcache/go/driver/drivertest"
	"github.com/pgcache/go/internal/dbsqlc"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// The suite of the drivers, as the application role.
func TestRights_Exercise(t *testing.T) {
	block, suffix := grants(t)["app"], "_"+strings.ToLower(rand.Text()[:12])
	admin := testdb.DB(t)
	if _, err := admin.ExecContext(t.Context(), "CREATE ROLE app"+suffix+" LOGIN"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := admin.ExecContext(context.WithoutCancel(t.Context()), "DROP ROLE app"+suffix); err != nil {
			t.Error(err)
		}
	})
	var database string
	if err := admin.QueryRowContext(t.Context(), "SELECT current_database()").Scan(&database); err != nil {
		t.Fatal(err)
	}
	for _, driver := range testdb.Drivers(t) {
		as := func(dsn string) string { // the role's, with the name that the suite gives the session
			name := regexp.MustCompile(`application_name='?(\w+)`).FindStringSubmatch(dsn)[1]
			if strings.HasSuffix(name, "_look") { // looks into everything
				return dsn
			}
			return testdb.WithParam(dsnOf(t, "app"+suffix, database), "application_name", name)
		}
		drivertest.Exercise(t, testdb.DSN(t), drivertest.Factory{
			Name: driver,
			Open: func(tb testing.TB, dsn string) *sql.DB { return testdb.Open(tb, driver, as(dsn)) },
			Listener: func(_ testing.TB, db *sql.DB, dsn string) pgcache.Listener {
				return listenerOf(driver, db, as(dsn))
			},
			Migrated: func(tb testing.TB, look *sql.DB, schema, prefix string) {
				tb.Helper()
				c, err := pgcache.New(look, pgcache.Options{Schema: schema, Prefix: prefix, CleanupInterval: -1, Logger: slog.New(slog.DiscardHandler)})
				if err != nil {
					tb.Fatal(err)
				}
				err = c.Migrate(tb.Context())
				if err == nil {
					_, err = look.ExecContext(tb.Context(), renamed(block, suffix, schema, prefix))
				}
				if err := errors.Join(err, c.Close()); err != nil {
					tb.Fatal(err)
				}
			},
		})
	}
}

// EXECUTE on a function of ours is nobody's until it is granted, and what runs with its owner's rights has a fixed
// search_path that ends with the caller's temporary schema.
func TestRights_Functions(t *testing.T) {
	t.Parallel()
	forNames(t, func(t *testing.T, w *rightsWorld) {
		w.migrated()
		w.exec("CREATE ROLE nobody" + w.suffix)
		defer w.exec("DROP ROLE nobody" + w.suffix)
		rows, err := w.db.Query(`SELECT proname, prosecdef, has_function_privilege($2, oid, 'EXECUTE'),
			coalesce((SELECT bool_or(a.grantee = 0) FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) a), false),
			coalesce((SELECT c FROM unnest(proconfig) c WHERE c LIKE 'search_path=%'), '')
			FROM pg_proc WHERE pronamespace = $1::text::regnamespace ORDER BY 1`, w.schema(), "nobody"+w.suffix)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		n, definers := 0, 0
		page := rightsPage(t)
		for rows.Next() {
			var name, path string
			var definer, executes, public bool
			if err := rows.Scan(&name, &definer, &executes, &public, &path); err != nil {
				t.Fatal(err)
			}
			n++
			// Every read and every write asks these. They run with the caller's rights and read cache_groups alone.
			reads := slices.Contains([]string{"cache_common", "cache_dead", "cache_removals", "cache_seen"}, strings.TrimPrefix(name, w.opts.Prefix))
			if (executes || public) && !reads {
				t.Errorf("PUBLIC may call %s", name)
			}
			if want := "search_path=" + w.schema() + ", pg_temp"; definer && path != want {
				t.Errorf("%s runs with its owner's rights and has %q, want %q", name, path, want)
			}
			if definer {
				definers++
			}
			if !strings.Contains(page, "`"+strings.TrimPrefix(name, w.opts.Prefix)+"`") {
				t.Errorf("docs/rights.md does not say what %s is for", name)
			}
		}
		if err := rows.Err(); err != nil || n < 15 || definers < 5 {
			t.Error(n, definers, err)
		}
	})
}

// The page has every statement of the library.
func TestRights_Statements(t *testing.T) {
	t.Parallel()
	page := rightsPage(t)
	files, err := os.ReadDir("../sqlc/queries")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile("../sqlc/queries/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^-- name: (\w+) :`).FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(page, "`"+m[1]+"`") {
				t.Errorf("docs/rights.md does not say what %s needs", m[1])
			}
		}
	}
	if !slices.Contains(strings.Fields(dbsqlc.Pulse), "SELECT") {
		t.Error("the statements are elsewhere")
	}
}

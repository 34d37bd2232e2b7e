package pgcache_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/driver/drivertest"
	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/dbsqlc"
	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// rightsPage is the page that users copy from.
func rightsPage(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../docs/rights.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// grants returns the blocks of SQL on the page, by the roles that they are for.
func grants(t *testing.T) map[string]string {
	t.Helper()
	blocks := map[string]string{}
	role := regexp.MustCompile(`TO (\w+);`)
	for _, m := range regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllStringSubmatch(rightsPage(t), -1) {
		blocks[role.FindStringSubmatch(m[1])[1]] = m[1]
	}
	for _, r := range []string{"migrator", "app", "reader", "other_service"} {
		if blocks[r] == "" {
			t.Fatalf("docs/rights.md has no block for %s", r)
		}
	}
	return blocks
}

// rightsWorld is a database of its own with roles that log in.
type rightsWorld struct {
	*cluster
	dsn    string // an administrator's
	suffix string // of the roles' names
	blocks map[string]string
}

// newRights makes the database and the roles. With a schema and a prefix the blocks are changed as the page says.
func newRights(t *testing.T, schema, prefix string) *rightsWorld {
	t.Helper()
	w := &rightsWorld{suffix: "_" + strings.ToLower(rand.Text()[:12]), blocks: map[string]string{}}
	admin := testdb.DB(t)
	exec := func(query string) {
		t.Helper()
		if _, err := admin.ExecContext(context.WithoutCancel(t.Context()), query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	blocks := grants(t)
	for role := range blocks {
		exec("CREATE ROLE " + role + w.suffix + " LOGIN")
		t.Cleanup(func() { exec("DROP ROLE " + role + w.suffix) })
	}
	exec("CREATE DATABASE d" + w.suffix + " TEMPLATE template0")
	t.Cleanup(func() { exec("DROP DATABASE d" + w.suffix + " WITH (FORCE)") })
	w.dsn = dsnOf(t, "", "d"+w.suffix)
	w.cluster = &cluster{t: t, db: testdb.Open(t, "pgx", w.dsn)}
	w.opts = pgcache.Options{Schema: schema, Prefix: prefix, Logger: slog.New(slog.DiscardHandler)}
	for role, block := range blocks {
		w.blocks[role] = renamed(block, w.suffix, schema, prefix)
	}
	t.Cleanup(func() { w.db.Close() }) // before the database is dropped
	if schema != "" {
		w.exec("CREATE SCHEMA " + schema)
	}
	return w
}

var (
	roleNames   = regexp.MustCompile(`\b(migrator|app|reader|other_service)\b`)
	objectNames = regexp.MustCompile(`\bcache_\w+`)
)

// renamed is a block for roles of other names, and for other names than the default ones, as the page says.
func renamed(block, suffix, schema, prefix string) string {
	block = roleNames.ReplaceAllString(block, "${1}"+suffix)
	if schema != "" {
		block = strings.ReplaceAll(block, "SCHEMA public", "SCHEMA "+schema)
		block = objectNames.ReplaceAllString(block, schema+`."`+prefix+`${0}"`)
	}
	return block
}

// as returns a pool of a role's.
func (w *rightsWorld) as(driver, role string) *sql.DB {
	w.t.Helper()
	return testdb.Open(w.t, driver, w.dsnOf(role))
}

func (w *rightsWorld) dsnOf(role string) string {
	w.t.Helper()
	return dsnOf(w.t, role+w.suffix, "d"+w.suffix)
}

// dsnOf leads to another database of the test's server, as another role unless it is empty.
func dsnOf(t *testing.T, role, database string) string {
	t.Helper()
	dsn := testdb.DSN(t)
	if !pgserver.IsURL(dsn) {
		if dsn = testdb.WithParam(dsn, "dbname", database); role != "" {
			dsn = testdb.WithParam(dsn, "user", role)
		}
		return dsn
	}
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if u.Path = "/" + database; role != "" {
		u.User = url.User(role)
	}
	return u.String()
}

// migrated has the migrating role migrate, and gives the others their rights.
func (w *rightsWorld) migrated() *pgcache.Cache {
	w.t.Helper()
	w.exec(w.blocks["migrator"])
	owner := w.on(w.as("pgx", "migrator"), nil)
	for _, role := range []string{"app", "reader", "other_service"} {
		w.exec(w.blocks[role])
	}
	return owner
}

// object is the name of one of the objects.
func (w *rightsWorld) object(name string) string {
	if w.opts.Schema == "" {
		return name
	}
	return w.cluster.object(name)
}

func forNames(t *testing.T, test func(t *testing.T, w *rightsWorld)) {
	t.Helper()
	for name, n := range map[string][2]string{"default names": {}, "schema and prefix": {"own", "P1_"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newRights(t, n[0], n[1]))
		})
	}
}

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

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

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
	for _, driver := range []string{"pgx", "postgres"} {
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
		soon, cancel := context.WithTimeout(ctx, 10*time.Second)
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

// full is the name of an object as errors have it.
func (w *rightsWorld) full(name string) string {
	if w.opts.Schema == "" {
		return "public." + name
	}
	return w.object(name)
}

// wantLacks fails unless err names exactly these rights.
func wantLacks(t *testing.T, err error, role string, rights ...string) {
	t.Helper()
	var e *pgcache.RightsError
	if !errors.As(err, &e) {
		t.Errorf("%v, want a *RightsError", err)
		return
	}
	if diff := cmp.Diff(rights, e.Lacks); diff != "" || e.Role != role {
		t.Errorf("%s lacks: %s", e.Role, diff)
	}
	for _, r := range rights {
		if !strings.Contains(err.Error(), r) || !strings.Contains(err.Error(), "docs/rights.md") || !strings.Contains(err.Error(), role) {
			t.Errorf("the error reads %q", err)
		}
	}
}

// Each right of the application's is taken away in turn: Ready names it.
func TestRights_ReadyNamesEach(t *testing.T) {
	t.Parallel()
	forNames(t, func(t *testing.T, w *rightsWorld) {
		w.migrated()
		ctx, role := t.Context(), "app"+w.suffix
		for _, driver := range []string{"pgx", "postgres"} {
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
			if err := ready(); !errors.As(err, &e) || len(e.Lacks) != 18 || e.Lacks[0] != "USAGE on schema "+w.schema() {
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

func (w *rightsWorld) schema() string {
	if w.opts.Schema == "" {
		return "public"
	}
	return w.opts.Schema
}

// singles cuts the GRANTs of a block into single rights. USAGE in public is PUBLIC's, too.
func (w *rightsWorld) singles(role string) (rights []string) {
	w.t.Helper()
	grant := regexp.MustCompile(`(?s)GRANT (.*?) ON (FUNCTION|SCHEMA|)\s*(.*?)\s+TO `)
	for _, m := range grant.FindAllStringSubmatch(w.blocks[role], -1) {
		what, objects := []string{m[1]}, []string{strings.TrimSpace(m[3])}
		switch m[2] {
		case "FUNCTION":
			objects = regexp.MustCompile(`[\w."]+\([^)]*\)`).FindAllString(m[3], -1)
		case "SCHEMA":
			w.exec("REVOKE USAGE, CREATE ON SCHEMA " + m[3] + " FROM PUBLIC")
		default:
			what = regexp.MustCompile(`\w+( \([^)]*\))?`).FindAllString(m[1], -1)
		}
		for _, p := range what {
			for _, o := range objects {
				rights = append(rights, p+" ON "+m[2]+" "+o)
			}
		}
	}
	return rights
}

// Another service writes through the functions, and can read nothing; its writes are published.
func TestRights_OtherService(t *testing.T) {
	t.Parallel()
	forNames(t, func(t *testing.T, w *rightsWorld) {
		w.migrated()
		app := w.as("pgx", "app")
		c := w.on(app, func(o *pgcache.Options) { o.Listener = pgxdriver.Listener(app) })
		for _, driver := range []string{"pgx", "postgres"} {
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
				"SELECT " + w.object("cache_publish") + "('2', '', '{*}')", "SELECT * FROM " + w.object("cache_look") + "(pg_backend_pid(), 1, '{}', '{k}')",
			} {
				if err := do(query); err == nil || !strings.Contains(err.Error(), "permission denied") {
					t.Errorf("%s: %v", query, err)
				}
			}
		}
	})
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
			if executes || public {
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

// The library's mark, which keeps its own DELETEs from the guards, ends with the function that sets it: what the transaction
// does after that is noticed.
func TestUpkeepEndsWithItsFunction(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	for i, call := range []string{
		"cache_clear('-infinity', 10)", "cache_clear_waiting('-infinity')", "cache_clear_waiting('infinity')", "cache_expire(0, 64, '-infinity', 10, true)", "cache_truncate()",
	} {
		set(t, c, "first", i)
		tx, err := cl.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, query := range []string{
			"SELECT " + cl.object(call[:strings.Index(call, "(")]) + call[strings.Index(call, "("):],
			"INSERT INTO " + cl.table() + " (key, value) VALUES ('k', '1') ON CONFLICT (key) DO UPDATE SET value = '1'",
			"DELETE FROM " + cl.table() + " WHERE key = 'k'",
		} {
			if _, err := tx.ExecContext(t.Context(), query); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if n := cl.count("SELECT count(*) FROM " + cl.table() + " WHERE key = 'k' AND value IS NULL"); n != 1 {
			t.Errorf("after %s a DELETE by hand leaves no tombstone", call)
		}
		cl.exec("TRUNCATE " + cl.table())
	}
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

// Ready does not say that all is well with a table of another persistence, nor with one that is missing.
func TestReadyLooksAtTables(t *testing.T) {
	t.Parallel()
	for _, durable := range []bool{false, true} {
		cl := newCluster(t)
		cl.opts.Durable = durable
		cl.node(nil)
		cl.opts.Durable = !durable
		began := time.Now()
		err := cl.new(cl.db, nil).Ready(t.Context())
		if err == nil || !strings.Contains(err.Error(), "ALTER TABLE") || time.Since(began) > 5*time.Second {
			t.Fatalf("Durable %v: %v", durable, err)
		}
		cl.exec(err.Error()[strings.Index(err.Error(), "ALTER TABLE"):strings.Index(err.Error(), ", which")])
		cl.ready(cl.new(cl.db, nil))
	}
	for _, drop := range []string{"TABLE %s.t_cache_incarnation", "FUNCTION %s.t_cache_writers()", "TABLE %s.t_cache_notices", "FUNCTION %s.t_cache_look(int, int, int[], text[])"} {
		cl := newCluster(t)
		cl.node(nil)
		cl.exec("DROP " + strings.Replace(drop, "%s", cl.opts.Schema, 1))
		c := cl.new(cl.db, nil)
		wantErr(t, c.Ready(t.Context()), pgcache.ErrNotMigrated)
		if err := c.Migrate(t.Context()); err != nil { // makes it again
			t.Error(err)
		}
		cl.ready(c)
		for call, err := range everything(t.Context(), c) {
			if err != nil {
				t.Errorf("after DROP %s, %s: %v", drop, call, err)
			}
		}
	}
}

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
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/internal/testdb"
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

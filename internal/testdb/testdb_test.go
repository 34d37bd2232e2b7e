package testdb_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgcache/go/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// pairs returns dsn as key=value pairs.
func pairs(t *testing.T, dsn string) string {
	t.Helper()
	c, err := pgconn.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	mode := "require"
	if c.TLSConfig == nil {
		mode = "disable"
	}
	return fmt.Sprintf("host='%s' port=%d user='%s' password='%s' dbname='%s' sslmode=%s",
		c.Host, c.Port, c.User, c.Password, c.Database, mode)
}

func scan(t *testing.T, db *sql.DB, query string, args ...any) string {
	t.Helper()
	var s string
	if err := db.QueryRowContext(t.Context(), query, args...).Scan(&s); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return s
}

func TestSchemaLivesAsLongAsItsTest(t *testing.T) {
	t.Parallel()
	db := testdb.DB(t)
	const count = "SELECT count(*) FROM pg_namespace WHERE nspname = ANY ($1::text[])"
	var schemas []string
	t.Run("test", func(t *testing.T) {
		for range 2 {
			schema := testdb.Schema(t)
			if !regexp.MustCompile(`^[a-z][a-z0-9_]{0,23}$`).MatchString(schema) {
				t.Errorf("schema %q", schema)
			}
			if _, err := db.ExecContext(t.Context(), "CREATE TABLE "+schema+".things (i int)"); err != nil {
				t.Error(err)
			}
			schemas = append(schemas, schema)
		}
		if got := scan(t, db, count, schemas); got != "2" {
			t.Errorf("%s schemas during the test, want 2", got)
		}
	})
	if got := scan(t, db, count, schemas); got != "0" {
		t.Errorf("%s schemas after the test, want 0", got)
	}
}

func TestOpenClosesWithItsTest(t *testing.T) {
	t.Parallel()
	var pools []*sql.DB
	t.Run("test", func(t *testing.T) {
		for _, driver := range []string{"pgx", "postgres"} {
			db := testdb.Open(t, driver, testdb.DSN(t))
			if got := scan(t, db, "SELECT 1"); got != "1" {
				t.Errorf("%s: got %s", driver, got)
			}
			pools = append(pools, db)
		}
	})
	for _, db := range pools {
		if err := db.PingContext(t.Context()); err == nil {
			t.Error("a pool is open after its test")
		}
	}
}

func TestWithParam(t *testing.T) {
	t.Parallel()
	const value = `it's a+b & 100% \ "c"=?`
	for _, dsn := range []string{testdb.DSN(t), pairs(t, testdb.DSN(t))} {
		with := testdb.WithParam(dsn, "application_name", "somebody else")
		with = testdb.WithParam(with, "application_name", value)
		for _, driver := range []string{"pgx", "postgres"} {
			if got := scan(t, testdb.Open(t, driver, with), "SHOW application_name"); got != value {
				t.Errorf("%s with %s: got %q, want %q", driver, with, got, value)
			}
		}
	}
	for _, test := range [][2]string{
		{"postgres://h/d", "postgres://h/d?a=b"},
		{"postgresql://h1:1,h2:2/d?x=y&a=c", "postgresql://h1:1,h2:2/d?a=b&x=y"},
		{"", "a='b'"},
		{"host=h", "host=h a='b'"},
	} {
		if got := testdb.WithParam(test[0], "a", "b"); got != test[1] {
			t.Errorf("%q: got %q, want %q", test[0], got, test[1])
		}
	}
}

// programMode makes TestAsProgram behave as a test of some other package, in a test binary of its own.
const programMode = "TESTDB_TEST_PROGRAM"

func TestAsProgram(t *testing.T) {
	switch os.Getenv(programMode) {
	case "leaks":
		go func() { select {} }()
	case "uses the database":
		db, schema := testdb.DB(t), testdb.Schema(t)
		proxied := testdb.Open(t, "postgres", testdb.NewProxy(t, testdb.DSN(t)).DSN())
		if _, err := db.ExecContext(t.Context(), "CREATE TABLE "+schema+".things AS SELECT 1 AS i"); err != nil {
			t.Fatal(err)
		}
		if got := scan(t, proxied, "SELECT i FROM "+schema+".things"); got != "1" {
			t.Errorf("got %s", got)
		}
		t.Log("it ran")
	}
}

func TestMainOfATestBinary(t *testing.T) {
	t.Parallel()
	noServer := "PGCACHE_PG_BIN=/nowhere/at/all"
	for _, test := range []struct {
		name, mode, env string
		fails           bool
		want            string
	}{
		{"no server is started unasked", "does nothing", noServer, false, "PASS"},
		{"no server is a failure", "uses the database", noServer, true, "no server can be started"},
		{"a leak is a failure", "leaks", noServer, true, "the tests pass but leak"},
		{"key=value pairs in PGCACHE_DSN", "uses the database", "PGCACHE_DSN=" + pairs(t, testdb.DSN(t)), false, "it ran"},
		{"a throw-away server goes with it", "uses the database", "X=", false, "it ran"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			temp, err := os.MkdirTemp("", "testdb-")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(temp)
			if err := os.Chmod(temp, 0o777|os.ModeSticky); err != nil { // the server may run as another user
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestAsProgram$", "-test.v")
			cmd.Env = append(os.Environ(), "PGCACHE_DSN=", "TMPDIR="+temp, programMode+"="+test.mode)
			cmd.Env = append(cmd.Env, strings.Split(test.env, "\n")...)
			out, err := cmd.CombinedOutput()
			if (err != nil) != test.fails || !strings.Contains(string(out), test.want) {
				t.Errorf("ended with %v, want failure %v and %q in:\n%s", err, test.fails, test.want, out)
			}
			if left, _ := filepath.Glob(filepath.Join(temp, "*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// Package testdb gives tests a real Postgres: one server for each test binary, started by the first test that asks for
// it, and a schema of its own for each test, so that all of them run in parallel.
//
//	func TestMain(m *testing.M) { testdb.Main(m) }
//
//	func TestSomething(t *testing.T) {
//		t.Parallel()
//		db, schema := testdb.DB(t), testdb.Schema(t)
//		...
//	}
//
// Which server that is: see pgserver.Start. A test without a server fails, it is never skipped.
package testdb

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx"
	_ "github.com/lib/pq"              // database/sql driver "postgres"
	"go.uber.org/goleak"

	"github.com/pgcache/go/internal/pgserver"
)

// cleanupLimit is for statements that run after the test, when its context is done.
const cleanupLimit = 30 * time.Second

// shared is the server of this test binary. The first caller of get starts it, the others wait.
var shared server

type server struct {
	once sync.Once
	pg   *pgserver.Server
	err  error
}

func (s *server) get(tb testing.TB) *pgserver.Server {
	tb.Helper()
	// Not the test's context: the server outlives the test that happens to be the first.
	s.once.Do(func() { s.pg, s.err = pgserver.Start(context.Background(), tb.Logf) })
	if s.err != nil {
		tb.Fatal(s.err)
	}
	return s.pg
}

func (s *server) close() error {
	if s.pg == nil {
		return nil
	}
	return s.pg.Close()
}

// Main runs the tests, stops the server if one was started, and fails if goroutines are left over. It does not return.
func Main(m *testing.M) {
	code := m.Run()
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	if err := shared.close(); err != nil {
		fail(err)
	}
	// A failed test may leave anything behind, and what it said should not drown in stacks.
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fail(fmt.Errorf("pgcache: the tests pass but leak: %w", err))
		}
	}
	os.Exit(code)
}

// DSN returns how to reach the server with either driver: a URL, or key=value pairs if PGCACHE_DSN holds such.
func DSN(tb testing.TB) string {
	tb.Helper()
	return shared.get(tb).DSN
}

// Schema creates an empty schema and returns its name, which needs no quoting and has at most 24 bytes. When the test
// ends it is dropped, with all that is in it.
func Schema(tb testing.TB) string {
	tb.Helper()
	dsn := DSN(tb)
	schema := "t_" + strings.ToLower(rand.Text()[:16])
	if err := exec(tb.Context(), dsn, "CREATE SCHEMA "+schema); err != nil {
		tb.Fatalf("pgcache: creating schema %s: %v", schema, err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
		defer cancel()
		// Somebody's open transaction is a leak: say so rather than wait until the whole test binary is killed.
		if err := exec(ctx, dsn, "SET lock_timeout = '10s'; DROP SCHEMA "+schema+" CASCADE"); err != nil {
			tb.Errorf("pgcache: dropping schema %s: %v", schema, err)
		}
	})
	return schema
}

// exec runs SQL on a connection of its own.
func exec(ctx context.Context, dsn, query string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.PgConn().Exec(ctx, query).ReadAll()
	return err
}

// Open returns a pool that is closed when the test ends. The driver is "pgx" or "postgres" (lib/pq). It connects to
// nothing yet, and never opens more than 20 connections, so that tests in parallel get by on a server that allows 100.
func Open(tb testing.TB, driver, dsn string) *sql.DB {
	tb.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		tb.Fatalf("pgcache: opening a pool of driver %q: %v", driver, err)
	}
	db.SetMaxOpenConns(20)
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Errorf("pgcache: closing a pool of driver %q: %v", driver, err)
		}
	})
	return db
}

// DB returns a pool of pgx connections to the server, closed when the test ends.
func DB(tb testing.TB) *sql.DB {
	tb.Helper()
	return Open(tb, "pgx", DSN(tb))
}

// WithParam returns dsn, a URL or key=value pairs, with one parameter set: search_path, sslmode, a driver's own.
func WithParam(dsn, key, value string) string { return pgserver.WithParam(dsn, key, value) }

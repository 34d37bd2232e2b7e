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
	"database/sql"
	"fmt"
	"hash/fnv"
	"os"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx"
	_ "github.com/lib/pq"              // database/sql driver "postgres"
	"go.uber.org/goleak"

	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/internal/testserver"
)

// Main runs the tests, stops the server if one was started, and fails if goroutines are left over. It does not return.
func Main(m *testing.M) {
	code := m.Run()
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	if err := testserver.Close(); err != nil {
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

// DSN returns how to reach the server with either driver: a URL, or key=value pairs.
func DSN(tb testing.TB) string {
	tb.Helper()
	return testserver.Server(tb).DSN
}

// Drivers returns the drivers that a test runs over: both, or with -short one of them, always the same for a test. Of a whole suite
// about half then runs over each.
func Drivers(tb testing.TB) []string {
	all := []string{"pgx", "postgres"}
	if !testing.Short() {
		return all
	}
	h := fnv.New32a()
	h.Write([]byte(tb.Name()))
	i := h.Sum32() % 2
	return all[i : i+1]
}

// Schema creates an empty schema for the test, see testserver.Schema.
func Schema(tb testing.TB) string {
	tb.Helper()
	return testserver.Schema(tb)
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

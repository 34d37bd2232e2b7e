// Package testserver is the Postgres of a test binary: one server, started by the first test that asks for it, and a schema
// of its own for each test. pgcachetest and internal/testdb build on it.
package testserver

import (
	"context"
	"crypto/rand"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgcache/go/internal/pgserver"
)

// TB is what a test must offer: *testing.T, *testing.B, *testing.F and Ginkgo's GinkgoT() do.
type TB interface {
	Helper()
	Cleanup(f func())
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

const (
	createLimit = time.Minute
	// dropLimit is for a transaction that a test has left open: say so rather than wait until the test binary is killed.
	dropLimit   = 30 * time.Second
	lockTimeout = "10s"
)

// shared is the server of this test binary. The first caller of Server starts it, the others wait.
var shared struct {
	once sync.Once
	pg   *pgserver.Server
	err  error
}

// Server returns the server. Without one the test fails, it is never skipped.
func Server(tb TB) *pgserver.Server {
	tb.Helper()
	// Not the test's context: the server outlives the test that happens to be the first.
	shared.once.Do(func() { shared.pg, shared.err = pgserver.Start(context.Background(), tb.Logf) })
	if shared.err != nil {
		tb.Fatalf("%v", shared.err)
	}
	return shared.pg
}

// Close stops the server if one was started. No test may use it afterwards.
func Close() error {
	if shared.pg == nil {
		return nil
	}
	return shared.pg.Close()
}

// Schema creates an empty schema and returns its name, which needs no quoting and has at most 24 bytes. When the test
// ends it is dropped, with all that is in it.
func Schema(tb TB) string {
	tb.Helper()
	dsn := Server(tb).DSN
	schema := "t_" + strings.ToLower(rand.Text()[:16])
	ctx, cancel := context.WithTimeout(context.Background(), createLimit)
	defer cancel()
	if err := exec(ctx, dsn, "CREATE SCHEMA "+schema); err != nil {
		tb.Fatalf("pgcache: creating schema %s: %v", schema, err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), dropLimit)
		defer cancel()
		if err := exec(ctx, dsn, "SET lock_timeout = '"+lockTimeout+"'; DROP SCHEMA "+schema+" CASCADE"); err != nil {
			tb.Errorf("pgcache: dropping schema %s: %v (did the test leave a transaction open?)", schema, err)
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

package pgcachetest

import (
	"database/sql"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/internal/testserver"
)

// maxConns is what a pool opens at most: tests in parallel must get by on a server that allows 100 connections.
const maxConns = 20

// DSN returns a connection string, for any driver, that leads to an empty schema: search_path names it, so tables that are
// created without a schema lie in it. The schema is dropped when the test ends. Several pools that are opened with the same DSN
// stand for several processes of one service.
//
// The server is the one that the environment variable PGCACHE_DSN names (a URL or key=value pairs); else one that is
// started for this test binary, from server binaries on this machine (the folder in PGCACHE_PG_BIN, or the usual places) or
// downloaded once. Where there is none the test fails.
func DSN(t TB) string {
	t.Helper()
	dsn := testserver.Server(t).DSN
	return pgserver.WithParam(dsn, "search_path", testserver.Schema(t))
}

// DB returns a pool of pgx connections to an empty schema, see DSN. It is closed when the test ends.
func DB(t TB) *sql.DB {
	t.Helper()
	return bounded(t, stdlib.OpenDB(*parse(t, DSN(t))))
}

// DBWithFaults is DB with a pool that can be made to fail.
func DBWithFaults(t TB) (*sql.DB, *Faults) {
	t.Helper()
	return openWithFaults(t, DSN(t))
}

func parse(t TB, dsn string) *pgx.ConnConfig {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatalf("pgcachetest: %v", err)
	}
	return config
}

// bounded bounds the connections of db, and closes it when the test ends.
func bounded(t TB, db *sql.DB) *sql.DB {
	t.Helper()
	db.SetMaxOpenConns(maxConns)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("pgcachetest: closing a pool: %v", err)
		}
	})
	return db
}

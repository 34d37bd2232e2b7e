package pgxdriver_test

import (
	"database/sql"
	"testing"

	"github.com/pgcache/go/driver/drivertest"
	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

func TestExercise(t *testing.T) {
	for _, mode := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"} {
		drivertest.Exercise(t, testdb.DSN(t), drivertest.Factory{
			Name: mode,
			Open: func(tb testing.TB, dsn string) *sql.DB {
				return testdb.Open(tb, "pgx", testdb.WithParam(dsn, "default_query_exec_mode", mode))
			},
			Listener: func(_ testing.TB, db *sql.DB, _ string) pgcache.Listener { return pgxdriver.Listener(db) },
		})
	}
}

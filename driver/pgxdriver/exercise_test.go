package pgxdriver_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/pgcache/go/driver/drivertest"
	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

func TestExercise(t *testing.T) {
	pooled := func(_ testing.TB, db *sql.DB, _ string) pgcache.Listener { return pgxdriver.Listener(db) }
	polled := func(testing.TB, *sql.DB, string) pgcache.Listener { return listener.Poll(10 * time.Millisecond) }
	for _, c := range []struct {
		name, mode string
		listener   func(testing.TB, *sql.DB, string) pgcache.Listener
	}{
		{"cache_statement", "cache_statement", pooled},
		{"cache_describe", "cache_describe", pooled},
		{"describe_exec", "describe_exec", pooled},
		{"exec", "exec", pooled},
		{"simple_protocol", "simple_protocol", pooled},
		{"polled", "exec", polled},
	} {
		drivertest.Exercise(t, testdb.DSN(t), drivertest.Factory{
			Name: c.name,
			Open: func(tb testing.TB, dsn string) *sql.DB {
				return testdb.Open(tb, "pgx", testdb.WithParam(dsn, "default_query_exec_mode", c.mode))
			},
			Listener: c.listener,
		})
	}
}

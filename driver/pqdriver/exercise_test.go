package pqdriver_test

import (
	"database/sql"
	"testing"

	"github.com/pgcache/go/driver/drivertest"
	"github.com/pgcache/go/driver/pqdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

func TestExercise(t *testing.T) {
	for _, c := range []struct {
		name, binary string
		prepare      bool
	}{
		{"text", "no", false},
		{"binary_parameters", "yes", false},
		{"prepared", "no", true},
	} {
		drivertest.Exercise(t, testdb.DSN(t), drivertest.Factory{
			Name: c.name,
			Open: func(tb testing.TB, dsn string) *sql.DB {
				return testdb.Open(tb, "postgres", testdb.WithParam(dsn, "binary_parameters", c.binary))
			},
			Listener: func(_ testing.TB, _ *sql.DB, dsn string) pgcache.Listener { return pqdriver.Listener(dsn) },
			Options:  func(o *pgcache.Options) { o.PrepareStatements = c.prepare },
		})
	}
}

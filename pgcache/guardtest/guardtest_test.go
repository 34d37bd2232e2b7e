package guardtest_test

import (
	"database/sql"
	"testing"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcache/guardtest"
)

func TestMain(m *testing.M) { testdb.Main(m) }

func pool(driver string) func(t testing.TB) *sql.DB {
	return func(t testing.TB) *sql.DB { return testdb.Open(t, driver, testdb.DSN(t)) }
}

func TestAdvisoryLock(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"pgx", "postgres"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			guardtest.Run(t, guardtest.Config{Guard: pgcache.AdvisoryLock(), Pool: pool(driver), Excludes: true})
		})
	}
}

func TestNoGuard(t *testing.T) {
	t.Parallel()
	guardtest.Run(t, guardtest.Config{Guard: pgcache.NoGuard(), Pool: pool("pgx")})
}

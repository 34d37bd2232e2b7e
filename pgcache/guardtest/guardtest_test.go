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

// space is that of a new cache.
func space(t testing.TB) string {
	schema := testdb.Schema(t)
	c, err := pgcache.New(testdb.DB(t), pgcache.Options{Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return schema + ".cache"
}

func TestLease(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"pgx", "postgres"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			guardtest.Run(t, guardtest.Config{Guard: pgcache.Lease(), Pool: pool(driver), Space: space, Excludes: true})
		})
	}
}

// TestNoSpace: a lease is a row of a cache's table.
func TestNoSpace(t *testing.T) {
	t.Parallel()
	for _, space := range []string{"", "x", "a.b", "cache", `a".cache`, testdb.Schema(t) + ".cache"} {
		l := pgcache.Lease().Open(testdb.DB(t), space)
		if got, err := l.TryLock(t.Context(), []string{"k"}); err == nil {
			t.Errorf("space %q: %v", space, got)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := l.TryLock(t.Context(), []string{"k"}); err == nil {
			t.Error("a closed guard locks")
		}
	}
}

func TestNoGuard(t *testing.T) {
	t.Parallel()
	guardtest.Run(t, guardtest.Config{Guard: pgcache.NoGuard(), Pool: pool("pgx")})
}

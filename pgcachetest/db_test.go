package pgcachetest_test

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"testing"

	_ "github.com/lib/pq"
	"go.uber.org/goleak"

	"github.com/pgcache/go/pgcachetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgcachetest.Main(m)) }

var _ = []pgcachetest.TB{(*testing.T)(nil), (*testing.B)(nil), (*testing.F)(nil)}

func exec(t *testing.T, db *sql.DB, query string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func scan(t *testing.T, db *sql.DB, query string, args ...any) (s string) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), query, args...).Scan(&s); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return s
}

func TestEachDBHasAnEmptySchemaOfItsOwn(t *testing.T) {
	t.Parallel()
	var pools []*sql.DB
	var schemas []string
	t.Run("test", func(t *testing.T) {
		for range 2 {
			db := pgcachetest.DB(t)
			exec(t, db, "CREATE TABLE things (i int)")
			pools, schemas = append(pools, db), append(schemas, scan(t, db, "SELECT current_schema()"))
		}
	})
	if schemas[0] == schemas[1] || schemas[0] == "public" {
		t.Errorf("schemas %q", schemas)
	}
	for _, db := range pools {
		if err := db.PingContext(t.Context()); err == nil {
			t.Error("a pool is open after its test")
		}
	}
	if n := scan(t, pgcachetest.DB(t), "SELECT count(*) FROM pg_namespace WHERE nspname = ANY ($1)", schemas); n != "0" {
		t.Errorf("%s of the schemas are left behind", n)
	}
}

func TestDSNIsForEveryDriver(t *testing.T) {
	t.Parallel()
	dsn := pgcachetest.DSN(t)
	var schemas []string
	for _, driver := range []string{"pgx", "postgres"} {
		db, err := sql.Open(driver, dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		schemas = append(schemas, scan(t, db, "SELECT current_schema()"))
	}
	if schemas[0] != schemas[1] {
		t.Errorf("schemas %q of one DSN", schemas)
	}
}

func TestDo(t *testing.T) {
	t.Parallel()
	var said []string
	err := pgcachetest.Do(func(t pgcachetest.TB) {
		t.Cleanup(func() { said = append(said, "first") })
		t.Cleanup(func() { said = append(said, "second"); t.Fatalf("in %s", "cleanup") })
		t.Errorf("one")
		t.Fatalf("two")
		said = append(said, "unreachable")
	})
	if err == nil || err.Error() != "one\ntwo\nin cleanup" || !slices.Equal(said, []string{"second", "first"}) {
		t.Errorf("%q, %v", said, err)
	}
	if err := pgcachetest.Do(func(pgcachetest.TB) {}); err != nil {
		t.Error(err)
	}
	defer func() {
		if r := recover(); r != "mine" {
			t.Errorf("recovered %v", r)
		}
	}()
	pgcachetest.Do(func(pgcachetest.TB) { panic("mine") })
}

func TestStartPostgres(t *testing.T) {
	t.Parallel()
	said := ""
	dsn, stop, err := pgcachetest.StartPostgres(t.Context(), func(format string, _ ...any) { said = format })
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if got := scan(t, db, "SELECT 1"); got != "1" || !strings.Contains(said, "PostgreSQL") {
		t.Errorf("got %s, said %q", got, said)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone for lunch")
	cancel(gone)
	if _, _, err := pgcachetest.StartPostgres(ctx, nil); err == nil {
		t.Error("started in spite of its context")
	}
}

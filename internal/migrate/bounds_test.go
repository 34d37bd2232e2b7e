package migrate_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/internal/migrate"
	"github.com/pgcache/go/internal/testdb"
)

// A table that a transaction holds is waited for 5 s and no longer, because all who write would wait behind it.
func TestLockedTable(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"pgx", "postgres"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			ctx, n := t.Context(), names(t)
			db := testdb.Open(t, driver, testdb.DSN(t))
			if err := migrate.Run(ctx, db, n); err != nil {
				t.Fatal(err)
			}
			if _, err := db.ExecContext(ctx, "UPDATE "+n.State()+" SET schema_version = 2"); err != nil {
				t.Fatal(err)
			}
			holder, err := db.BeginTx(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer holder.Rollback() //nolint:errcheck // after a Commit it does nothing
			if _, err := holder.ExecContext(ctx, "LOCK TABLE "+n.Table()+" IN ROW EXCLUSIVE MODE"); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			err = migrate.Run(ctx, db, n)
			if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "try again") || !strings.Contains(err.Error(), "migration 3 (guards)") || took > 15*time.Second {
				t.Errorf("after %v: %v", took, err)
			}
			var have int
			if err := db.QueryRowContext(ctx, "SELECT schema_version FROM "+n.State()).Scan(&have); err != nil || have != 2 {
				t.Errorf("version %d, %v", have, err)
			}
			if err := holder.Commit(); err != nil {
				t.Fatal(err)
			}
			if err := migrate.Run(ctx, db, n); err != nil {
				t.Error(err)
			}
		})
	}
}

// What is printed is bounded as well, before its first statement.
func TestBounds(t *testing.T) {
	t.Parallel()
	for _, m := range migrate.All(names(t)) {
		if want := "SET LOCAL idle_in_transaction_session_timeout = '30s';\nSET LOCAL lock_timeout = '5s';\n"; !strings.HasPrefix(m.SQL, want) {
			t.Errorf("%s begins %.100q", m.Name, m.SQL)
		}
	}
}

package store_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/pgcache/go/internal/migrate"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
)

// TestIsolationChanges: connections whose transactions are stricter appear while a node runs. A load from before a
// Clear must not store after it, and writes do not notice.
func TestIsolationChanges(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"pgx", "postgres"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			n, err := store.Names{Schema: testdb.Schema(t), Prefix: "s_"}.Resolve()
			if err != nil {
				t.Fatal(err)
			}
			db := testdb.Open(t, driver, testdb.DSN(t))
			if err := migrate.Run(t.Context(), db, n); err != nil {
				t.Fatal(err)
			}
			db.SetMaxOpenConns(1)
			s := store.New(db, n, 20*time.Second, false)
			t.Cleanup(s.Close)
			if _, err := s.State(t.Context()); err != nil {
				t.Fatal(err)
			}
			stricter(t, db)
			for i, rows := range [][]store.Write{{row("a", "v", 1)}, {row("a", "v", 2), row("b", "v", 3)}} {
				for _, inline := range []bool{false, true} {
					stricter(t, db)
					s.ForgetStrict()
					out, err := s.Put(t.Context(), rows, inline)
					if err != nil || out.Server == 0 || s.PlainWrites() {
						t.Errorf("%d, inline %v: %+v, %v, plain: %v", i, inline, out, err, s.PlainWrites())
					}
				}
			}
			if _, err := s.State(t.Context()); err != nil || s.PlainWrites() {
				t.Error("it has forgotten", err)
			}
			// A load and a lease notice it too, and it is remembered where the next session is as before.
			for what, send := range map[string]func() error{
				"a load": func() error { _, err := s.PutLoaded(t.Context(), []store.Write{row("c", "v", 4)}, false); return err },
				"a lease": func() error {
					_, err := s.LeaseAndLook(t.Context(), store.LeaseAsk{Keys: []string{"a"}, Leases: []store.Lease{{ID: 1, Owner: 1}}, Of: []int{1}})
					return err
				},
			} {
				stricter(t, db)
				s.ForgetStrict()
				if err := send(); err != nil || s.PlainWrites() {
					t.Errorf("%s: %v, plain: %v", what, err, s.PlainWrites())
				}
				if _, err := db.ExecContext(t.Context(), "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED"); err != nil {
					t.Fatal(err)
				}
				if _, err := s.State(t.Context()); err != nil || s.PlainWrites() {
					t.Errorf("%s: it has forgotten: %v", what, err)
				}
			}
		})
	}
}

// stricter makes the pool's only connection as if the role had another default.
func stricter(t *testing.T, db *sql.DB) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE"); err != nil {
		t.Fatal(err)
	}
}

package pgcachetest_test

import (
	"context"
	"database/sql"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

// statements returns all ways to send a statement.
func statements(t *testing.T, db *sql.DB) map[string]func(ctx context.Context) error {
	t.Helper()
	prepared, err := db.PrepareContext(t.Context(), "SELECT 1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prepared.Close() })
	ended := func(rows *sql.Rows, err error) error {
		if err != nil {
			return err
		}
		return errors.Join(rows.Close(), rows.Err())
	}
	return map[string]func(ctx context.Context) error{
		"exec":          func(ctx context.Context) error { _, err := db.ExecContext(ctx, "SELECT 1"); return err },
		"query":         func(ctx context.Context) error { return ended(db.QueryContext(ctx, "SELECT 1")) },
		"prepared":      func(ctx context.Context) error { return ended(prepared.QueryContext(ctx)) },
		"prepared exec": func(ctx context.Context) error { _, err := prepared.ExecContext(ctx); return err },
		"ping":          db.PingContext,
		"prepare": func(ctx context.Context) error {
			s, err := db.PrepareContext(ctx, "SELECT 2")
			if err == nil {
				err = s.Close()
			}
			return err
		},
		"begin": func(ctx context.Context) error {
			tx, err := db.BeginTx(ctx, nil)
			if err == nil {
				err = tx.Rollback()
			}
			return err
		},
	}
}

func TestFail(t *testing.T) {
	t.Parallel()
	db, faults := pgcachetest.DBWithFaults(t)
	faults.Fail(nil)
	if _, err := db.Conn(t.Context()); !errors.Is(err, pgcachetest.ErrFault) {
		t.Errorf("a new connection: %v", err)
	}
	faults.Mend()
	all := statements(t, db)
	readOnly := &pgconn.PgError{Code: "25006"}
	for _, fault := range []error{nil, readOnly} {
		faults.Fail(fault)
		wanted := fault
		if fault == nil {
			wanted = pgcachetest.ErrFault
		}
		for name, send := range all {
			if err := send(t.Context()); !errors.Is(err, wanted) {
				t.Errorf("%s: got %v, want %v", name, err, wanted)
			}
		}
		faults.Mend()
		for name, send := range all {
			if err := send(t.Context()); err != nil {
				t.Errorf("%s, mended: %v", name, err)
			}
		}
	}
}

func TestFailedCommit(t *testing.T) {
	t.Parallel()
	db, faults := pgcachetest.DBWithFaults(t)
	exec(t, db, "CREATE TABLE things (i int)")
	other, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), "INSERT INTO things VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	faults.Fail(nil)
	if err := tx.Commit(); !errors.Is(err, pgcachetest.ErrFault) {
		t.Errorf("committed: %v", err)
	}
	faults.Mend()
	if _, err := other.ExecContext(t.Context(), "SET lock_timeout = '5s'; LOCK TABLE things"); err != nil {
		t.Errorf("the transaction is open: %v", err)
	}
	if got := scan(t, db, "SELECT count(*) FROM things"); got != "0" {
		t.Errorf("%s rows", got)
	}
}

func TestStall(t *testing.T) {
	t.Parallel()
	db, faults := pgcachetest.DBWithFaults(t)
	all := statements(t, db)
	faults.Stall()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	waiting := make(chan error, 2*len(all))
	for name, send := range all {
		if err := send(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got %v, want it to wait", name, err)
		}
		go func() { waiting <- send(context.WithoutCancel(ctx)) }()
	}
	faults.Stall() // a second one lets nothing pass
	select {
	case err := <-waiting:
		t.Fatalf("a statement ended: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	faults.Mend()
	for range all {
		if err := <-waiting; err != nil {
			t.Error(err)
		}
	}
}

func TestDown(t *testing.T) {
	t.Parallel()
	db, faults := pgcachetest.DBWithFaults(t)
	idle, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	idle.Close()
	faults.Down()
	if err := conn.PingContext(t.Context()); err == nil {
		t.Error("a connection has survived")
	}
	if err := db.PingContext(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new connection: %v", err)
	}
	faults.Mend()
	if err := db.PingContext(t.Context()); err != nil {
		t.Error(err)
	}
}

// The end of a test with its database down is no error of its own.
func TestEndWhileDown(t *testing.T) {
	t.Parallel()
	err := pgcachetest.Do(func(tb pgcachetest.TB) {
		db, faults := pgcachetest.DBWithFaults(tb)
		if err := db.PingContext(t.Context()); err != nil { // the pool keeps this connection
			t.Error(err)
		}
		faults.Down()
	})
	if err != nil {
		t.Error(err)
	}
}

// What a program's degraded path sees, and that all is well afterwards.
func TestCacheWithFaults(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(f *pgcachetest.Faults){
		"fail":  func(f *pgcachetest.Faults) { f.Fail(nil) },
		"stall": func(f *pgcachetest.Faults) { f.Stall() },
		"down":  func(f *pgcachetest.Faults) { f.Down() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := pgcachetest.Nodes(t, 1, pgcache.Options{Timeout: 2 * time.Second})[0]
			set(t, n.Cache, "k", 1)
			if !kept(t, n.Cache, "k", 1) {
				t.Fatal("nothing is kept in memory")
			}
			fault(n.Faults)
			if err := n.Set(t.Context(), "k", 2); err == nil {
				t.Error("Set has worked")
			}
			var v int
			if _, err := n.Get(t.Context(), "other", &v); err == nil {
				t.Error("Get has worked")
			}
			err := n.GetOrSet(t.Context(), "other", &v, func(context.Context) (any, error) { return 3, nil })
			if v != 3 || err != nil {
				t.Errorf("GetOrSet: %d, %v", v, err)
			}
			n.Faults.Mend()
			ready(t, n.Cache)
			set(t, n.Cache, "k", 4)
			if !kept(t, n.Cache, "k", 4) {
				t.Error("nothing is kept in memory any more")
			}
		})
	}
}

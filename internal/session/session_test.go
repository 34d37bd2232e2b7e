package session_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pgcache/go/internal/session"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// pid runs one statement on the session.
func pid(t *testing.T, s *session.Session) (pid int) {
	t.Helper()
	if err := s.Do(t.Context(), func(ctx context.Context, conn *sql.Conn) error {
		return conn.QueryRowContext(ctx, "SELECT pg_backend_pid()").Scan(&pid)
	}); err != nil {
		t.Fatal(err)
	}
	return pid
}

func setting(t *testing.T, s *session.Session, name string) (v string) {
	t.Helper()
	if err := s.Do(t.Context(), func(ctx context.Context, conn *sql.Conn) error {
		return conn.QueryRowContext(ctx, "SELECT current_setting($1)", name).Scan(&v)
	}); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestShared(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"pgx", "postgres"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			db := testdb.Open(t, driver, testdb.DSN(t))
			a, b := session.Open(db), session.Open(db)
			if n := db.Stats().OpenConnections; n != 0 {
				t.Errorf("Open connects: %d", n)
			}
			if pid(t, a) != pid(t, b) {
				t.Error("two sessions for one pool")
			}
			if got := setting(t, a, "lock_timeout"); got != "1s" {
				t.Error(got)
			}
			if a.Pooled() {
				t.Error("taken for a pooler's")
			}
			a.Close()
			a.Close() // counts once
			first := pid(t, b)
			if err := a.Do(t.Context(), nil); err == nil {
				t.Error("a closed handle still works")
			}
			// The session is lost between two uses: f runs on a new one.
			if _, err := db.ExecContext(t.Context(), "SELECT pg_terminate_backend($1, 5000)", first); err != nil {
				t.Fatal(err)
			}
			if pid(t, b) == first {
				t.Error("the session was not lost")
			}
			b.Close()
			if n := db.Stats().InUse; n != 0 {
				t.Errorf("%d connections after the last Close", n)
			}
		})
	}
}

func TestNoConnection(t *testing.T) {
	t.Parallel()
	db := testdb.DB(t)
	db.SetMaxOpenConns(1)
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s := session.Open(db)
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = s.Do(ctx, nil)
	var none *store.NoConnectionError
	if !errors.As(err, &none) || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// An error of a statement leaves the session alone, a statement that was cut off ends it.
func TestErrors(t *testing.T) {
	t.Parallel()
	s := session.Open(testdb.DB(t))
	defer s.Close()
	first := pid(t, s)
	fails := func(query string, within time.Duration) {
		t.Helper()
		if err := s.Do(t.Context(), func(ctx context.Context, conn *sql.Conn) error {
			ctx, cancel := context.WithTimeout(ctx, within)
			defer cancel()
			_, err := conn.ExecContext(ctx, query)
			return err
		}); err == nil {
			t.Errorf("%s: no error", query)
		}
	}
	fails("SELECT 1/0", time.Minute)
	if pid(t, s) != first {
		t.Error("ended by an error")
	}
	fails("SELECT pg_sleep(10)", 50*time.Millisecond)
	if pid(t, s) == first {
		t.Error("not ended")
	}
}

// pool is an application's pool of one driver on top of pgxpool, with a setting of its own.
func pool(t *testing.T) (*sql.DB, *pgxpool.Pool) {
	t.Helper()
	config, err := pgxpool.ParseConfig(testdb.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns, config.MinConns = 2, 0
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SET lock_timeout = '7s'")
		return err
	}
	p, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	db := stdlib.OpenDBFromPool(p)
	t.Cleanup(func() { db.Close() })
	return db, p
}

// checkPool looks at every connection of the application's pool.
func checkPool(t *testing.T, p *pgxpool.Pool) {
	t.Helper()
	conns := p.AcquireAllIdle(t.Context())
	for _, c := range conns {
		var locks int
		var lock, isolation, idle string
		if err := c.QueryRow(t.Context(), `SELECT current_setting('lock_timeout'), current_setting('default_transaction_isolation'),
			current_setting('idle_session_timeout'), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())`).
			Scan(&lock, &isolation, &idle, &locks); err != nil {
			t.Error(err)
		}
		if lock != "7s" || isolation != "read committed" || idle != "0" || locks != 0 {
			t.Errorf("in the pool: lock_timeout %s, isolation %s, idle_session_timeout %s, %d locks", lock, isolation, idle, locks)
		}
		c.Release()
	}
}

// What goes back to an application's pool is as it was.
func TestGiveBack(t *testing.T) {
	t.Parallel()
	lock := func(t *testing.T, s *session.Session) {
		if err := s.Do(t.Context(), func(ctx context.Context, conn *sql.Conn) error {
			_, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1, 1)", store.Hash(t.Name()))
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("Close", func(t *testing.T) {
		db, p := pool(t)
		s := session.Open(db)
		lock(t, s)
		s.Close()
		if p.Stat().TotalConns() != 2 {
			t.Errorf("%d connections", p.Stat().TotalConns())
		}
		checkPool(t, p)
	})
	t.Run("restoring fails", func(t *testing.T) {
		db, p := pool(t)
		s := session.Open(db)
		lock(t, s)
		// A transaction that was left behind broken: nothing can be restored in it.
		if err := s.Do(t.Context(), func(ctx context.Context, conn *sql.Conn) error {
			conn.ExecContext(ctx, "BEGIN")
			conn.ExecContext(ctx, "SELECT 1/0")
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		s.Close()
		checkPool(t, p)
	})
	t.Run("cut off", func(t *testing.T) {
		db, p := pool(t)
		s := session.Open(db)
		lock(t, s)
		// The driver calls it an error of the connection, which is as good as new.
		s.Do(t.Context(), func(context.Context, *sql.Conn) error { return context.DeadlineExceeded })
		checkPool(t, p)
		s.Close()
		checkPool(t, p)
	})
}

// TestRenew: the connection is another afterwards.
func TestRenew(t *testing.T) {
	t.Parallel()
	s := session.Open(testdb.DB(t))
	defer s.Close()
	pid := func() (n int) {
		t.Helper()
		if err := s.Do(t.Context(), func(ctx context.Context, conn *sql.Conn) error {
			return conn.QueryRowContext(ctx, "SELECT pg_backend_pid()").Scan(&n)
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	first := pid()
	s.Renew(t.Context())
	if n := pid(); n == first {
		t.Error("it is the same")
	}
}

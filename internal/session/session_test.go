package session_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pgcache/go/internal/session"
	"github.com/pgcache/go/internal/testdb"
)

func pid(t *testing.T, s *session.Session) (n int) {
	t.Helper()
	err := s.Do(t.Context(), time.Second, func(ctx context.Context, conn *sql.Conn) error {
		return conn.QueryRowContext(ctx, "SELECT pg_backend_pid()").Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestDo: all that is done on a pool's session is done on one connection, which survives errors of statements, and is
// replaced when it was lost.
func TestDo(t *testing.T) {
	t.Parallel()
	db := testdb.DB(t)
	s, again := session.Open(db), session.Open(db)
	defer s.Close()
	defer again.Close()
	first := pid(t, s)
	if err := s.Do(t.Context(), time.Second, func(ctx context.Context, conn *sql.Conn) error {
		_, err := conn.ExecContext(ctx, "SELECT 1/0")
		return err
	}); err == nil {
		t.Error("no error")
	}
	if n := pid(t, again); n != first {
		t.Errorf("session %d, then %d", first, n)
	}
	if _, err := db.ExecContext(t.Context(), "SELECT pg_terminate_backend($1, 5000)", first); err != nil {
		t.Fatal(err)
	}
	second := pid(t, s) // seen and replaced, without an error
	if second == first {
		t.Error("not replaced")
	}
	// A statement that takes too long costs the connection, not the next statement.
	if err := s.Do(t.Context(), 50*time.Millisecond, func(ctx context.Context, conn *sql.Conn) error {
		_, err := conn.ExecContext(ctx, "SELECT pg_sleep(10)")
		return err
	}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if n := pid(t, s); n == second {
		t.Error("a connection in doubt was kept")
	}
}

// TestNoConnection: a pool without a free connection is named.
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
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Do(ctx, time.Second, func(context.Context, *sql.Conn) error { return nil }); !errors.Is(err, session.ErrNoConnection) {
		t.Error(err)
	}
}

// TestGivenBack: a connection goes back to the pool as it was, also to one below database/sql whose owner has settings of
// its own; and where it can't, it is closed for good.
func TestGivenBack(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]bool{"in order": false, "in doubt": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool, err := pgxpool.New(t.Context(), testdb.WithParam(testdb.WithParam(testdb.DSN(t), "pool_max_conns", "4"), "idle_session_timeout", "77000"))
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			db := stdlib.OpenDBFromPool(pool)
			defer db.Close()
			locks := session.OpenLocks(db, t.Name())
			if _, err := locks.TryLock(t.Context(), []string{"x"}); err != nil {
				t.Fatal(err)
			}
			if lose {
				s := session.Open(db)
				_ = s.Do(t.Context(), 20*time.Millisecond, func(ctx context.Context, conn *sql.Conn) error {
					_, err := conn.ExecContext(ctx, "SELECT pg_sleep(10)")
					return err
				})
				s.Close()
			}
			locks.Close()
			soon(t, "nothing of ours is in the pool", func() bool {
				var held, listening int
				if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid IN (SELECT pid FROM pg_stat_activity WHERE pid = pg_backend_pid())").Scan(&held); err != nil {
					t.Fatal(err)
				}
				return held == 0 && listening == 0
			})
			for _, conn := range pool.AcquireAllIdle(t.Context()) {
				var timeout, isolation, lock, mark string
				if err := conn.QueryRow(t.Context(), "SELECT current_setting('idle_session_timeout'), current_setting('default_transaction_isolation'), current_setting('lock_timeout'), coalesce(current_setting('pgcache.session', true), '')").Scan(&timeout, &isolation, &lock, &mark); err != nil {
					t.Fatal(err)
				}
				if timeout != "77s" || isolation != "read committed" || lock != "0" || mark != "" {
					t.Errorf("idle_session_timeout %s, isolation %s, lock_timeout %s, mark %q", timeout, isolation, lock, mark)
				}
				conn.Release()
			}
		})
	}
}

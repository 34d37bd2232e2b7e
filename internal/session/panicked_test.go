package session_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pgcache/go/internal/session"
	"github.com/pgcache/go/internal/testdb"
)

// faulty is a connector whose connections panic in the statements with a text.
type faulty struct {
	driver.Connector
	on     atomic.Pointer[string]
	closed atomic.Int64
}

func (f *faulty) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := f.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &faultyConn{conn.(*stdlib.Conn), f}, nil
}

type faultyConn struct {
	*stdlib.Conn
	f *faulty
}

func (c *faultyConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if on := c.f.on.Load(); on != nil && strings.Contains(query, *on) {
		panic("index out of range")
	}
	return c.Conn.QueryContext(ctx, query, args)
}

func (c *faultyConn) Close() error {
	c.f.closed.Add(1)
	return c.Conn.Close()
}

// TestPanic: a driver that panics is an error of the connection, which is closed, and no other is opened for a while. Nobody waits for
// ever: database/sql never closes what it was about to use.
func TestPanic(t *testing.T) {
	t.Parallel()
	for _, on := range []string{"-- name: Backend ", "-- name: SessionSettings ", "-- name: ConfigureSession ", "pg_backend_pid() AS f"} {
		t.Run(on, func(t *testing.T) {
			t.Parallel()
			config, err := pgx.ParseConfig(testdb.DSN(t))
			if err != nil {
				t.Fatal(err)
			}
			f := &faulty{Connector: stdlib.GetConnector(*config)}
			db := sql.OpenDB(f)
			t.Cleanup(func() { db.Close() })
			s := session.Open(db)
			f.on.Store(&on)
			ask := func() error {
				return s.Do(t.Context(), func(ctx context.Context, conn *sql.Conn) error {
					var pid int
					return conn.QueryRowContext(ctx, "SELECT pg_backend_pid() AS f").Scan(&pid)
				})
			}
			if err := ask(); err == nil || !strings.Contains(err.Error(), "the database driver panicked: index out of range") {
				t.Errorf("it panicked, and the error is %v", err)
			}
			open := db.Stats().OpenConnections
			f.on.Store(nil)
			if err := ask(); err != nil { // else the machine has stalled for longer than the pause
				if n := db.Stats().OpenConnections; n > open || !strings.Contains(err.Error(), "no new session is opened for 1s") {
					t.Errorf("%d connections, %d before, %v", n, open, err)
				}
			}
			if f.closed.Load() == 0 {
				t.Error("the connection was not closed")
			}
			for deadline := time.Now().Add(time.Minute); ask() != nil; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("it does not work again")
				}
			}
			s.Close()
		})
	}
}

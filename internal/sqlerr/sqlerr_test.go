package sqlerr_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

func TestSorts(t *testing.T) {
	t.Parallel()
	state := func(s string) error { return &pgconn.PgError{Code: s} }
	for _, test := range []struct {
		err                                             error
		connection, notDone, conflict, noObject, config bool
		locked, denied, canceled                        bool
	}{
		{err: nil},
		{err: errors.New("anything")},
		{err: context.Canceled},
		{err: context.DeadlineExceeded},
		{err: sql.ErrNoRows},
		{err: driver.ErrBadConn, connection: true, notDone: true},
		{err: io.EOF, connection: true},
		{err: io.ErrUnexpectedEOF, connection: true},
		{err: net.ErrClosed, connection: true},
		{err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, connection: true, notDone: true},
		{err: &net.OpError{Op: "read", Err: syscall.ECONNRESET}, connection: true},
		{err: &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}}, // that is our own deadline
		{err: syscall.EPIPE, connection: true},
		{err: state("08006"), connection: true},
		{err: state("57P01"), connection: true, notDone: true},
		{err: state("57P02"), connection: true, notDone: true},
		{err: state("57P05"), connection: true, notDone: true},
		{err: state("25P03"), connection: true, notDone: true},
		{err: state("57014"), canceled: true},
		{err: state("23505"), conflict: true},
		{err: state("53300")},
		{err: state("40001"), conflict: true},
		{err: state("40P01"), conflict: true},
		{err: state("42P01"), noObject: true, config: true},
		{err: state("42703"), noObject: true, config: true},
		{err: state("42883"), noObject: true, config: true},
		{err: state("3F000"), noObject: true, config: true},
		{err: state("42501"), config: true, denied: true},
		{err: state("55P03"), locked: true},
		{err: state("3D000"), config: true},
		{err: state("28P01"), config: true},
		{err: state("28000"), config: true},
		{err: &pq.Error{Code: pqerror.Code("40001")}, conflict: true},
		{err: &pq.Error{Code: pqerror.Code("57P01")}, connection: true, notDone: true},
	} {
		for _, err := range []error{test.err, fmt.Errorf("wrapped: %w", test.err), errors.Join(errors.New("x"), test.err)} {
			if test.err == nil {
				err = nil
			}
			if is := sqlerr.Connection(err); is != test.connection {
				t.Errorf("Connection(%v) is %v", err, is)
			}
			if is := sqlerr.Locked(err); is != test.locked {
				t.Errorf("Locked(%v) is %v", err, is)
			}
			if is := sqlerr.Denied(err); is != test.denied {
				t.Errorf("Denied(%v) is %v", err, is)
			}
			if is := sqlerr.Canceled(err); is != test.canceled {
				t.Errorf("Canceled(%v) is %v", err, is)
			}
			if is := sqlerr.NotDone(err); is != test.notDone {
				t.Errorf("NotDone(%v) is %v", err, is)
			}
			if is := sqlerr.Conflict(err); is != test.conflict {
				t.Errorf("Conflict(%v) is %v", err, is)
			}
			if is := sqlerr.NoObject(err); is != test.noObject {
				t.Errorf("NoObject(%v) is %v", err, is)
			}
			if is := sqlerr.Config(err); is != test.config {
				t.Errorf("Config(%v) is %v", err, is)
			}
		}
	}
}

// What the drivers really return.
func TestDrivers(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"pgx", "postgres"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			db := testdb.Open(t, name, testdb.DSN(t))
			exec := func(query string, args ...any) error { _, err := db.ExecContext(ctx, query, args...); return err }
			for _, query := range []string{"SELECT * FROM no_such_table", "SELECT no_such_column FROM pg_class", "SELECT no_such_function()", "CREATE TABLE no_such_schema.x ()"} {
				if err := exec(query); !sqlerr.NoObject(err) || sqlerr.Connection(err) {
					t.Errorf("%s: %v", query, err)
				}
			}
			if err := exec("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$"); !sqlerr.Conflict(err) || sqlerr.State(err) != "40001" {
				t.Error(err)
			}
			wrong := testdb.Open(t, name, testdb.WithParam(testdb.DSN(t), "role", "no_such_role"))
			if err := wrong.PingContext(ctx); err == nil || sqlerr.Connection(err) {
				t.Error(err)
			}

			// A session that is ended while it is idle, and while it works.
			conn, err := db.Conn(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			var pid int
			if err := conn.QueryRowContext(ctx, "SELECT pg_backend_pid()").Scan(&pid); err != nil {
				t.Fatal(err)
			}
			if err := exec("SELECT pg_terminate_backend($1::int, 60000)", pid); err != nil { // it waits until it has ended
				t.Fatal(err)
			}
			if _, err := conn.ExecContext(ctx, "SELECT 1"); !sqlerr.Connection(err) || !sqlerr.NotDone(err) {
				t.Errorf("an idle session that was ended: %v", err)
			}
			if _, err := db.ExecContext(ctx, "SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(5)"); !sqlerr.Connection(err) || !sqlerr.NotDone(err) {
				t.Errorf("a working session that was ended: %v", err)
			}
			link := testdb.NewProxy(t, testdb.DSN(t))
			far := testdb.Open(t, name, link.DSN())
			if err := far.PingContext(ctx); err != nil {
				t.Fatal(err)
			}
			link.Cut()
			if _, err := far.ExecContext(ctx, "SELECT 1"); !sqlerr.Connection(err) {
				t.Errorf("a link that was cut: %v", err)
			}
		})
	}
}

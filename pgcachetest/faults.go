package pgcachetest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net"
	"sync"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// ErrFault is what statements fail with where Fail was given no error.
var ErrFault = errors.New("pgcachetest: a fault was switched on")

// Faults makes a pool fail. Its methods are safe for concurrent use. One fault is on at a time: each method ends the one before.
type Faults struct {
	mu      sync.Mutex
	err     error            // what every statement fails with; nil: statements are sent
	stalled chan struct{}    // closed when the Stall ends; nil: there is none
	down    bool             // new connections are refused
	sockets map[*socket]bool // the open ones
}

// Fail makes every statement and every new connection fail with err, until Mend; nothing is sent. nil means ErrFault. A
// *pgconn.PgError looks like an answer of the server, such as that it is read-only. A listener that is connected stays so.
func (f *Faults) Fail(err error) {
	if err == nil {
		err = ErrFault
	}
	f.set(func() { f.err = err })
}

// Stall makes every statement and every new connection wait, until Mend or the end of its context. A listener that is connected
// stays so.
func (f *Faults) Stall() { f.set(func() { f.stalled = make(chan struct{}) }) }

// Down makes the pool see a server that is gone: connections break, the listener's too, and new ones are refused, until Mend.
func (f *Faults) Down() {
	f.set(func() { f.down = true })
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.sockets {
		s.Conn.Close()
	}
	clear(f.sockets)
}

// Mend ends every fault. Caches need a moment to notice: wait with their Ready.
func (f *Faults) Mend() { f.set(func() {}) }

// set ends the current fault and calls begin, which may begin another, with the mutex held.
func (f *Faults) set(begin func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stalled != nil {
		close(f.stalled)
	}
	f.err, f.stalled, f.down = nil, nil, false
	begin()
}

// pass waits while statements are stalled, and returns nil when one may be sent.
func (f *Faults) pass(ctx context.Context) error {
	for {
		f.mu.Lock()
		err, stalled := f.err, f.stalled
		f.mu.Unlock()
		if stalled == nil {
			return err
		}
		select {
		case <-stalled:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// openWithFaults returns a pool, which is closed when the test ends, and its Faults.
func openWithFaults(t TB, dsn string) (*sql.DB, *Faults) {
	t.Helper()
	f := &Faults{sockets: map[*socket]bool{}}
	config := parse(t, dsn)
	config.DialFunc = f.dial(config.DialFunc)
	db := bounded(t, sql.OpenDB(&connector{stdlib.GetConnector(*config), f}))
	t.Cleanup(f.Mend)
	return db, f
}

// dial refuses connections while the server is down, and notes those that it opens in f.sockets.
func (f *Faults) dial(dial pgconn.DialFunc) pgconn.DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		s := &socket{c, f}
		if !f.add(s) {
			c.Close()
			return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
		}
		return s, nil
	}
}

// add notes s as open, unless the server is down, and reports whether it did.
func (f *Faults) add(s *socket) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.down {
		f.sockets[s] = true
	}
	return !f.down
}

// socket takes itself out of Faults.sockets when it is closed. If Down has closed it, another Close returns no error: the pool's
// Close, which calls it, would return that error.
type socket struct {
	net.Conn
	f *Faults
}

func (s *socket) Close() error {
	s.f.mu.Lock()
	open := s.f.sockets[s]
	delete(s.f.sockets, s)
	s.f.mu.Unlock()
	if !open {
		return nil
	}
	return s.Conn.Close()
}

// connector makes the connections of the pool.
type connector struct {
	driver.Connector
	f *Faults
}

func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	if err := c.f.pass(ctx); err != nil {
		return nil, err
	}
	inner, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{inner.(*pgxConn), c.f}, nil
}

// pgxConn is pgx's connection. If conn embedded stdlib.Conn it had a field Conn, which would hide the method Conn by which a
// listener finds the pgx connection.
type pgxConn = stdlib.Conn

// conn lets statements pass unless there is a fault.
type conn struct {
	*pgxConn
	f *Faults
}

func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.f.pass(ctx); err != nil {
		return nil, err
	}
	return c.pgxConn.QueryContext(ctx, query, args)
}

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.f.pass(ctx); err != nil {
		return nil, err
	}
	return c.pgxConn.ExecContext(ctx, query, args)
}

func (c *conn) Ping(ctx context.Context) error {
	if err := c.f.pass(ctx); err != nil {
		return err
	}
	return c.pgxConn.Ping(ctx)
}

func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := c.f.pass(ctx); err != nil {
		return nil, err
	}
	s, err := c.pgxConn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return &stmt{s.(*stdlib.Stmt), c.f}, nil
}

func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if err := c.f.pass(ctx); err != nil {
		return nil, err
	}
	inner, err := c.pgxConn.BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	return &tx{inner, ctx, c.f}, nil
}

// stmt lets a prepared statement pass unless there is a fault.
type stmt struct {
	*stdlib.Stmt
	f *Faults
}

func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if err := s.f.pass(ctx); err != nil {
		return nil, err
	}
	return s.Stmt.QueryContext(ctx, args)
}

func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if err := s.f.pass(ctx); err != nil {
		return nil, err
	}
	return s.Stmt.ExecContext(ctx, args)
}

// tx commits unless there is a fault. Its Rollback is not stopped by faults.
type tx struct {
	driver.Tx
	ctx context.Context
	f   *Faults
}

// Commit sends a ROLLBACK if there is a fault: the connection goes back to the pool, where an open transaction would keep its
// locks until somebody wants that connection.
func (t *tx) Commit() error {
	if err := t.f.pass(t.ctx); err != nil {
		return errors.Join(err, t.Tx.Rollback())
	}
	return t.Tx.Commit()
}

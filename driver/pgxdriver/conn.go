package pgxdriver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// closeGrace is how long an orderly end of the session may take.
const closeGrace = 100 * time.Millisecond

// conn speaks the few messages that LISTEN needs over the socket of a pgx connection, which does nothing else any more.
// pgx's own methods would serve worse here: a query that times out leaves a goroutine behind that sends a cancel request
// for up to 15 seconds; the user's context watcher could turn the end of every Wait into one; what is notified during a
// query waits in a buffer, unless the user has a handler for notifications, who would get them instead.
type conn struct {
	on       func(channel, payload string)
	pg       *pgconn.PgConn
	socket   net.Conn
	frontend *pgproto3.Frontend
	discard  func() // has the pool forget the connection; called after pg is closed

	mu   sync.Mutex // held by a call that uses the frontend
	once sync.Once  // Close
}

// start takes over pg. It closes pg when it fails, and discard follows whenever pg is closed.
func start(ctx context.Context, pg *pgconn.PgConn, on func(channel, payload string), discard func()) (*conn, error) {
	c := &conn{on: on, pg: pg, socket: pg.Conn(), frontend: pg.Frontend(), discard: discard}
	err := pg.SyncConn(ctx)
	if err == nil {
		// A session that listens is always idle. Before Postgres 14 the setting is unknown, and sessions may be idle for ever.
		err = c.exec(ctx, "SET idle_session_timeout = 0")
		if isPgError(err) {
			err = nil
		}
	}
	if err == nil {
		// Payloads name keys, which are compared byte by byte with the node's, in UTF-8. The database or the role may set another
		// encoding, in which the server would send other bytes.
		err = c.exec(ctx, "SET client_encoding = 'UTF8'")
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("prepare the session: %w", err)
	}
	return c, nil
}

// Listen implements listener.Conn.
func (c *conn) Listen(ctx context.Context, channel string) error {
	return c.exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize())
}

// Ping implements listener.Conn.
func (c *conn) Ping(ctx context.Context) error { return c.exec(ctx, ";") }

// Wait implements listener.Conn.
func (c *conn) Wait(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.interruptAfter(ctx)()
	for ctx.Err() == nil {
		msg, err := c.receive()
		if refusal, ok := msg.(*pgproto3.ErrorResponse); ok {
			return pgconn.ErrorResponseToPgError(refusal)
		}
		if err != nil && !(ctx.Err() != nil && isTimeout(err)) { // what was read of a message stays in the frontend
			return err
		}
	}
	return nil
}

// exec runs one statement and ignores its rows.
func (c *conn) exec(ctx context.Context, sql string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.interruptAfter(ctx)()
	c.frontend.SendQuery(&pgproto3.Query{String: sql})
	err := c.frontend.Flush()
	for err == nil || isPgError(err) {
		msg, broken := c.receive()
		if broken != nil {
			if err == nil {
				err = broken // else the server has said why
			}
			break
		}
		switch msg := msg.(type) {
		case *pgproto3.ErrorResponse:
			err = pgconn.ErrorResponseToPgError(msg)
		case *pgproto3.ReadyForQuery:
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err() // rather than "i/o timeout", which is how it was interrupted
	}
	return err
}

// receive reads one message and delivers it if it is a notification.
func (c *conn) receive() (pgproto3.BackendMessage, error) {
	msg, err := c.frontend.Receive()
	if n, ok := msg.(*pgproto3.NotificationResponse); ok && err == nil {
		c.on(n.Channel, n.Payload)
	}
	return msg, err
}

// interruptAfter makes the socket time out from the end of ctx until the returned function is called.
func (c *conn) interruptAfter(ctx context.Context) (stop func()) {
	done := make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		c.socket.SetDeadline(time.Unix(1, 0))
		close(done)
	})
	return func() {
		if !unhook() {
			<-done // or its deadline would come after ours
			c.socket.SetDeadline(time.Time{})
		}
	}
}

// Close implements listener.Conn.
func (c *conn) Close() error {
	c.once.Do(func() {
		if !c.mu.TryLock() {
			hangUp(c.socket) // frees whoever is using it
			c.mu.Lock()
		}
		defer c.mu.Unlock()
		overdue := time.AfterFunc(closeGrace, func() { hangUp(c.socket) })
		defer overdue.Stop()
		c.pg.Close(context.Background())
		c.discard()
	})
	return nil
}

// hangUp closes a socket at once. TLS's own Close would first send an alert, for up to five seconds.
func hangUp(socket net.Conn) {
	if secure, ok := socket.(interface{ NetConn() net.Conn }); ok {
		socket = secure.NetConn()
	}
	socket.Close()
}

func isPgError(err error) bool {
	var refusal *pgconn.PgError
	return errors.As(err, &refusal)
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout()
}

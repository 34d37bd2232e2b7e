package pqdriver

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lib/pq"
)

// conn listens on a plain lib/pq connection, without its Listener or ListenerConn: these dial without a context, so that
// a server that does not answer keeps a goroutine for as long as it pleases; they read on a goroutine of their own with
// a channel between; and a Ping has no deadline.
//
// A plain connection reads its socket only while it awaits the reply to a query, and hands on the notifications that
// come before. So Wait has it await the reply to an empty query that the socket below holds back:
//
//	Wait          lib/pq: ";"  -->| held      (the server sees an idle session)
//	              lib/pq  <-- notification, notification, ...
//	ctx ends                      |--> ";"
//	              lib/pq  <-- reply, and Wait returns
type conn struct {
	pq     pqConn
	socket *socket

	mu   sync.Mutex // held by a call that uses pq
	once sync.Once  // Close
}

type pqConn interface {
	driver.Conn
	driver.ExecerContext
}

// closeGrace is how long an orderly end of the session may take.
const closeGrace = 100 * time.Millisecond

func open(ctx context.Context, config pq.Config, on func(channel, payload string)) (*conn, error) {
	connector, err := pq.NewConnectorConfig(config)
	if err != nil {
		return nil, err
	}
	d := &dialer{ctx: ctx}
	connector.Dialer(d)
	defer context.AfterFunc(ctx, d.closeAll)()

	opened, err := connector.Connect(ctx)
	if err != nil {
		d.closeAll()
		if ctx.Err() != nil {
			err = ctx.Err() // rather than "use of closed network connection"
		}
		return nil, err
	}
	pq.SetNotificationHandler(opened, func(n *pq.Notification) { on(n.Channel, n.Extra) })
	c := &conn{pq: opened.(pqConn), socket: d.last()}

	// A session that listens is always idle. Before Postgres 14 the setting is unknown, and sessions may be idle for ever.
	err = c.exec(ctx, "SET idle_session_timeout = 0")
	var refusal *pq.Error
	if err != nil && !errors.As(err, &refusal) {
		c.Close()
		return nil, fmt.Errorf("prepare the session: %w", err)
	}
	return c, nil
}

// Listen implements listener.Conn.
func (c *conn) Listen(ctx context.Context, channel string) error {
	return c.exec(ctx, "LISTEN "+pq.QuoteIdentifier(channel))
}

// Ping implements listener.Conn.
func (c *conn) Ping(ctx context.Context) error { return c.exec(ctx, ";") }

// exec runs one statement. When ctx ends before the reply is there, the connection ends too.
func (c *conn) exec(ctx context.Context, sql string) error {
	defer context.AfterFunc(ctx, func() { c.socket.Close() })()
	err := c.await(sql)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// Wait implements listener.Conn.
func (c *conn) Wait(ctx context.Context) error {
	c.socket.hold()
	unhook := context.AfterFunc(ctx, c.socket.release)
	err := c.await(";")
	if held := unhook(); held && err == nil {
		return errors.New("the server replied to a query that it was not sent")
	}
	return err
}

// await runs one statement with no context: lib/pq would answer its end with a cancel request over a new connection.
func (c *conn) await(sql string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.pq.ExecContext(context.Background(), sql, nil)
	if errors.Is(err, driver.ErrBadConn) {
		return fmt.Errorf("the connection was lost, or the server ended it: %w", err)
	}
	return err
}

// Close implements listener.Conn.
func (c *conn) Close() error {
	c.once.Do(func() {
		if !c.mu.TryLock() {
			c.socket.Close() // frees whoever is using it
			c.mu.Lock()
		}
		defer c.mu.Unlock()
		overdue := time.AfterFunc(closeGrace, func() { c.socket.Close() })
		defer overdue.Stop()
		c.pq.Close()
	})
	return nil
}

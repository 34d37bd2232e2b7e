package pgxdriver_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/listener/listenertest"
	"github.com/pgcache/go/pgcache"
)

func TestMain(m *testing.M) { testdb.Main(m) }

func TestListener(t *testing.T) {
	listenertest.Test(t, func(tb testing.TB, dsn string, cfg listener.Config) pgcache.Listener {
		return listener.New(pgxdriver.Dial(testdb.Open(tb, "pgx", dsn)), cfg)
	})
}

func TestListenerDSN(t *testing.T) {
	listenertest.Test(t, func(_ testing.TB, dsn string, cfg listener.Config) pgcache.Listener {
		return listener.New(pgxdriver.DialDSN(dsn), cfg)
	})
}

// Whatever a pool does of its own, its connections can listen, and none that did goes back.
func TestPools(t *testing.T) {
	t.Parallel()
	config, err := pgx.ParseConfig(testdb.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func(t *testing.T) *sql.DB{
		"plain": func(t *testing.T) *sql.DB { return testdb.DB(t) },
		"the only connection": func(t *testing.T) *sql.DB {
			db := testdb.DB(t)
			db.SetMaxOpenConns(1)
			return db
		},
		"simple protocol": func(t *testing.T) *sql.DB {
			return testdb.Open(t, "pgx", testdb.WithParam(testdb.DSN(t), "default_query_exec_mode", "simple_protocol"))
		},
		"handler and watcher of its own": func(t *testing.T) *sql.DB {
			config := config.Copy()
			config.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) { t.Error("the user's handler got a notification") }
			config.BuildContextWatcherHandler = func(*pgconn.PgConn) ctxwatch.Handler { return watcher{t} }
			return closing(t, stdlib.OpenDB(*config))
		},
		"traced": func(t *testing.T) *sql.DB {
			return closing(t, sql.OpenDB(wrapper{stdlib.GetConnector(*config)}))
		},
		"pgxpool": func(t *testing.T) *sql.DB {
			pool, err := pgxpool.New(t.Context(), testdb.DSN(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			return closing(t, stdlib.OpenDBFromPool(pool))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := open(t)
			n := newNode(t)
			end := n.listen(t, pgxdriver.Listener(db))
			n.receives(t, "hello")
			if open := db.Stats().OpenConnections; open != 1 {
				t.Errorf("the pool has %d connections open, want the listener's", open)
			}
			start := time.Now()
			end()
			if stats := db.Stats(); stats.OpenConnections != 0 {
				t.Errorf("after the end the pool has %d connections open, %d of them idle", stats.OpenConnections, stats.Idle)
			}
			db.Close()
			if took := time.Since(start); took > time.Second {
				t.Errorf("it took %v to end", took)
			}
		})
	}
}

func closing(t *testing.T, db *sql.DB) *sql.DB {
	t.Cleanup(func() { db.Close() })
	return db
}

// watcher objects to a context watcher that ends a Wait: it might send a cancel request.
type watcher struct{ t *testing.T }

func (w watcher) HandleCancel(context.Context) {
	w.t.Error("the user's context watcher saw the end of a context")
}
func (w watcher) HandleUnwatchAfterCancel() {}

// wrapper is a driver that wraps another, as those do that trace.
type wrapper struct{ driver.Connector }

func (w wrapper) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := w.Connector.Connect(ctx)
	return traced{c}, err
}

type traced struct{ driver.Conn }

func (c traced) Raw() driver.Conn { return c.Conn }

// A pool that has no connection free is waited for.
func TestPoolExhausted(t *testing.T) {
	t.Parallel()
	db := testdb.DB(t)
	db.SetMaxOpenConns(1)
	busy, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := newNode(t)
	n.listen(t, listener.New(pgxdriver.Dial(db), listener.Config{DialTimeout: 50 * time.Millisecond}))
	if err := <-n.down; !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "from the pool") {
		t.Errorf("Down(%v)", err)
	}
	busy.Close()
	n.receives(t, "now")
}

// A listener reads UTF-8, whatever encoding its sessions begin with.
func TestEncoding(t *testing.T) {
	t.Parallel()
	dsn := testdb.WithParam(testdb.DSN(t), "client_encoding", "LATIN1")
	for _, l := range []pgcache.Listener{pgxdriver.ListenerDSN(dsn), pgxdriver.Listener(testdb.Open(t, "pgx", dsn))} {
		n := newNode(t)
		end := n.listen(t, l)
		n.receives(t, "é€")
		end()
		if len(n.down) > 0 {
			t.Errorf("Down(%v)", <-n.down)
		}
	}
}

// What the server cannot deliver it skips with an error (or ends the session, in later versions): a gap either way.
func TestUndeliverable(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	name := n.channel + "_ascii"
	admin := testdb.DB(t)
	exec := func(statement string) {
		t.Helper()
		if _, err := admin.Exec(statement); err != nil {
			t.Error(err)
		}
	}
	exec("CREATE DATABASE " + name + " TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING 'SQL_ASCII'")
	t.Cleanup(func() { exec("DROP DATABASE " + name + " WITH (FORCE)") })
	dsn := testdb.WithParam(testdb.DSN(t), "dbname", name)
	n.db = testdb.Open(t, "pgx", dsn)
	n.listen(t, pgxdriver.ListenerDSN(dsn))
	n.receives(t, "hello")
	if err := n.send(t.Context(), "no UTF-8: \xff"); err != nil {
		t.Fatal(err)
	}
	if err := <-n.down; !strings.Contains(err.Error(), "invalid byte sequence") {
		t.Errorf("Down(%v), want the server's complaint", err)
	}
	n.receives(t, "again")
}

func TestDSN(t *testing.T) {
	t.Parallel()
	dsn := testdb.WithParam(testdb.DSN(t), "application_name", "")
	n, m := newNode(t), newNode(t)
	endN := n.listen(t, pgxdriver.ListenerDSN(dsn))
	n.receives(t, "hello")
	endM := m.listen(t, pgxdriver.ListenerDSN(dsn))
	m.receives(t, "shared")
	n.receives(t, "still")
	endN()
	m.receives(t, "alone")
	endM()
}

func TestApplicationName(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.listen(t, pgxdriver.ListenerDSN(testdb.DSN(t)))
	n.receives(t, "hello")
	query := "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgcache listener'"
	var sessions int
	if err := n.db.QueryRowContext(t.Context(), query).Scan(&sessions); err != nil || sessions == 0 {
		t.Errorf("%d sessions are called so (%v), want some", sessions, err)
	}
}

func TestConfigurationFaults(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for want, l := range map[string]pgcache.Listener{
		"the *sql.DB is nil":                    pgxdriver.Listener(nil),
		"is not one of pgx's stdlib":            pgxdriver.Listener(testdb.Open(t, "postgres", testdb.DSN(t))),
		"cannot be parsed; it looks like":       pgxdriver.ListenerDSN("postgres://me:sec/ret@host/db"),
		"cannot be parsed: cannot parse `host=": pgxdriver.ListenerDSN("host=x port=secret"),
	} {
		err := l.Listen(t.Context(), n.channel, n)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "sec/ret") {
			t.Errorf("Listen returned %v, want something with %q", err, want)
		}
	}
}

// node is a Subscriber.
type node struct {
	db      *sql.DB
	channel string
	beat    chan time.Time
	notify  chan string
	down    chan error
}

func newNode(t *testing.T) *node {
	return &node{testdb.DB(t), testdb.Schema(t), make(chan time.Time, 1000), make(chan string, 1000), make(chan error, 1000)}
}

func (n *node) Probe(ctx context.Context, nonce string) error {
	return n.send(ctx, pgcache.ProbePrefix+nonce)
}
func (n *node) Trust(trusted time.Time) { n.beat <- trusted }
func (n *node) Notify(payload string)   { n.notify <- payload }
func (n *node) Down(err error)          { n.down <- err }

func (n *node) send(ctx context.Context, payload string) error {
	_, err := n.db.ExecContext(ctx, "SELECT pg_notify($1, $2)", n.channel, payload)
	return err
}

// listen calls Listen; the returned function ends it.
func (n *node) listen(t *testing.T, l pgcache.Listener) (end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Listen(ctx, n.channel, n) }()
	end = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Listen returned %v", err)
		}
		done <- nil
	}
	t.Cleanup(end)
	return end
}

// receives waits until n is live, sends payload and waits for it.
func (n *node) receives(t *testing.T, payload string) {
	t.Helper()
	<-n.beat
	if err := n.send(t.Context(), payload); err != nil {
		t.Fatal(err)
	}
	for got := range n.notify {
		if got == payload {
			return
		}
	}
}

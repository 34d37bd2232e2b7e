package pgcache_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"
)

// wire lies between a pool and its driver. It records the statements, and holds up those that a test names.
type wire struct {
	driver.Connector
	mu    sync.Mutex
	sent  []string
	stops []*stop
}

// stop holds up statements that contain text.
type stop struct {
	text    string
	after   bool          // it is done, only the caller does not know yet; else it is not sent yet
	arrived chan struct{} // one for each statement that is held up
	resume  chan struct{}
	once    sync.Once
	lost    error // what the caller gets in place of a reply
}

// openWire returns a pool with a wire in it.
func openWire(tb testing.TB, driverName, dsn string) (*sql.DB, *wire) {
	tb.Helper()
	w := &wire{}
	switch driverName {
	case "pgx":
		config, err := pgx.ParseConfig(dsn)
		if err != nil {
			tb.Fatal(err)
		}
		w.Connector = stdlib.GetConnector(*config)
	case "postgres":
		c, err := pq.NewConnector(dsn)
		if err != nil {
			tb.Fatal(err)
		}
		w.Connector = c
	default:
		tb.Fatalf("no driver %q", driverName)
	}
	db := sql.OpenDB(w)
	db.SetMaxOpenConns(20)
	tb.Cleanup(func() {
		w.releaseAll()
		if err := db.Close(); err != nil {
			tb.Error(err)
		}
	})
	return db, w
}

// named is how a query of sqlc begins: also that which publishes at once.
func named(query string) string { return "-- name: " + query }

// before holds up statements before they are sent, after holds up their replies.
func (w *wire) before(text string) *stop { return w.stop(text, false) }

func (w *wire) after(text string) *stop { return w.stop(text, true) }

// lose makes statements that contain text fail after the server has done them, until the stop is released.
func (w *wire) lose(text string, err error) *stop {
	s := w.stop(text, true)
	s.lost = err
	return s
}

func (w *wire) stop(text string, after bool) *stop {
	s := &stop{text: text, after: after, arrived: make(chan struct{}, 1000), resume: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stops = append(w.stops, s)
	return s
}

// release lets go what is held up and what will come.
func (s *stop) release() { s.once.Do(func() { close(s.resume) }) }

// wait waits until a statement is held up.
func (s *stop) wait(t *testing.T) {
	t.Helper()
	select {
	case <-s.arrived:
	case <-time.After(time.Minute):
		t.Fatalf("no statement with %q came", s.text)
	}
}

func (w *wire) releaseAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.stops {
		s.release()
	}
	w.stops = nil
}

// count is the number of statements sent so far that contain text.
func (w *wire) count(text string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.sent {
		if strings.Contains(s, text) {
			n++
		}
	}
	return n
}

// forget sets the counts back.
func (w *wire) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = nil
}

// background are the statements that a node sends by itself, whatever a test does meanwhile.
var background = []string{"Pulse", "Server", "Flush", "Pending", "ClaimFlushing", "MayVacuum", "ClaimSweep", "NoteEnded", "Expire"}

// statements returns the names of what was sent since forget, for messages and comparisons, but for the background's.
func (w *wire) statements() (names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.sent {
		name, _, _ := strings.Cut(strings.TrimPrefix(s, "-- name: "), "\n")
		name, _, _ = strings.Cut(name, " :")
		name = strings.TrimSuffix(name, "AndPublish")
		if !slices.Contains(background, name) {
			names = append(names, name)
		}
	}
	return names
}

func (w *wire) pass(ctx context.Context, query string, after bool) (lost error) {
	w.mu.Lock()
	if !after {
		w.sent = append(w.sent, query)
	}
	var held []*stop
	for _, s := range w.stops {
		if s.after == after && strings.Contains(query, s.text) {
			held = append(held, s)
		}
	}
	w.mu.Unlock()
	for _, s := range held {
		if s.lost != nil {
			select {
			case <-s.resume:
			default:
				lost = s.lost
			}
			continue
		}
		s.arrived <- struct{}{}
		select {
		case <-s.resume:
		case <-ctx.Done():
		}
	}
	return lost
}

// Connect implements driver.Connector.
func (w *wire) Connect(ctx context.Context) (driver.Conn, error) {
	inner, err := w.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &wireConn{inner, w}, nil
}

// wireConn is a connection with the optional interfaces that pgx's and lib/pq's have.
type wireConn struct {
	driver.Conn
	w *wire
}

// Raw is where pgxdriver finds the connection.
func (c *wireConn) Raw() driver.Conn { return c.Conn }

func (c *wireConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.w.pass(ctx, query, false)
	rows, err := c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
	if lost := c.w.pass(ctx, query, true); lost != nil && err == nil {
		rows.Close()
		return nil, lost
	}
	return rows, err
}

func (c *wireConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.w.pass(ctx, query, false)
	res, err := c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
	if lost := c.w.pass(ctx, query, true); lost != nil && err == nil {
		return nil, lost
	}
	return res, err
}

func (c *wireConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	c.w.pass(ctx, query, false)
	return c.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, query)
}

func (c *wireConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	c.w.pass(ctx, "BEGIN", false)
	return c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
}

func (c *wireConn) Ping(ctx context.Context) error { return c.Conn.(driver.Pinger).Ping(ctx) }

func (c *wireConn) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := c.Conn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

func (c *wireConn) ResetSession(ctx context.Context) error {
	if r, ok := c.Conn.(driver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}

func (c *wireConn) IsValid() bool {
	if v, ok := c.Conn.(driver.Validator); ok {
		return v.IsValid()
	}
	return true
}

// unstopped runs f while nothing new is held up.
func (w *wire) unstopped(f func() error) error {
	w.mu.Lock()
	stops := w.stops
	w.stops = nil
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.stops = append(w.stops, stops...)
	}()
	return f()
}

// without runs f while s holds up nothing new.
func (w *wire) without(s *stop, f func() error) error {
	w.mu.Lock()
	all := w.stops
	w.stops = slices.DeleteFunc(slices.Clone(all), func(o *stop) bool { return o == s })
	w.mu.Unlock()
	err := f()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stops = append(w.stops, s)
	return err
}

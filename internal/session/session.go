// Package session keeps one connection per pool apart from it, for what must not wait for a busy pool and for what belongs
// to a session: flushes, pulses and advisory locks.
//
// A session lock belongs to its connection, and pg_try_advisory_lock never blocks: so one connection can hold the locks of
// any number of loads, and no loader keeps one. When the session is lost, the server has released all its locks, and the
// next statement opens another.
package session

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/store"
)

const (
	// timeout bounds a statement on the session. It is not the caller's context that ends it: a driver closes a connection
	// whose statement is cut off, and all locks with it.
	timeout = 5 * time.Second
	idle    = 30 * time.Second // without locks and keepers, after which the connection is given back
	proofs  = 2
)

// ErrNoConnection is returned where the pool had no connection to give.
var ErrNoConnection = errors.New("no free connection in the pool")

// Session is the connection of one pool, shared by all caches on it. It is safe for concurrent use.
type Session struct {
	db   *sql.DB
	refs int // under registry's lock

	turn    chan struct{} // held by who uses the connection; a channel, so that waiting for it can be given up
	conn    *sql.Conn
	before  settings // what the connection's settings were in the pool
	mark    string   // what the session of conn is known by
	pooled  bool     // a transaction pooler is between: there is no session, only statements
	keepers int      // who wants it open although it is idle
	locks   int      // advisory locks held on conn
	budget  int      // how many there may be
	idle    *time.Timer
}

var registry = struct {
	sync.Mutex
	sessions map[*sql.DB]*Session
}{sessions: map[*sql.DB]*Session{}}

// Open returns the session of db. It touches no network. Every Open needs a Close.
func Open(db *sql.DB) *Session {
	registry.Lock()
	defer registry.Unlock()
	s := registry.sessions[db]
	if s == nil {
		s = &Session{db: db, turn: make(chan struct{}, 1)}
		s.idle = time.AfterFunc(idle, s.rest)
		registry.sessions[db] = s
	}
	s.refs++
	return s
}

// Close is called once for each Open. The last gives the connection back.
func (s *Session) Close() {
	registry.Lock()
	s.refs--
	last := s.refs == 0
	if last {
		delete(registry.sessions, s.db)
	}
	registry.Unlock()
	if last {
		s.idle.Stop()
		s.turn <- struct{}{}
		s.giveBack()
		<-s.turn
	}
}

// Keep keeps the connection open although it is idle, until release is called.
func (s *Session) Keep() (release func()) {
	s.turn <- struct{}{}
	s.keepers++
	<-s.turn
	return sync.OnceFunc(func() {
		s.turn <- struct{}{}
		s.keepers--
		s.restLater()
		<-s.turn
	})
}

// Do runs f, one statement or transaction, alone on the session. It waits for its turn, and for a connection if there is
// none yet, until ctx ends; then f has d, whatever becomes of ctx. An error that puts the connection in doubt closes it. If
// it had been lost since it was last used, and the server did not do the statement, f is called once more on a new one.
func (s *Session) Do(ctx context.Context, d time.Duration, f func(ctx context.Context, conn *sql.Conn) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	return s.do(ctx, d, f)
}

// do is Do for who has the turn.
func (s *Session) do(ctx context.Context, d time.Duration, f func(ctx context.Context, conn *sql.Conn) error) error {
	for {
		fresh := s.conn == nil
		if fresh {
			if err := s.connect(ctx); err != nil {
				return err
			}
		}
		err := s.bounded(ctx, d, f)
		if err == nil || sqlerr.State(err) != "" && !sqlerr.Connection(err) {
			return err // the server has answered
		}
		s.discard()
		if fresh || !sqlerr.NotDone(err) || ctx.Err() != nil {
			return err
		}
	}
}

func (s *Session) bounded(ctx context.Context, d time.Duration, f func(ctx context.Context, conn *sql.Conn) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d)
	defer cancel()
	return f(ctx, s.conn)
}

func (s *Session) enter(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		s.idle.Stop()
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the session: %w", ctx.Err())
	}
}

func (s *Session) leave() {
	s.restLater()
	<-s.turn
}

// restLater has the connection given back when nothing needs it for a while. The caller has the turn.
func (s *Session) restLater() {
	if s.conn != nil && s.locks == 0 && s.keepers == 0 {
		s.idle.Reset(idle)
	}
}

func (s *Session) rest() {
	select {
	case s.turn <- struct{}{}:
		if s.locks == 0 && s.keepers == 0 {
			s.giveBack()
		}
		<-s.turn
	default: // in use
	}
}

// connect takes a connection from the pool. The caller has the turn.
func (s *Session) connect(ctx context.Context) error {
	// Waiting for a free connection may be given up: there are no locks yet that could be lost.
	conn, err := s.db.Conn(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", ErrNoConnection, err)
		}
		return err
	}
	s.conn, s.mark, s.before, s.budget = conn, rand.Text(), settings{}, 0
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	if err := s.prepare(ctx); err != nil {
		s.discard()
		return err
	}
	return nil
}

// prepare finds out whether the connection has a session to itself, and sets it up if so.
func (s *Session) prepare(ctx context.Context) error {
	if s.pooled {
		return nil
	}
	if err := s.prove(ctx); err != nil || s.pooled {
		return err
	}
	return s.set(ctx)
}

// prove looks for a transaction pooler, before there is any setting or lock that could be left behind. A pooler gives the
// session that it has just had back to whoever asks next: then another connection finds the mark that this one has left, or
// this one does not find it any more. Where the pool has no other connection to spare, the second sign must do.
func (s *Session) prove(ctx context.Context) error {
	if err := store.MarkSession(ctx, s.conn, s.mark); err != nil {
		return err
	}
	for range proofs {
		others := ""
		if stats := s.db.Stats(); stats.MaxOpenConnections == 0 || stats.InUse < stats.MaxOpenConnections {
			spare, cancel := context.WithTimeout(ctx, timeout/5)
			others, _ = store.SessionMark(spare, s.db) // no answer: no other connection to spare
			cancel()
		}
		own, err := store.SessionMark(ctx, s.conn)
		if err != nil {
			return err
		}
		if others == s.mark || own != s.mark {
			s.pooled = true
			return nil
		}
	}
	return nil
}

// giveBack returns the connection to the pool as it was, or closes it for good. The caller has the turn.
func (s *Session) giveBack() {
	if s.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout/5)
	defer cancel()
	if !s.pooled {
		if err := s.before.restore(ctx, s.conn); err != nil {
			s.discard()
			return
		}
	}
	_ = s.conn.Close()
	s.conn, s.locks = nil, 0
}

// discard closes the connection for good: it must not go back to the pool with locks or settings of ours on it. For a pool
// below database/sql, such as pgxpool, driver.ErrBadConn only means that the connection is released: so the server is told
// to end the session first. The caller has the turn.
func (s *Session) discard() {
	if s.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout/5)
	defer cancel()
	if !s.pooled {
		_, _ = s.conn.ExecContext(ctx, "SELECT pg_terminate_backend(pg_backend_pid())")
	}
	_ = s.conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = s.conn.Close()
	s.conn, s.locks = nil, 0
}

// Package session keeps one connection per pool and process, on which everything runs that a busy pool must not hold up:
// advisory locks, flushes and pulses. The connection is taken from the pool when first needed, and its settings are restored
// before it goes back.
package session

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgcache/go/internal/panics"
	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/store"
)

const (
	timeout      = 5 * time.Second        // for one turn on the session, and for connecting
	leaveTimeout = 500 * time.Millisecond // for giving the connection back, or ending it
	idle         = 30 * time.Second       // without use: then the connection is given back
)

var errClosed = errors.New("the session is closed")

// Session is one user's handle on the session of a pool. It is safe for concurrent use, but for what is to be used within Do.
type Session struct {
	*shared
	close  sync.Once
	closed atomic.Bool
}

// shared is the session of one pool, for all its users.
type shared struct {
	db   *sql.DB
	refs int // how many handles are open; under registry's lock

	// A mutex, of conn, who, found, Locks and panicked: full while somebody has the turn. It is a channel, so that waiting for
	// it can be given up.
	turn   chan struct{}
	conn   *sql.Conn             // nil: there is none at the moment
	who    store.Backend         // the server process behind conn
	found  store.SessionSettings // to be restored; zero: no setting was changed
	pooled atomic.Bool           // see Pooled

	// Locks is how many locks on keys are held on the connection, of all caches. To be used within Do.
	Locks int

	panicked panicked

	mu   sync.Mutex  // of the following
	kept int         // how many have called Keep and not released it
	idle *time.Timer // runs while the session is neither kept nor used
}

var registry = struct {
	sync.Mutex
	sessions map[*sql.DB]*shared
}{sessions: map[*sql.DB]*shared{}}

// Open returns a handle on the session of db. It touches no network.
func Open(db *sql.DB) *Session {
	registry.Lock()
	defer registry.Unlock()
	s := registry.sessions[db]
	if s == nil {
		s = &shared{db: db, turn: make(chan struct{}, 1)}
		s.idle = time.AfterFunc(idle, s.giveBackIdle)
		registry.sessions[db] = s
	}
	s.refs++
	return &Session{shared: s}
}

// Close ends the handle: later calls of Do fail. The last handle of a pool waits for its turn and gives the connection back.
// Locks that a handle leaves behind stay until then.
func (s *Session) Close() error {
	s.close.Do(func() {
		s.closed.Store(true)
		registry.Lock()
		s.refs--
		last := s.refs == 0
		if last {
			delete(registry.sessions, s.db)
		}
		registry.Unlock()
		if last {
			s.turn <- struct{}{}
			defer func() { <-s.turn }()
			s.giveBack()
			s.idle.Stop()
		}
	})
	return nil
}

// Renew closes the connection for good: it may lead to another server than a new one would. The locks on it are lost. The next
// Do opens a new connection.
func (s *Session) Renew(ctx context.Context) {
	select {
	case s.turn <- struct{}{}:
		s.discard()
		<-s.turn
	case <-ctx.Done():
	}
}

// Keep keeps an idle session open until release is called.
func (s *Session) Keep() (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.kept--; s.kept == 0 {
			s.idle.Reset(idle)
		}
	})
}

// FoundPooled records that a statement within Do was answered by another backend than the session's: from now on Pooled says true.
func (s *Session) FoundPooled() { s.pooled.Store(true) }

// PID is the process ID of the session's backend. To be asked within Do.
func (s *Session) PID() int32 { return s.who.Pid }

// MaxLocks is max_locks_per_transaction of the server, 0 if connecting found a pooler. To be asked within Do.
func (s *Session) MaxLocks() int { return int(s.found.MaxLocks) }

// Do runs f while nobody else uses the session. It connects first if there is no connection.
//
// Do waits for its turn and for a connection until ctx ends. f gets a context of its own: a driver closes a connection whose
// statement is canceled, and the locks of all users are lost with it.
//
// After an error of the connection, a panic of the driver, or a statement that was canceled, Do closes the connection for good. If
// the connection was not opened by this Do, and the error says that the server did not do the statement, Do calls f once more on a
// new connection.
func (s *Session) Do(ctx context.Context, f func(ctx context.Context, conn *sql.Conn) error) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.closed.Load() {
		return errClosed
	}
	defer s.used()
	for {
		fresh := s.conn == nil
		if fresh {
			if err := s.connect(ctx); err != nil {
				return err
			}
		}
		err, broken := s.call(ctx, f)
		if panics.In(err) {
			s.abandon(err)
			return err
		}
		if broken {
			s.discard()
			if sqlerr.NotDone(err) && !fresh {
				continue
			}
		}
		return err
	}
}

// call calls f, for at most timeout. broken says that the connection can't be used any more.
func (s *shared) call(ctx context.Context, f func(ctx context.Context, conn *sql.Conn) error) (err error, broken bool) { //nolint:staticcheck // the error is f's answer
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	err = guarded(func() error { return f(ctx, s.conn) })
	broken = err != nil && (ctx.Err() != nil || sqlerr.Connection(err) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled))
	return err, broken
}

// used restarts the idle timer, unless the session is kept.
func (s *shared) used() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == 0 {
		s.idle.Reset(idle)
	}
}

// giveBackIdle gives the connection back, unless somebody uses it, keeps it, or has locks on it.
func (s *shared) giveBackIdle() {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	default:
		return // in use
	}
	s.mu.Lock()
	kept := s.kept
	s.mu.Unlock()
	if kept == 0 && s.Locks == 0 {
		s.giveBack()
	}
}

// Pooled says that a transaction pooler hands every statement to another session: no lock and no setting can be used.
func (s *shared) Pooled() bool { return s.pooled.Load() }

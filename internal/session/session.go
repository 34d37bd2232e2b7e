// Package session keeps one connection per pool and process, on which everything runs that a busy pool must not hold up:
// locks, flushes and the health statement. It is taken from the pool when first needed and goes back as it was found.
package session

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/store"
)

const (
	timeout      = 5 * time.Second        // for one turn on the session
	leaveTimeout = 500 * time.Millisecond // for giving the connection back, or ending it
	idle         = 30 * time.Second       // without use, after which the connection is given back
	abandoned    = "300000"               // ms, longer than any load: after which the server ends a session that nobody uses
	lockWait     = "1000"                 // ms: nothing of ours waits longer for a lock on the session
)

var (
	// ErrNoConn says that the pool had no free connection within the time.
	ErrNoConn = errors.New("no free connection in the pool")
	errClosed = errors.New("the session is closed")
)

// Session is one user's handle on the session of a pool.
type Session struct {
	*shared
	close  sync.Once
	closed atomic.Bool
}

// shared is the session of one pool, for all its users.
type shared struct {
	db   *sql.DB
	refs int // under registry's lock

	turn   chan struct{} // one f at a time; a channel, so that waiting for it can be given up
	conn   *sql.Conn
	who    store.Backend // the server process behind conn
	found  store.SessionSettings
	pooled atomic.Bool

	// Locks is how many locks on keys are held on the connection, of all caches. To be used within Do.
	Locks int

	mu   sync.Mutex // of the following
	kept int
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
		s.idle = time.AfterFunc(idle, s.rest)
		registry.sessions[db] = s
	}
	s.refs++
	return &Session{shared: s}
}

// Close ends the handle; the last one gives the connection back.
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

// Renew closes the connection for good: it may lead to another server than new ones would. Locks on it are lost.
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

// FoundPooled says that a statement within Do was answered by another backend than the session's.
func (s *Session) FoundPooled() { s.pooled.Store(true) }

// PID is the session's backend and MaxLocks its server's max_locks_per_transaction; to be asked within Do.
func (s *Session) PID() int32 { return s.who.Pid }

// MaxLocks: see PID.
func (s *Session) MaxLocks() int { return int(s.found.MaxLocks) }

// Do runs f alone on the session, connecting first if need be. It waits for its turn and for a connection until ctx
// ends; f gets a context of its own, because a driver closes a connection whose statement is cut off, and everybody's
// locks with it. After an error of the connection, or a statement cut off, the connection is closed for good. If it had
// died since its last use, and the server did not do the statement, f is called once more on a new one.
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
		if broken {
			s.discard()
			if sqlerr.NotDone(err) && !fresh {
				continue
			}
		}
		return err
	}
}

func (s *shared) call(ctx context.Context, f func(ctx context.Context, conn *sql.Conn) error) (err error, broken bool) { //nolint:staticcheck // the error is f's answer
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	err = f(ctx, s.conn)
	broken = err != nil && (ctx.Err() != nil || sqlerr.Connection(err) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled))
	return err, broken
}

// used lets the time of rest begin.
func (s *shared) used() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == 0 {
		s.idle.Reset(idle)
	}
}

// rest gives the connection back when nobody has used it for a while.
func (s *shared) rest() {
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

// take takes a connection from the pool.
func (s *shared) take(ctx context.Context) (*sql.Conn, error) {
	conn, err := s.db.Conn(ctx)
	if err != nil && ctx.Err() != nil {
		if pool := s.db.Stats(); pool.MaxOpenConnections > 0 && pool.InUse >= pool.MaxOpenConnections {
			err = fmt.Errorf("%w: %w", ErrNoConn, err)
		}
	}
	return conn, err
}

// connect opens the session. The caller has the turn.
func (s *shared) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// Waiting for a free connection may be given up: there is nothing yet that could be lost.
	conn, err := s.take(ctx)
	if err != nil {
		return err
	}
	s.conn = conn
	if err := s.setUp(ctx); err != nil {
		s.giveBack()
		return err
	}
	return nil
}

// setUp proves that the connection has a session to itself, and only then changes anything in it.
func (s *shared) setUp(ctx context.Context) (err error) {
	if s.who, err = store.AskBackend(ctx, s.conn); err != nil || s.Pooled() {
		return err
	}
	if err := s.prove(ctx); err != nil || s.Pooled() {
		return err
	}
	if s.found, err = store.AskSettings(ctx, s.conn); err != nil {
		return err
	}
	// A process that is frozen, or cut off without a word, must not hold its locks for as long as TCP takes to notice:
	// hours. The isolation is what flushes and looks need: a snapshot from after they waited.
	ours := s.found
	ours.IdleSessionTimeout, ours.Isolation, ours.LockTimeout = abandoned, "read committed", lockWait
	done, err := store.Configure(ctx, s.conn, s.who.Pid, ours)
	if err == nil && !done {
		s.pooled.Store(true)
		s.found = store.SessionSettings{} // nothing was changed
	}
	return err
}

const proofs = 2

// prove finds out whether a pooler is between. It gives the session that it has just had back to whoever asks next: then
// another connection is answered by the same backend, or this one by another.
func (s *shared) prove(ctx context.Context) error {
	for range proofs {
		others, err := s.askAnother(ctx)
		if err != nil {
			return err
		}
		own, err := store.AskBackend(ctx, s.conn)
		if err != nil {
			return err
		}
		if others == s.who || own != s.who {
			s.pooled.Store(true)
			return nil
		}
	}
	return nil
}

// askAnother says which backend answers on another connection. Where the pool has none to spare, nobody does, and the other
// sign must do: a busy pool must not keep the session from being opened.
func (s *shared) askAnother(ctx context.Context) (store.Backend, error) {
	waiting, cancel := context.WithTimeout(ctx, timeout/10)
	defer cancel()
	other, err := s.take(waiting)
	if err != nil {
		if ctx.Err() == nil && waiting.Err() != nil {
			err = nil
		}
		return store.Backend{}, err
	}
	defer other.Close()
	return store.AskBackend(ctx, other)
}

// Pooled says that a transaction pooler hands every statement to another session: no lock and no setting can be used.
func (s *shared) Pooled() bool { return s.pooled.Load() }

// restoreTries: a pooler hands a statement to any of its sessions, and it may be ours the next time.
const restoreTries = 100

// giveBack returns the connection to the pool as it was found, or closes it for good. The caller has the turn.
func (s *shared) giveBack() {
	if s.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	// RESET would be wrong: the application may have set them itself when it connected.
	done, err := s.found.LockTimeout == "", error(nil) // then nothing was changed
	for try := 0; !done && err == nil && try < restoreTries; try++ {
		if done, err = store.Restore(ctx, s.conn, s.who.Pid, s.found); !done && err == nil {
			s.pooled.Store(true)
		}
	}
	if err != nil || !done {
		s.discard()
		return
	}
	s.conn.Close()
	s.forget()
}

func (s *shared) forget() {
	s.conn, s.Locks, s.who, s.found = nil, 0, store.Backend{}, store.SessionSettings{}
}

// discard closes the connection for good. ErrBadConn alone does not see to that: for a *sql.DB on top of another pool, as
// pgx's OpenDBFromPool makes it, closing gives the connection back to that pool, with all that is set and locked in it.
// So the backend is ended first. The caller has the turn.
func (s *shared) discard() {
	if s.conn == nil {
		return
	}
	if !s.Pooled() {
		ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
		_ = store.EndSession(ctx, s.conn) // the answer is an error: the session has ended
		cancel()
	}
	_ = s.conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = s.conn.Close()
	s.forget()
}

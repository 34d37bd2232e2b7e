// Package lock holds advisory locks on one session per pool.
//
// A session lock belongs to its connection, and pg_try_advisory_lock never blocks: so one connection can hold the locks
// of any number of loads, and no loader pins one. When the session is lost, the server has released all its locks, and
// the next attempt opens another.
package lock

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/pgcache/go/internal/store"
)

// timeout bounds a statement on the lock session. It is not the caller's context that ends it: a driver closes a
// connection whose statement is cut off, and all locks with it.
const timeout = 5 * time.Second

const (
	idle      = 30 * time.Second // without locks, after which the session is closed
	abandoned = 5 * time.Minute  // longer than any load: after which the server ends a session that nobody uses
)

// Session is the lock session of one pool, shared by all caches on it.
type Session struct {
	db   *sql.DB
	refs int // under registry's lock

	mu     chan struct{} // one statement at a time; a channel, so that waiting for it can be given up
	conn   *sql.Conn
	mark   string      // what the session of conn is known by
	pooled bool        // there are no sessions to be had: locks are given up
	held   int         // locks on conn
	idle   *time.Timer // runs while there are none
}

var registry = struct {
	sync.Mutex
	sessions map[*sql.DB]*Session
}{sessions: map[*sql.DB]*Session{}}

// Locks are the locks of one cache.
type Locks struct {
	session *Session
	class   int32
	close   sync.Once
}

// Open returns the locks of the cache that space names. It touches no network.
func Open(db *sql.DB, space string) *Locks {
	registry.Lock()
	defer registry.Unlock()
	s := registry.sessions[db]
	if s == nil {
		s = &Session{db: db, mu: make(chan struct{}, 1)}
		s.idle = time.AfterFunc(idle, s.rest)
		registry.sessions[db] = s
	}
	s.refs++
	return &Locks{session: s, class: store.Hash(space)}
}

// Close gives the session back; the last to do so ends it.
func (l *Locks) Close() error {
	l.close.Do(func() {
		registry.Lock()
		l.session.refs--
		last := l.session.refs == 0
		if last {
			delete(registry.sessions, l.session.db)
		}
		registry.Unlock()
		if last {
			l.session.idle.Stop()
			l.session.mu <- struct{}{}
			l.session.discard()
			<-l.session.mu
		}
	})
	return nil
}

// TryLock tries to lock each of keys and says which it got. After an error none of them is held.
func (l *Locks) TryLock(ctx context.Context, keys []string) (got []bool, err error) {
	s := l.session
	select {
	case s.mu <- struct{}{}:
		defer func() { <-s.mu }()
	case <-ctx.Done():
		return nil, fmt.Errorf("advisory lock: %w", ctx.Err())
	}
	if s.pooled {
		return nil, fmt.Errorf("advisory lock: %w", errPooled)
	}
	s.idle.Stop()
	for {
		fresh := s.conn == nil
		if fresh {
			if err := s.connect(ctx); err != nil {
				return nil, fmt.Errorf("advisory lock: %w", err)
			}
		}
		got, err = l.try(ctx, keys)
		if err == nil {
			break
		}
		s.discard()
		if fresh || s.pooled {
			return nil, fmt.Errorf("advisory lock: %w", err)
		}
		// The session had died since it was last used: once more on a new one.
	}
	for _, g := range got {
		if g {
			s.held++
		}
	}
	if s.held == 0 {
		s.idle.Reset(idle)
	}
	return got, nil
}

func (l *Locks) try(ctx context.Context, keys []string) ([]bool, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	got, pooled, err := store.TryLocks(ctx, l.session.conn, l.session.mark, l.class, keys)
	if err == nil && pooled {
		l.session.pooled = true
		err = errPooled
	}
	if err == nil && len(got) != len(keys) {
		err = fmt.Errorf("%d answers for %d locks", len(got), len(keys))
	}
	return got, err
}

// errPooled: behind a pooler that hands every statement to another session, a lock is taken on one and missed on the
// next, and stays. Nothing can be locked through it.
var errPooled = errors.New("a transaction pooler is in between, which keeps no session: advisory locks can't be used")

// Unlock gives keys back, whatever has happened to the caller's context. A session that is in doubt is thrown away, and
// its locks with it.
func (l *Locks) Unlock(keys []string) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	s := l.session
	select {
	case s.mu <- struct{}{}:
		defer func() { <-s.mu }()
	case <-ctx.Done():
		return
	}
	if s.conn == nil {
		return // lost with its locks
	}
	held, pooled, err := store.Unlocks(ctx, s.conn, s.mark, l.class, keys)
	for try := 0; pooled && err == nil && try < unlockTries; try++ {
		// A pooler after all. The session that has the locks is one of its others: it may be the next.
		s.pooled = true
		_, pooled, err = store.Unlocks(ctx, s.conn, s.mark, l.class, keys)
	}
	if err != nil || s.pooled || slices.Contains(held, false) {
		s.discard()
		return
	}
	if s.held -= len(keys); s.held <= 0 {
		s.idle.Reset(idle)
	}
}

const (
	unlockTries = 100
	proofs      = 2
)

// connect opens the session. The caller holds s.mu.
func (s *Session) connect(ctx context.Context) error {
	// Waiting for a free connection may be given up: there are no locks yet that could be lost.
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return err
	}
	// A process that is frozen, or cut off without a word, must not hold its locks for as long as TCP takes to notice:
	// hours. Servers before 14 don't know the setting, and do without.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	_, _ = conn.ExecContext(ctx, "SET idle_session_timeout = "+strconv.FormatInt(abandoned.Milliseconds(), 10))
	s.conn, s.mark = conn, rand.Text()
	if err := s.prove(ctx); err != nil {
		s.discard()
		return err
	}
	return nil
}

// prove finds out whether the connection has a session to itself, before it has any lock that could be left behind.
// A transaction pooler gives the session that it has just had back to whoever asks next: then another connection finds
// the mark that this one has left, or this one does not find it any more.
func (s *Session) prove(ctx context.Context) error {
	if err := store.MarkSession(ctx, s.conn, s.mark); err != nil {
		return err
	}
	for range proofs {
		others, err := store.SessionMark(ctx, s.db)
		if err != nil {
			return err
		}
		own, err := store.SessionMark(ctx, s.conn)
		if err != nil {
			return err
		}
		if others == s.mark || own != s.mark {
			s.pooled = true
			return errPooled
		}
	}
	return nil
}

// rest gives the connection back to the pool's budget when nothing has been locked for a while.
func (s *Session) rest() {
	select {
	case s.mu <- struct{}{}:
		defer func() { <-s.mu }()
		if s.held == 0 {
			s.discard()
		}
	default: // in use
	}
}

// discard closes the session's connection for good: it must not go back to the pool with locks on it. The caller holds
// s.mu.
func (s *Session) discard() {
	if s.conn == nil {
		return
	}
	_ = s.conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = s.conn.Close()
	s.conn, s.held = nil, 0
}

package session

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"github.com/pgcache/go/internal/panics"
	"github.com/pgcache/go/internal/store"
)

const (
	abandoned = "300000" // ms, idle_session_timeout: the server ends a session that is idle for so long, longer than any load takes
	lockWait  = "1000"   // ms, lock_timeout: no statement on the session waits longer for a lock
)

// take takes a connection from the pool. The error is a store.NoConnectionError if all were in use when ctx ended.
func (s *shared) take(ctx context.Context) (*sql.Conn, error) {
	conn, err := s.db.Conn(ctx)
	if err != nil && ctx.Err() != nil {
		if pool := s.db.Stats(); pool.MaxOpenConnections > 0 && pool.InUse >= pool.MaxOpenConnections {
			err = &store.NoConnectionError{Err: err}
		}
	}
	return conn, err
}

// connect takes a connection and sets it up, or leaves conn nil and returns an error. The caller has the turn.
func (s *shared) connect(ctx context.Context) error {
	if err := s.panicked.pausing(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// The end of ctx may end the wait for a free connection, unlike a statement in Do: no lock is held yet that could be lost.
	err := guarded(func() (err error) {
		s.conn, err = s.take(ctx)
		return err
	})
	if err == nil {
		err = guarded(func() error { return s.setUp(ctx) })
	}
	switch {
	case panics.In(err):
		s.abandon(err)
	case err != nil:
		s.giveBack()
	}
	return err
}

// setUp finds out whether a transaction pooler is in between, and changes the session's settings only if there is none.
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
	// A process that is frozen, or whose network is cut, must not hold its locks until TCP notices, which takes hours: the server ends
	// an idle session. Flushes and looks wait for locks and then read: in READ COMMITTED they read with a snapshot from after the wait.
	ours := s.found
	ours.IdleSessionTimeout, ours.Isolation, ours.LockTimeout = abandoned, "read committed", lockWait
	done, err := store.Configure(ctx, s.conn, s.who.Pid, ours)
	if err == nil && !done {
		s.pooled.Store(true)
		s.found = store.SessionSettings{} // nothing was changed
	}
	return err
}

const proofs = 2 // how often prove asks

// prove finds out whether a transaction pooler is in between. A pooler hands the session that it used last to whichever connection
// asks next. So behind one, another connection is answered by the same backend as this one, or this one by another than before.
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

// askAnother says which backend answers on another connection of the pool. If the pool has none free for a while it returns the
// zero Backend, and prove has only the other sign: a busy pool must not keep the session from being opened.
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
	var who store.Backend
	err = guarded(func() (err error) {
		who, err = store.AskBackend(ctx, other)
		return err
	})
	if panics.In(err) {
		leave(other)
	} else {
		_ = other.Close()
	}
	return who, err
}

// restoreTries bounds how often a statement that restores settings is sent: a pooler hands each to any of its sessions, and the
// one whose settings were changed may be the next.
const restoreTries = 100

// giveBack restores the settings, releases all locks and returns the connection to the pool. If that fails it closes the
// connection for good. The caller has the turn.
func (s *shared) giveBack() {
	if s.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	// RESET would be wrong: the application may have changed the settings when it connected.
	done, err := s.found.LockTimeout == "", error(nil) // found is zero: no setting was changed
	for try := 0; !done && err == nil && try < restoreTries; try++ {
		err = guarded(func() (err error) {
			done, err = store.Restore(ctx, s.conn, s.who.Pid, s.found)
			return err
		})
		if !done && err == nil {
			s.pooled.Store(true)
		}
	}
	if panics.In(err) {
		s.abandon(err)
		return
	}
	if err != nil || !done {
		s.discard()
		return
	}
	s.conn.Close()
	s.forget()
}

// forget notes that there is no connection any more. The caller has the turn.
func (s *shared) forget() {
	s.conn, s.Locks, s.who, s.found = nil, 0, store.Backend{}, store.SessionSettings{}
}

// discard closes the connection for good. ErrBadConn alone does not do that for a *sql.DB on top of another pool, as pgx's
// OpenDBFromPool makes it: closing gives the connection back to that pool, with all settings and locks of the session.
// So discard ends the backend first. The caller has the turn.
func (s *shared) discard() {
	if s.conn == nil {
		return
	}
	if !s.Pooled() {
		ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
		err := guarded(func() error { return store.EndSession(ctx, s.conn) }) // the answer is an error: the session has ended
		cancel()
		if panics.In(err) {
			s.abandon(err)
			return
		}
	}
	_ = s.conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = s.conn.Close()
	s.forget()
}

package session

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"github.com/pgcache/go/internal/panics"
	"github.com/pgcache/go/internal/store"
)

const (
	abandoned = "300000" // ms, longer than any load: after which the server ends a session that nobody uses
	lockWait  = "1000"   // ms: nothing of ours waits longer for a lock on the session
)

// take takes a connection from the pool, or says with a store.NoConnectionError that it had none until ctx ended.
func (s *shared) take(ctx context.Context) (*sql.Conn, error) {
	conn, err := s.db.Conn(ctx)
	if err != nil && ctx.Err() != nil {
		if pool := s.db.Stats(); pool.MaxOpenConnections > 0 && pool.InUse >= pool.MaxOpenConnections {
			err = &store.NoConnectionError{Err: err}
		}
	}
	return conn, err
}

// connect opens the session. The caller has the turn.
func (s *shared) connect(ctx context.Context) error {
	if err := s.panicked.pausing(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// Waiting for a free connection may be given up: there is nothing yet that could be lost.
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

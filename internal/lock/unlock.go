package lock

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"

	"github.com/pgcache/go/internal/store"
)

// unlockTries: a pooler hands a statement to any of its sessions, and it may be the one with the locks the next time.
const unlockTries = 100

// endsSession makes err one of the connection, so that Session.Do closes it: what is held on it is not known any more.
func endsSession(err error) error { return fmt.Errorf("%w: %v", driver.ErrBadConn, err) } //nolint:errorlint // its kind must not show

// Unlock gives keys back, all that one call got. It returns at once.
func (l *Locks) Unlock(keys []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.releasing = append(l.releasing, names(keys)...)
	if !l.unlocking {
		l.unlocking = true
		l.wg.Go(l.unlock)
	}
}

// unlock gives back what is to be given back, until there is nothing.
func (l *Locks) unlock() {
	for {
		l.mu.Lock()
		release := l.releasing
		l.releasing = nil
		if l.unlocking = len(release) > 0; !l.unlocking {
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		// An error has ended the session, or there is none: the locks are gone either way. No deadline for the turn: a
		// lock must not be left behind because the session is busy.
		_ = l.session.Do(context.Background(), func(ctx context.Context, conn *sql.Conn) error { return l.release(ctx, conn, release) })
	}
}

func (l *Locks) release(ctx context.Context, conn *sql.Conn, names []string) error {
	if l.conn != conn {
		return nil // lost with its locks
	}
	var ids []int32
	for _, name := range names {
		if l.held[name] == 0 {
			continue // never had a lock
		}
		if l.held[name]--; l.held[name] == 0 {
			delete(l.held, name)
		}
		ids = append(ids, store.Hash(name))
	}
	if len(ids) == 0 {
		return nil
	}
	l.session.Locks -= len(ids)
	held, pooled, err := store.Unlocks(ctx, conn, l.session.PID(), l.class, ids)
	for try := 0; pooled && err == nil && try < unlockTries; try++ {
		// A pooler after all. The session that has the locks is one of its others: it may be the next.
		l.session.FoundPooled()
		_, pooled, err = store.Unlocks(ctx, conn, l.session.PID(), l.class, ids)
	}
	if err == nil && slices.Contains(held, false) && !l.session.Pooled() {
		err = errors.New("a lock was not held")
	}
	if err != nil {
		return endsSession(err)
	}
	return nil
}

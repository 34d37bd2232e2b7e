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

// unlockTries bounds how often a statement that releases locks is sent: a pooler hands each to any of its sessions, and the one that has the
// locks may be the next.
const unlockTries = 100

// endsSession turns err into an error of the connection: it is not known which locks are held there, so Session.Do closes it, and
// may call its function once more on a new connection.
func endsSession(err error) error { return fmt.Errorf("%w: %v", driver.ErrBadConn, err) } //nolint:errorlint // its kind must not show

// Unlock gives keys back. They must be all the keys that one call got: their number decides which locks they have. It
// returns at once.
func (l *Locks) Unlock(keys []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.releasing = append(l.releasing, names(keys)...)
	if !l.unlocking {
		l.unlocking = true
		l.wg.Go(l.unlock)
	}
}

// unlock releases what Unlock gave back, until there is nothing left.
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
		// After an error there is no session any more, and no lock, unless Close was called before. The wait for the turn has no
		// deadline: a lock must not be left behind because the session is busy.
		_ = l.session.Do(context.Background(), func(ctx context.Context, conn *sql.Conn) error { return l.release(ctx, conn, release) })
	}
}

// release releases the locks of names on conn, each as often as it is named. It does nothing if another connection held them.
func (l *Locks) release(ctx context.Context, conn *sql.Conn, names []string) error {
	if l.conn != conn {
		return nil // lost with its locks
	}
	var ids []int32
	for _, name := range names {
		if l.held[name] == 0 {
			continue // it was got without a lock
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
		// There is a pooler, which was not found before. Another of its sessions has the locks, and may be the next to answer.
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

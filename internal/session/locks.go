package session

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/pgcache/go/internal/store"
)

// Every advisory lock takes a place in the server's lock table, which all sessions share: it has max_connections times
// max_locks_per_transaction places, and where it is full statements of others fail. A process has at most half of what one
// transaction may have, and never more than maxLocks. A process that listens has two connections, so a fleet has at most
// max_connections/2 processes, which together take at most a quarter of the table.
const maxLocks = 128

func budget(perTransaction int) int { return min(maxLocks, max(1, perTransaction/2)) }

// manyKeys is the largest number of keys that have a lock each. A call for more has one lock, on the list of its keys: the
// same call of another process waits for it, and no key ever waits for the slow loader of another one.
const manyKeys = 16

// Locks are the locks of one cache.
type Locks struct {
	s     *Session
	class int32

	mu     sync.Mutex
	grants map[string][]*grant // by key, the oldest first: a key may be locked anew before it is unlocked
	close  sync.Once
}

// grant is one lock, or the leave to do without, for one key or several.
type grant struct {
	id   int32
	real bool // it is on the session; else it was beyond the budget
	keys int  // that have not been unlocked
}

// OpenLocks returns the locks of the cache that space names. It touches no network.
func OpenLocks(db *sql.DB, space string) *Locks {
	// A class of their own: a key's number could otherwise be that of the lock which flushes take.
	return &Locks{s: Open(db), class: store.Hash(space + " keys"), grants: map[string][]*grant{}}
}

// Close gives everything back.
func (l *Locks) Close() error {
	l.close.Do(l.s.Close)
	return nil
}

// errPooled: behind a pooler that hands every statement to another session, a lock is taken on one and missed on the
// next, and stays. Nothing can be locked through it.
var errPooled = errors.New("a transaction pooler is in between, which keeps no session: advisory locks can't be used")

// TryLock tries to lock each of keys and says which it got. Beyond the process's budget of locks it says yes without one: a
// load that has none is slower for the database, not wrong. After an error none of keys is held.
func (l *Locks) TryLock(ctx context.Context, keys []string) (got []bool, err error) {
	if len(keys) == 0 {
		return nil, nil
	}
	s := l.s
	if err := s.enter(ctx); err != nil {
		return nil, fmt.Errorf("advisory lock: %w", err)
	}
	defer s.leave()
	grants := newGrants(keys)
	if s.conn == nil {
		if err := s.connect(ctx); err != nil {
			return nil, fmt.Errorf("advisory lock: %w", err)
		}
	}
	granted := make([]bool, len(grants))
	var ids []int32
	var asked []int
	for i, g := range grants {
		if granted[i] = s.locks+len(ids) >= s.budget; !granted[i] {
			ids, asked = append(ids, g.id), append(asked, i)
		}
	}
	if len(ids) > 0 {
		err := s.do(ctx, timeout, func(ctx context.Context, conn *sql.Conn) error {
			if s.pooled {
				return errPooled
			}
			locked, pooled, err := store.TryLocks(ctx, conn, s.mark, l.class, ids)
			if err == nil && pooled {
				s.pooled, err = true, errPooled
			}
			if err == nil && len(locked) != len(ids) {
				err = fmt.Errorf("%d answers for %d locks", len(locked), len(ids))
			}
			for n, ok := range locked {
				if err == nil && ok {
					granted[asked[n]], grants[asked[n]].real = true, true
					s.locks++
				}
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("advisory lock: %w", err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	got = make([]bool, len(keys))
	for i, key := range keys {
		n := min(i, len(grants)-1)
		if got[i] = granted[n]; granted[n] {
			grants[n].keys++
			l.grants[key] = append(l.grants[key], grants[n])
		}
	}
	return got, nil
}

// newGrants has a grant for each key, or one for all.
func newGrants(keys []string) []*grant {
	if len(keys) > manyKeys {
		return []*grant{{id: store.Hash(strings.Join(slices.Sorted(slices.Values(keys)), "\x00"))}}
	}
	grants := make([]*grant, len(keys))
	for i, key := range keys {
		grants[i] = &grant{id: store.Hash(key)}
	}
	return grants
}

const unlockTries = 100

// Unlock gives keys back, whatever has happened to the caller's context. A session that is in doubt is closed, and its locks
// with it.
func (l *Locks) Unlock(keys []string) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	s := l.s
	if s.enter(ctx) != nil {
		return
	}
	defer s.leave()
	ids := l.release(keys)
	if len(ids) == 0 || s.conn == nil {
		return // nothing was locked, or it was lost with its session
	}
	held, pooled, err := store.Unlocks(ctx, s.conn, s.mark, l.class, ids)
	for try := 0; pooled && err == nil && try < unlockTries; try++ {
		// A pooler after all. The session that has the locks is one of its others: it may be the next.
		s.pooled = true
		_, pooled, err = store.Unlocks(ctx, s.conn, s.mark, l.class, ids)
	}
	if err != nil || s.pooled || slices.Contains(held, false) {
		s.discard()
		return
	}
	s.locks = max(0, s.locks-len(ids))
}

// release forgets keys and returns the locks that are to be given back.
func (l *Locks) release(keys []string) (ids []int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		all := l.grants[key]
		if len(all) == 0 {
			continue
		}
		g := all[0]
		if l.grants[key] = all[1:]; len(all) == 1 {
			delete(l.grants, key)
		}
		if g.keys--; g.keys == 0 && g.real {
			ids = append(ids, g.id)
		}
	}
	return ids
}

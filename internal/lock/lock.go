// Package lock holds the locks on keys, by which one process loads a key while the others wait: advisory locks (Locks), all of
// a process on its one session of a pool, or leases (Leases), which are rows of a table and need no session.
//
// An advisory lock belongs to its connection, and pg_try_advisory_lock never blocks: so one connection can hold the locks
// of any number of loads, and no loader needs a connection for its lock. When the session is lost, the server has released all
// its locks.
package lock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/pgcache/go/internal/session"
	"github.com/pgcache/go/internal/store"
)

// The lock table of a server has room for max_connections * max_locks_per_transaction locks, and locks on tables are among them.
// A session holds at most half of max_locks_per_transaction, and a process has a connection to listen beside its session:
// so a server has room for max_connections / 2 processes, which hold a quarter of the lock table at most.

// most is how many advisory locks a session holds at most, and how many leases a cache has at most.
const most = 128

// bound returns how many advisory locks a session may hold where max_locks_per_transaction is maxLocks.
func bound(maxLocks int) int { return min(most, maxLocks/2) }

// single is how many keys of one call have locks of their own at most. The keys of a larger call share one lock, on their whole
// list: another process waits only if it asks for the same list, and no key of it waits for the slow loader of another call.
const single = 16

// Locks are the advisory locks of one cache. They are safe for concurrent use.
type Locks struct {
	session   *session.Session
	class     int32 // the first number of each lock, the second is the hash of its name
	unguarded atomic.Uint64

	mu        sync.Mutex // of asking, releasing, unlocking, and ask.taken
	asking    []*ask     // for the next statement
	releasing []string   // names of locks to be given back
	unlocking bool       // the goroutine unlock runs
	wg        sync.WaitGroup

	// To be used within session.Do only.
	conn *sql.Conn      // the connection that holds the locks in held
	held map[string]int // how often the session has each lock, by their names
}

// Look is the options of LockAndLook.
type Look struct {
	Stale  bool // values that have expired and may still be handed out come too
	Strict bool // a key that this process may not lock, because it has as many locks as it may, is not got; else it is got without a lock
	Live   bool // leases: keys that have a live row are locked too; Locks always lock them
}

// ask is a request for the locks of keys, and for a look at their rows.
type ask struct {
	store  *store.Store // nil: no look
	keys   []string
	look   Look
	taken  bool          // a caller has taken it from Locks.asking and will answer it; under Locks.mu
	done   chan struct{} // closed when it is answered
	got    []bool
	looked store.Looked
	err    error
}

// Open returns the locks of the cache that space names. It touches no network.
func Open(db *sql.DB, space string) *Locks {
	return &Locks{session: session.Open(db), class: store.KeyClass(space)}
}

// Close waits until what Unlock gives back is released, and closes the handle on the session. Locks that nobody gave back stay
// held while another handle keeps the session open.
func (l *Locks) Close() error {
	l.wg.Wait()
	return l.session.Close()
}

// Unguarded returns how many keys TryLock and LockAndLook said to have got without taking a lock, because the process has as many
// locks as it may. A call for more than single keys counts once.
func (l *Locks) Unguarded() uint64 { return l.unguarded.Load() }

// TryLock tries to lock each of keys and says which it got. After an error none of them is held.
func (l *Locks) TryLock(ctx context.Context, keys []string) (got []bool, err error) {
	got, _, err = l.ask(ctx, &ask{keys: keys})
	return got, err
}

// LockAndLook is TryLock, and reads the rows of keys after it, in the same statement. Calls at the same time share the statement:
// if one of them asks for stale values, all may get them.
func (l *Locks) LockAndLook(ctx context.Context, s *store.Store, keys []string, look Look) (got []bool, looked store.Looked, err error) {
	return l.ask(ctx, &ask{store: s, keys: keys, look: look})
}

// ask queues a, waits for a turn on the session, and then answers all that are queued. It returns when a is answered, by this turn
// or by that of another caller.
func (l *Locks) ask(ctx context.Context, a *ask) ([]bool, store.Looked, error) {
	if l.session.Pooled() {
		return nil, store.Looked{}, errPooled
	}
	if len(a.keys) == 0 {
		return nil, store.Looked{}, nil
	}
	a.done = make(chan struct{})
	l.mu.Lock()
	l.asking = append(l.asking, a)
	l.mu.Unlock()

	turn, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-a.done: // somebody else's statement has answered
			cancel()
		case <-turn.Done():
		}
	}()
	var batch []*ask
	err := l.session.Do(turn, func(ctx context.Context, conn *sql.Conn) error {
		if batch == nil {
			l.mu.Lock()
			batch, l.asking = l.asking, nil
			for _, a := range batch {
				a.taken = true
			}
			l.mu.Unlock()
		}
		return l.serve(ctx, conn, batch)
	})
	for _, b := range batch {
		if b.err = err; err != nil {
			b.got, b.looked = nil, store.Looked{}
		}
		close(b.done)
	}
	l.mu.Lock()
	if !a.taken {
		l.asking = slices.DeleteFunc(l.asking, func(b *ask) bool { return a == b })
		l.mu.Unlock()
		return nil, store.Looked{}, fmt.Errorf("advisory lock: %w", err)
	}
	l.mu.Unlock()
	// Whoever took a answers it within a turn. The end of ctx does not end this wait: the locks may be taken, and only this caller
	// gives them back.
	<-a.done
	if a.err != nil {
		return nil, store.Looked{}, fmt.Errorf("advisory lock: %w", a.err)
	}
	return a.got, a.looked, nil
}

// errPooled is the error behind a pooler that hands every statement to another session: the statement that gives a lock back would
// reach another session than the one that has it, and the lock would stay.
var errPooled = errors.New("a transaction pooler is in between, which keeps no session: advisory locks can't be used")

// names returns the names of the locks that a call takes for keys: one for each key, or one for all of more than single keys.
func names(keys []string) []string {
	if len(keys) <= single {
		return keys
	}
	return []string{strings.Join(slices.Sorted(slices.Values(keys)), "\x00")}
}

// serve answers batch. Neighbours in it that look with the same store share one statement; those that do not look have one each.
func (l *Locks) serve(ctx context.Context, conn *sql.Conn, batch []*ask) error {
	if l.session.Pooled() {
		return errPooled
	}
	l.on(conn)
	for len(batch) > 0 {
		n := 1
		for n < len(batch) && batch[n].store == batch[0].store && batch[0].store != nil {
			n++
		}
		if err := l.lock(ctx, conn, batch[:n]); err != nil {
			return err
		}
		batch = batch[n:]
	}
	return nil
}

// on records that conn is the connection from now on. If another one held locks, it has been closed or given back without them.
func (l *Locks) on(conn *sql.Conn) {
	if l.conn != conn {
		l.conn, l.held = conn, map[string]int{}
	}
}

// lock answers batch in one statement: the locks that it has room for are tried, in order, and the rest is got without a lock, or
// not got if Strict.
func (l *Locks) lock(ctx context.Context, conn *sql.Conn, batch []*ask) (err error) {
	var ids []int32
	var keys, wanted []string
	room := bound(l.session.MaxLocks()) - l.session.Locks
	stale := false
	for _, a := range batch {
		stale = stale || a.look.Stale
		keys = append(keys, a.keys...)
		for _, name := range names(a.keys) {
			if len(ids) < room {
				ids, wanted = append(ids, store.Hash(name)), append(wanted, name)
			}
		}
	}
	var got []bool
	var looked store.Looked
	var pooled bool
	if s := batch[0].store; s != nil {
		got, looked, pooled, err = s.LockAndLook(ctx, conn, l.session.PID(), l.class, ids, keys, stale)
	} else {
		got, pooled, err = store.TryLocks(ctx, conn, l.session.PID(), l.class, ids)
	}
	switch {
	case pooled:
		l.session.FoundPooled()
		return errPooled
	case err == nil && len(got) != len(ids):
		err = fmt.Errorf("%d answers for %d locks", len(got), len(ids))
	}
	if err != nil {
		return endsSession(err) // some may have been taken before it failed
	}
	for i, name := range wanted {
		if got[i] {
			l.held[name]++
			l.session.Locks++
		}
	}
	for _, a := range batch {
		a.got = make([]bool, len(a.keys))
		for i := range names(a.keys) {
			yes := false
			switch {
			case len(got) == 0 && a.look.Strict: // there was no room for it
			case len(got) == 0:
				yes = true
				l.unguarded.Add(1)
			default:
				yes, got = got[0], got[1:]
			}
			a.got[i] = yes
		}
		if len(a.keys) > single { // one lock for all of them
			a.got = slices.Repeat(a.got[:1], len(a.keys))
		}
		if n := len(a.keys); a.store != nil {
			a.looked = store.Looked{Rows: looked.Rows[:n:n], Incarnation: looked.Incarnation, At: looked.At, Snapshot: looked.Snapshot}
			looked.Rows = looked.Rows[n:]
		}
	}
	return nil
}

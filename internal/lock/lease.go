package lock

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/store"
)

const (
	leaseTimeout = 2 * time.Second // for a statement that takes, renews or releases
	closeTimeout = time.Second     // for the one that releases what is left
)

// Leases are the locks of one cache as rows of a table: they need no session. Each has its own random owner, so that whoever
// comes late ends no lease but its own:
//
//	A takes it, and is suspended      it expires      B takes it      A goes on, and releases: the owner is B
type Leases struct {
	db        *sql.DB
	space     string
	unguarded atomic.Uint64
	ctx       context.Context //nolint:containedctx // ends with Close
	cancel    context.CancelFunc
	wg        sync.WaitGroup

	mu        sync.Mutex
	store     *store.Store      // nil: not known yet
	held      map[int64]*held   // by their IDs
	givenBack map[int64][]int64 // the owners of those given back, by their IDs, until the table has no more of them
	renewing  bool              // the goroutine renew runs
	releasing bool              // the goroutine releaseAll runs
	closed    bool
}

// held is a lease that this process has, or asks for.
type held struct {
	store.Lease
	taken bool      // the process has it
	since time.Time // when it was asked for
}

// OpenLeases returns the locks of the cache that space names. It touches no network.
func OpenLeases(db *sql.DB, space string) *Leases {
	l := &Leases{db: db, space: space, held: map[int64]*held{}, givenBack: map[int64][]int64{}}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

var errLeasesClosed = errors.New("lease: the guard is closed")

// Unguarded is how many keys were said to be locked without a lease, because the process has as many as it may.
func (l *Leases) Unguarded() uint64 { return l.unguarded.Load() }

// TryLock tries to take a lease on each of keys and says which it got.
func (l *Leases) TryLock(ctx context.Context, keys []string) (got []bool, err error) {
	l.mu.Lock()
	if l.store == nil {
		n, ok := store.NamesOf(l.space)
		if !ok {
			l.mu.Unlock()
			return nil, fmt.Errorf("lease: %q is not the space of a cache", l.space)
		}
		l.store = store.New(l.db, n, leaseTimeout, false)
	}
	s := l.store
	l.mu.Unlock()
	got, _, err = l.LockAndLook(ctx, s, keys, Look{Live: true})
	return got, err
}

// LockAndLook is TryLock, and after it reads what the rows of keys are, in the same statement. A key that has a live row is not
// locked, unless look says so. Others who ask at the same time may have asked for stale values: a caller that has not must be
// ready for them.
func (l *Leases) LockAndLook(ctx context.Context, s *store.Store, keys []string, look Look) (got []bool, looked store.Looked, err error) {
	if err := ctx.Err(); err != nil {
		return nil, store.Looked{}, fmt.Errorf("lease: %w", err)
	}
	if len(keys) == 0 {
		return nil, store.Looked{}, nil
	}
	ask, free, err := l.begin(s, keys, look)
	if err != nil {
		return nil, store.Looked{}, err
	}
	type answer struct {
		store.Leased
		err error
	}
	answers, gone := make(chan answer, 1), make(chan struct{})
	// Not with ctx: a statement that was given up may have taken leases, or may still take them. Where nobody waits for the answer any
	// more, they are given back when it has come.
	go func() {
		defer l.wg.Done()
		leased, err := s.LeaseAndLook(context.WithoutCancel(ctx), ask)
		l.end(ask, leased, err)
		answers <- answer{leased, err}
		select {
		case <-gone:
			l.GiveBack(ask.Leases)
		default:
		}
	}()
	select {
	case a := <-answers:
		if a.err != nil {
			return nil, store.Looked{}, fmt.Errorf("lease: %w", a.err)
		}
		for i, yes := range free {
			a.Got[i] = a.Got[i] || yes
		}
		return a.Got, a.Looked, nil
	case <-ctx.Done():
		close(gone)
		select {
		case <-answers: // it had come before gone was closed
			l.GiveBack(ask.Leases)
		default:
		}
		return nil, store.Looked{}, fmt.Errorf("lease: %w", ctx.Err())
	}
}

// begin notes what is asked for, and counts in wg. free are keys that are got without a lease.
func (l *Leases) begin(s *store.Store, keys []string, look Look) (ask store.LeaseAsk, free []bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ask, nil, errLeasesClosed
	}
	l.wg.Add(1)
	if l.store == nil {
		l.store = s
	}
	ask.Keys, ask.Stale = keys, look.Stale
	all := names(keys)
	ask.Of, free = make([]int, len(keys)), make([]bool, len(keys))
	for i, name := range all {
		of, unguarded, id := 0, false, leaseID(name)
		switch {
		case l.held[id] != nil: // another caller's
		case len(l.held) >= most:
			if unguarded = !look.Strict; unguarded {
				l.unguarded.Add(1)
			}
		default:
			lease := store.Lease{ID: id, Owner: random()}
			if owners := l.givenBack[id]; owners != nil {
				lease.Was = owners[len(owners)-1]
			}
			l.held[id] = &held{Lease: lease, since: time.Now()}
			ask.Leases = append(ask.Leases, lease)
			if of = len(ask.Leases); look.Live {
				of = -of
			}
		}
		ask.Of[i], free[i] = of, unguarded
	}
	if len(all) < len(keys) { // one lease for all of them
		ask.Of, free = slices.Repeat(ask.Of[:1], len(keys)), slices.Repeat(free[:1], len(keys))
	}
	return ask, free, nil
}

// end notes the answer.
func (l *Leases) end(ask store.LeaseAsk, leased store.Leased, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, lease := range ask.Leases {
		of := slices.IndexFunc(ask.Of, func(n int) bool { return n == i+1 || n == -i-1 })
		switch {
		case err != nil:
			delete(l.held, lease.ID)
			if sqlerr.State(err) == "" { // else the server says that it has done nothing
				l.releaseSoon(lease)
			}
		case !leased.Got[of]:
			delete(l.held, lease.ID)
		default:
			l.held[lease.ID].taken = true
			l.released(store.Lease{ID: lease.ID, Owner: lease.Was}) // it was replaced
			if !l.renewing && !l.closed {
				l.renewing = true
				l.wg.Go(l.renew)
			}
		}
	}
}

// leaseID hashes a name into 64 bits, by a hash with which nobody can make two names of one number.
func leaseID(name string) int64 {
	sum := sha256.Sum256([]byte(name))
	return int64(binary.BigEndian.Uint64(sum[:]) | 1)
}

func random() int64 { return int64(rand.Uint64() | 1) }

// Lease is the lease that is held on key alone, or none.
func (l *Leases) Lease(key string) store.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.held[leaseID(key)]; h != nil && h.taken {
		return h.Lease
	}
	return store.Lease{}
}

// Released says that leases have ended, with a statement of the caller's or without one: they are not renewed any more.
func (l *Leases) Released(leases []store.Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, lease := range leases {
		if h := l.held[lease.ID]; h != nil && h.Owner == lease.Owner {
			delete(l.held, lease.ID)
		}
	}
}

// Unlock gives keys back, all that one call got. It returns at once.
func (l *Leases) Unlock(keys []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range names(keys) {
		if h := l.held[leaseID(name)]; h != nil && h.taken {
			delete(l.held, h.ID)
			l.releaseSoon(h.Lease)
		}
	}
}

// GiveBack gives back those of leases that are held. Unlike Unlock it leaves those alone that this process has taken on the same keys since.
// It returns at once.
func (l *Leases) GiveBack(leases []store.Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, lease := range leases {
		if h := l.held[lease.ID]; h != nil && h.Owner == lease.Owner {
			delete(l.held, lease.ID)
			l.releaseSoon(lease)
		}
	}
}

// Close gives everything back. What can't be given back expires.
func (l *Leases) Close() error {
	l.mu.Lock()
	closed := l.closed
	l.closed = true
	l.mu.Unlock()
	if closed {
		return nil
	}
	l.cancel()
	l.wg.Wait()
	leases := l.toGiveBack()
	for _, h := range l.held {
		leases = append(leases, h.Lease)
	}
	if len(leases) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		_ = l.store.ReleaseLeases(ctx, leases)
	}
	return nil
}

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
	renewEvery   = 3 * time.Second // a third of a lease's term, so that two renewals may fail
	leaseTimeout = 2 * time.Second // for a statement that renews or releases
	closeTimeout = time.Second     // for the one that releases what is left
	releaseAgain = 250 * time.Millisecond
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
	store     *store.Store // nil: not known yet
	held      map[int64]*held
	leaving   map[int64]store.Lease // to be released, or with a statement that does so
	renewing  bool                  // a goroutine renews
	releasing bool                  // a goroutine releases
	closed    bool
}

type held struct {
	store.Lease
	taken bool      // else it is being asked for
	since time.Time // when it was asked for
}

// OpenLeases returns the locks of the cache that space names. It touches no network.
func OpenLeases(db *sql.DB, space string) *Leases {
	l := &Leases{db: db, space: space, held: map[int64]*held{}, leaving: map[int64]store.Lease{}}
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
	answers, left := make(chan answer, 1), make(chan struct{})
	// Not with ctx: a statement that was given up may have taken leases, or may still take them. Who no longer waits for the answer
	// has them released when it has come.
	go func() {
		defer l.wg.Done()
		leased, err := s.LeaseAndLook(context.WithoutCancel(ctx), ask)
		l.end(ask, leased, err)
		answers <- answer{leased, err}
		select {
		case <-left:
			l.release(ask.Leases)
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
		close(left)
		select {
		case <-answers: // it had come before left was closed
			l.release(ask.Leases)
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
			lease := store.Lease{ID: id, Owner: random(), Was: l.leaving[id].Owner}
			l.held[id] = &held{Lease: lease, since: time.Now()}
			ask.Leases = append(ask.Leases, lease)
			if of = len(ask.Leases); look.Live {
				of = -of
			}
		}
		if ask.Of[i], free[i] = of, unguarded; len(all) < len(keys) {
			ask.Of, free = slices.Repeat([]int{of}, len(keys)), slices.Repeat([]bool{unguarded}, len(keys))
		}
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
				l.leave(lease)
			}
		case !leased.Got[of]:
			delete(l.held, lease.ID)
		default:
			l.held[lease.ID].taken = true
			if l.leaving[lease.ID].Owner == lease.Was {
				delete(l.leaving, lease.ID)
			}
			if !l.renewing && !l.closed {
				l.renewing = true
				l.wg.Go(l.renew)
			}
		}
	}
}

// names are hashed into 64 bits, of a hash with which nobody makes two keys of one number.
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

// Released says that leases have ended.
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
			l.leave(h.Lease)
		}
	}
}

// release gives back those of leases that are held.
func (l *Leases) release(leases []store.Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, lease := range leases {
		if h := l.held[lease.ID]; h != nil && h.Owner == lease.Owner {
			delete(l.held, lease.ID)
			l.leave(lease)
		}
	}
}

// leave has a lease released. With the mutex held.
func (l *Leases) leave(lease store.Lease) {
	l.leaving[lease.ID] = lease
	if !l.releasing && !l.closed {
		l.releasing = true
		l.wg.Go(l.releaseAll)
	}
}

// releaseAll releases what is to be released, until there is nothing. What can't be released is left to expire.
func (l *Leases) releaseAll() {
	failed := time.Time{} // the first time in a row
	for {
		leases, s := l.toRelease()
		if leases == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), leaseTimeout)
		err := s.ReleaseLeases(ctx, leases)
		cancel()
		if err == nil {
			failed = time.Time{}
		} else if failed.IsZero() {
			failed = time.Now()
		}
		if err == nil || time.Since(failed) > store.LeaseTerm {
			l.left(leases)
			continue
		}
		l.sleep(releaseAgain)
	}
}

// toRelease are the leases that the next statement releases; nil: there are none, or Close does it.
func (l *Leases) toRelease() ([]store.Lease, *store.Store) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var leases []store.Lease
	for _, lease := range l.leaving {
		leases = append(leases, lease)
	}
	if leases == nil || l.closed {
		l.releasing = false
		return nil, nil
	}
	return leases, l.store
}

// left forgets leases that were released.
func (l *Leases) left(leases []store.Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, lease := range leases {
		if l.leaving[lease.ID].Owner == lease.Owner {
			delete(l.leaving, lease.ID)
		}
	}
}

// renew renews what is held, in one statement for all, until nothing is. No lease is renewed for longer than its load may take.
func (l *Leases) renew() {
	every := renewEvery
	for {
		l.sleep(every*4/5 + rand.N(every*2/5)) // not all processes at once
		leases, s := l.toRenew()
		if leases == nil {
			return
		}
		ctx, cancel := context.WithTimeout(l.ctx, leaseTimeout)
		kept, err := s.RenewLeases(ctx, leases)
		cancel()
		if every = renewEvery; err != nil {
			every = renewEvery / 3
			continue
		}
		// A lease that was lost is not renewed again, nor released: the load goes on, and its fence decides.
		leases = slices.DeleteFunc(leases, func(lease store.Lease) bool { return slices.Contains(kept, lease.ID) })
		l.Released(leases)
	}
}

// toRenew are the leases that the next statement renews; nil: there is none to be renewed any more.
func (l *Leases) toRenew() ([]store.Lease, *store.Store) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var leases []store.Lease
	for _, h := range l.held {
		if h.taken && time.Since(h.since) < store.LoadGrace {
			leases = append(leases, h.Lease)
		}
	}
	if leases == nil || l.closed {
		l.renewing = false
		return nil, nil
	}
	return leases, l.store
}

func (l *Leases) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.ctx.Done():
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
	var leases []store.Lease
	for _, h := range l.held {
		leases = append(leases, h.Lease)
	}
	for _, lease := range l.leaving {
		leases = append(leases, lease)
	}
	if len(leases) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		_ = l.store.ReleaseLeases(ctx, leases)
	}
	return nil
}

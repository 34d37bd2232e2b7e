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
	leaseTimeout = 2 * time.Second // for a statement that takes, renews or releases leases
	closeTimeout = time.Second     // for the statement in which Close releases the rest
)

// Leases are the locks of one cache as rows of a table: they need no session. Each lease has its own random owner, so that a
// process that comes late releases no lease but its own:
//
//	A takes a lease, and is suspended      it expires      B takes it      A goes on, and releases: nothing, the owner is B's
//
// To give a lease back ends it in this process, at once. To release it removes its row from the table: releaseAll does so later, or
// the statement that stores the loaded value.
type Leases struct {
	db        *sql.DB
	space     string
	unguarded atomic.Uint64
	ctx       context.Context //nolint:containedctx // ends with Close
	cancel    context.CancelFunc
	wg        sync.WaitGroup

	mu        sync.Mutex
	store     *store.Store      // nil: not known yet
	held      map[int64]*held   // by the leases' IDs
	givenBack map[int64][]int64 // owners of leases that were given back and may be in the table, by the leases' IDs
	renewing  bool              // the goroutine renew runs
	releasing bool              // the goroutine releaseAll runs
	closed    bool
}

// held is a lease that this process has, or has asked for.
type held struct {
	store.Lease
	taken bool      // the process has it; false: the answer has not come yet
	since time.Time // when it was asked for
}

// OpenLeases returns the leases of the cache that space names. It touches no network.
func OpenLeases(db *sql.DB, space string) *Leases {
	l := &Leases{db: db, space: space, held: map[int64]*held{}, givenBack: map[int64][]int64{}}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

var errLeasesClosed = errors.New("lease: the guard is closed")

// Unguarded returns how many keys TryLock and LockAndLook said to have got without taking a lease, because the cache has as many
// leases as it may. A call for more than single keys counts once.
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

// LockAndLook takes leases on keys, and reads the rows of keys after it, in the same statement. A key that has a live row is not
// locked, unless look.Live. Calls at the same time share the statement: if one of them asks for stale values, all may get
// them.
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
	// The statement does not end with ctx: one that is canceled may have taken leases, or may still take them. If the caller has
	// gone, the leases are given back when the answer has come:
	//
	//	goroutine                       caller
	//	answers <- a, gone is open
	//	                                ctx ends: closes gone, finds a in answers, and gives the leases back
	//
	//	                                ctx ends: closes gone, finds answers empty
	//	answers <- a, gone is closed:
	//	gives the leases back
	//
	// Both may do it: only the first GiveBack of a lease has an effect.
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
		case <-answers: // the goroutine may have found gone open
			l.GiveBack(ask.Leases)
		default:
		}
		return nil, store.Looked{}, fmt.Errorf("lease: %w", ctx.Err())
	}
}

// begin adds leases on keys to held, as not taken yet, and returns the request for them. Unless it fails it adds 1 to wg, for the
// caller to subtract. free says which keys are got without a lease, because there are too many. A lease that this process has or
// asks for is not asked for again: its key is not got.
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
				lease.Was = owners[len(owners)-1] // the new lease may replace it before it is released
			}
			l.held[id] = &held{Lease: lease, since: time.Now()}
			ask.Leases = append(ask.Leases, lease)
			if of = len(ask.Leases); look.Live {
				of = -of // see store.LeaseAsk
			}
		}
		ask.Of[i], free[i] = of, unguarded
	}
	if len(all) < len(keys) { // one lease for all of them
		ask.Of, free = slices.Repeat(ask.Of[:1], len(keys)), slices.Repeat(free[:1], len(keys))
	}
	return ask, free, nil
}

// end records the answer: a lease that was got is taken and renewed from now on, the others are removed from held.
func (l *Leases) end(ask store.LeaseAsk, leased store.Leased, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, lease := range ask.Leases {
		of := slices.IndexFunc(ask.Of, func(n int) bool { return n == i+1 || n == -i-1 })
		switch {
		case err != nil:
			delete(l.held, lease.ID)
			if sqlerr.State(err) == "" { // else it was the server's error, and is believed to have taken nothing
				l.releaseSoon(lease)
			}
		case !leased.Got[of]:
			delete(l.held, lease.ID)
		default:
			l.held[lease.ID].taken = true
			l.released(store.Lease{ID: lease.ID, Owner: lease.Was}) // the new lease has replaced it
			if !l.renewing && !l.closed {
				l.renewing = true
				l.wg.Go(l.renew)
			}
		}
	}
}

// leaseID hashes a name into 64 bits, never 0. The hash is cryptographic, so that nobody who chooses keys finds two with the same ID easily.
func leaseID(name string) int64 {
	sum := sha256.Sum256([]byte(name))
	return int64(binary.BigEndian.Uint64(sum[:]) | 1)
}

// random returns a random owner, never 0.
func random() int64 { return int64(rand.Uint64() | 1) }

// Lease returns the lease that is held on key alone, not on a list of keys. The zero Lease is none.
func (l *Leases) Lease(key string) store.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.held[leaseID(key)]; h != nil && h.taken {
		return h.Lease
	}
	return store.Lease{}
}

// Released removes from held leases that have ended in the table: a statement of the caller's has released them, or they were
// lost. They are not renewed any more.
func (l *Leases) Released(leases []store.Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, lease := range leases {
		if h := l.held[lease.ID]; h != nil && h.Owner == lease.Owner {
			delete(l.held, lease.ID)
		}
	}
}

// Unlock gives keys back. They must be all the keys that one call got: their number decides which leases they have. It
// returns at once.
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

// GiveBack gives back those of leases that are held. Unlike Unlock it does not give back newer leases of this process on the same
// keys. It returns at once.
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

// Close releases all leases. What can't be released expires.
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
	l.mu.Lock()
	leases := l.toGiveBack()
	for _, h := range l.held {
		leases = append(leases, h.Lease)
	}
	l.mu.Unlock()
	if len(leases) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		_ = l.store.ReleaseLeases(ctx, leases)
	}
	return nil
}

package lock

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pgcache/go/internal/store"
)

// Two goroutines work beside the callers: renew renews the leases that are held, and releaseAll removes from the table those that
// were given back. There is at most one of each, and it ends when it has nothing to do.

const (
	renewEvery   = 3 * time.Second // a third of a lease's term, so that two renewals may fail
	releaseAgain = 250 * time.Millisecond

	mostGivenBack = 8 // how many owners of one ID are remembered
)

// releaseSoon has releaseAll release a lease. With the mutex held. An ID has several owners if an earlier one may still be in the table:
//
//	the network is cut      A is given back, and can't be released      B is asked for, and no answer says whether it was taken
func (l *Leases) releaseSoon(lease store.Lease) {
	owners := append(l.givenBack[lease.ID], lease.Owner)
	if len(owners) > mostGivenBack {
		owners = slices.Delete(owners, 1, 2) // not the first, which was taken; of the others that is unknown
	}
	l.givenBack[lease.ID] = owners
	if !l.releasing && !l.closed {
		l.releasing = true
		l.wg.Go(l.releaseAll)
	}
}

// releaseAll removes what was given back from the table, until there is nothing left. It gives up on leases that it can't remove
// for a whole LeaseTerm: they have expired.
func (l *Leases) releaseAll() {
	failed := time.Time{} // when the first of the statements that failed in a row did
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
			l.forget(leases)
			continue
		}
		l.sleep(releaseAgain)
	}
}

// toRelease returns the leases that the next statement releases; nil: there are none, or Close releases them, and releaseAll ends.
func (l *Leases) toRelease() ([]store.Lease, *store.Store) {
	l.mu.Lock()
	defer l.mu.Unlock()
	leases := l.toGiveBack()
	if leases == nil || l.closed {
		l.releasing = false
		return nil, nil
	}
	return leases, l.store
}

// toGiveBack returns the leases that were given back and may be in the table. With the mutex held.
func (l *Leases) toGiveBack() (leases []store.Lease) {
	for id, owners := range l.givenBack {
		for _, owner := range owners {
			leases = append(leases, store.Lease{ID: id, Owner: owner})
		}
	}
	return leases
}

// forget removes from givenBack leases that are no more in the table or have expired there.
func (l *Leases) forget(leases []store.Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, lease := range leases {
		l.released(lease)
	}
}

// released removes from givenBack a lease that is no more in the table. With the mutex held.
func (l *Leases) released(lease store.Lease) {
	owners := slices.DeleteFunc(l.givenBack[lease.ID], func(owner int64) bool { return owner == lease.Owner })
	if len(owners) == 0 {
		delete(l.givenBack, lease.ID)
	} else {
		l.givenBack[lease.ID] = owners
	}
}

// renew renews the leases that are held, in one statement for all, until there is none to renew. A lease is renewed for as long as a
// load may take, LoadGrace, and not longer.
func (l *Leases) renew() {
	every := renewEvery
	for {
		l.sleep(every*4/5 + rand.N(every*2/5)) // random, so that not all processes renew at once
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
		// A lease that was lost is neither renewed again nor released. Its load goes on, and the fence decides whether the value is
		// stored.
		leases = slices.DeleteFunc(leases, func(lease store.Lease) bool { return slices.Contains(kept, lease.ID) })
		l.Released(leases)
	}
}

// toRenew returns the leases that the next statement renews; nil: there is none to renew any more, and renew ends.
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

// sleep waits for d, or until Close.
func (l *Leases) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.ctx.Done():
	}
}

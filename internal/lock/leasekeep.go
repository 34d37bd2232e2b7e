package lock

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pgcache/go/internal/store"
)

// What is done beside the callers: leases that are held are renewed, those that were given back are removed from the table. There is
// at most one goroutine for each of the two, which ends when it has nothing to do.

const (
	renewEvery   = 3 * time.Second // a third of a lease's term, so that two renewals may fail
	releaseAgain = 250 * time.Millisecond

	mostGivenBack = 8 // owners of one lease
)

// releaseSoon has a lease released in the table. With the mutex held. One that was given back before may still be there:
//
//	the network is cut      A is given back, and can't be released      B is asked for, whether it was taken is unknown
func (l *Leases) releaseSoon(lease store.Lease) {
	owners := append(l.givenBack[lease.ID], lease.Owner)
	if len(owners) > mostGivenBack {
		owners = slices.Delete(owners, 1, 2) // the first is the one that was held
	}
	l.givenBack[lease.ID] = owners
	if !l.releasing && !l.closed {
		l.releasing = true
		l.wg.Go(l.releaseAll)
	}
}

// releaseAll removes what was given back from the table, until there is nothing. What can't be removed expires there.
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
			l.forget(leases)
			continue
		}
		l.sleep(releaseAgain)
	}
}

// toRelease are the leases that the next statement releases; nil: there are none, or Close does it.
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

// toGiveBack are the leases that were given back and may be in the table. With the mutex held.
func (l *Leases) toGiveBack() (leases []store.Lease) {
	for id, owners := range l.givenBack {
		for _, owner := range owners {
			leases = append(leases, store.Lease{ID: id, Owner: owner})
		}
	}
	return leases
}

// forget forgets leases that are no more in the table, or have expired there.
func (l *Leases) forget(leases []store.Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, lease := range leases {
		l.released(lease)
	}
}

// released notes that the table has no more of a lease that was given back. With the mutex held.
func (l *Leases) released(lease store.Lease) {
	owners := slices.DeleteFunc(l.givenBack[lease.ID], func(owner int64) bool { return owner == lease.Owner })
	if len(owners) == 0 {
		delete(l.givenBack, lease.ID)
	} else {
		l.givenBack[lease.ID] = owners
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

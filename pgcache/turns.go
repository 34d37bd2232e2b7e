package pgcache

import (
	"context"
	"sync"
	"time"

	"github.com/pgcache/go/localcache"
)

// turns lets the updates of a key in this process go one after the other, in the order in which they came. Each would else read the
// same row, and all but one write in vain:
//
//	Update 1: reads v1                        writes v2
//	Update 2: reads v1                                     waits for 1's statement, then finds v2: in vain
//	Update 3: reads v1                                     ...
//
// It saves tries, no more: other processes write too, and the write itself says whether it was in time.
type turns struct {
	mu sync.Mutex
	of map[localcache.Key]*turn
}

type turn struct {
	taken chan struct{} // has room for one, and is full while somebody has the turn
	users int           // how many have it or wait for it; under the mutex of turns
}

// wait waits for the caller's turn at k, but no longer than updateTurn: a function that changes a value may itself update that key, and
// would wait for ever. The caller calls done, also if it had no turn.
func (t *turns) wait(ctx context.Context, k localcache.Key) (done func()) {
	t.mu.Lock()
	if t.of == nil {
		t.of = map[localcache.Key]*turn{}
	}
	mine := t.of[k]
	if mine == nil {
		mine = &turn{taken: make(chan struct{}, 1)}
		t.of[k] = mine
	}
	mine.users++
	t.mu.Unlock()
	got := true
	select {
	case mine.taken <- struct{}{}:
	default:
		got = mine.queue(ctx)
	}
	return func() {
		if got {
			<-mine.taken
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if mine.users--; mine.users == 0 {
			delete(t.of, k)
		}
	}
}

// queue waits for the turn and says whether it came in time.
func (t *turn) queue(ctx context.Context) bool {
	timer := time.NewTimer(updateTurn)
	defer timer.Stop()
	select {
	case t.taken <- struct{}{}:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// Package batch shares statements between callers: a round trip costs the same for one key as for many.
//
// A caller that finds a free slot runs its own statement, on its own goroutine and under its own context: a lone caller
// waits for no other goroutine. Callers that find no free slot queue, and share the next statement. None ever joins a
// statement that has been sent, so each gets an answer from after it asked.
//
// A statement that takes too long is called stuck: it gives up its slot, so that the others go on without it. The requests of a
// shared statement that failed are set apart: each is sent by itself, so that one that is bad fails alone, and one that meets a
// lock waits alone. See apart.go.
//
//	a request alone        One
//	requests that share    Many -- fails because of some --> each set apart: Try -- met a lock --> One, which waits for it
package batch

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/pgcache/go/internal/panics"
)

// Queue coalesces requests of type Q into statements that answer with R each. Set the fields before use; Slots, Timeout,
// LockWaits, One, Many and Apart are needed. It is safe for concurrent use.
type Queue[Q, R any] struct {
	// Slots is how many statements may be under way at a time, those that are stuck not counted.
	Slots int
	// Timeout bounds every statement, and how long a request waits before it is sent.
	Timeout time.Duration
	// Patience is how long a statement may keep its slot while others wait: then it is stuck and loses the slot. 0: for ever;
	// a request that waits for a slot is then ended by its own context alone.
	Patience time.Duration
	// Overlap says that two requests would wait for the lock of the same row: neither is sent while the other is stuck or
	// set apart. nil: never.
	Overlap func(a, b Q) bool
	// MaxWeight bounds what shares a statement; a heavier request has one for itself. 0: every request has.
	MaxWeight int
	// Weight is how much of MaxWeight one request takes. nil: 1 each.
	Weight func(q Q) int
	// LockWaits is two bounds: how many statements may be without a slot before no further one is sent that may wait for
	// a lock, and how many requests that were set apart are tried at a time.
	LockWaits int

	// One answers a single request, and waits for a lock as long as its context allows.
	One func(ctx context.Context, q Q) (R, error)
	// Many answers several at once, in their order. An error fails all of them. It does not wait for locks for long.
	Many func(ctx context.Context, qs []Q) ([]R, error)
	// Try answers a single request, and does not wait for locks for long. nil: One.
	Try func(ctx context.Context, q Q) (R, error)
	// Apart says that an error of Many may be due to some of the requests only: then all are set apart, and each is tried by
	// itself. It must not be nil.
	Apart func(err error) bool
	// Locked says that Try failed because a transaction holds a lock. It needs Overlap. nil: no error is one of a lock.
	Locked func(err error) bool
	// Late is the error of a request that waited for Timeout and was never sent. nil: context.DeadlineExceeded.
	Late func() error

	// Observe, if not nil, is called before a statement is sent. The statement runs under the context that it returns, and the
	// function is called with the statement's error. callers are the contexts of those that share it; nil: it is ctx's alone.
	Observe func(ctx context.Context, callers []context.Context) (context.Context, func(err error))

	mu      sync.Mutex
	sent    []statement[Q, R] // under way
	lastID  uint64
	busy    int           // how many of sent have a slot
	waiting []*call[Q, R] // for a share in a statement
	apart   []*call[Q, R] // set apart, without an answer yet: see apart.go
	trying  int           // how many of apart are under way in Try, which is not among sent
	ticking bool          // the timer of watch runs
}

type call[Q, R any] struct {
	q     Q
	ctx   context.Context //nolint:containedctx // to leave out callers that have gone
	since time.Time
	id    uint64        // of the statement that share sent it with; 0: it was not sent
	stage stage         // of a call in apart
	done  chan struct{} // closed when r and err are set
	r     R
	err   error
}

// statement is a statement under way: of one request, or of the requests of several calls.
type statement[Q, R any] struct {
	id    uint64
	began time.Time
	lone  Q             // the request, if calls is nil
	calls []*call[Q, R] // nil: the statement is of lone
	stuck bool          // it has no slot: it lost it, or was sent without one to wait for a lock
	left  int           // how many of calls have given up
	end   func()        // cancels the statement; nil: the context of its only caller does
}

// Do answers one request: with a statement of its own if a slot is free, else with a share in the next one. A statement of
// its own waits for locks and may become stuck, so mayWait must allow it too.
func (b *Queue[Q, R]) Do(ctx context.Context, q Q) (R, error) {
	b.mu.Lock()
	if b.busy < b.Slots && b.mayWait() && !b.blocked(q) {
		id := b.send(statement[Q, R]{lone: q})
		b.mu.Unlock()
		defer b.end(id)
		ctx, cancel := context.WithTimeout(ctx, b.Timeout)
		defer cancel()
		return observed(ctx, b.Observe, nil, func(ctx context.Context) (R, error) { return b.One(ctx, q) })
	}
	// The call has no timer of its own: the timeout of the statement and the timer of watch end it.
	c := &call[Q, R]{q: q, ctx: ctx, since: time.Now(), done: make(chan struct{})}
	b.waiting = append(b.waiting, c)
	if b.busy < b.Slots {
		b.share()
	}
	b.watch()
	b.mu.Unlock()
	select {
	case <-c.done:
		return c.r, c.err
	case <-ctx.Done():
		b.leave(c)
		var none R
		return none, ctx.Err()
	}
}

// guarded calls f and turns a panic of the driver into an error: other callers wait for the answer of f.
func guarded[T any](f func() (T, error)) (v T, err error) {
	defer panics.Recover(&err)
	return f()
}

// observed is guarded, and calls observe before f, and what observe returned after it. observe may be nil.
func observed[T any](ctx context.Context, observe func(context.Context, []context.Context) (context.Context, func(error)),
	callers []context.Context, f func(ctx context.Context) (T, error),
) (v T, err error) {
	if observe != nil {
		var end func(error)
		ctx, end = observe(ctx, callers)
		defer func() { end(err) }()
	}
	return guarded(func() (T, error) { return f(ctx) })
}

// send records s as under way, for the caller to send, and returns its ID. It takes a slot unless s is stuck. With the mutex held.
func (b *Queue[Q, R]) send(s statement[Q, R]) uint64 {
	b.lastID++
	if !s.stuck {
		b.busy++
	}
	s.id, s.began = b.lastID, time.Now()
	b.sent = append(b.sent, s)
	return s.id
}

// end removes a statement that has ended, frees its slot, and sends what waited for it.
func (b *Queue[Q, R]) end(id uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.sent, func(s statement[Q, R]) bool { return s.id == id })
	if !b.sent[i].stuck {
		b.busy--
	}
	b.sent = slices.Delete(b.sent, i, i+1)
	b.pump()
	b.share()
}

// share sends the waiting calls while slots are free. With the mutex held. Each statement runs on a goroutine of its own: share
// may be called by a caller whose own statement has ended, and who must not wait for the statement of others.
//
// A call that has a statement for itself gets One, under its own context, if mayWait allows it. Else Many answers.
func (b *Queue[Q, R]) share() {
	// Frozen connections must not take the whole pool: stuck statements are bounded too.
	for b.busy < b.Slots && len(b.sent) < b.Slots+2*b.LockWaits {
		calls := b.take()
		if calls == nil {
			return
		}
		alone := len(calls) == 1 && b.mayWait()
		ctx, cancel := calls[0].ctx, func() {}
		s := statement[Q, R]{calls: calls}
		if !alone {
			ctx, cancel = context.WithCancel(context.WithoutCancel(ctx))
			s.end = cancel
		}
		id := b.send(s)
		for _, c := range calls {
			c.id = id
		}
		go func() {
			defer cancel()
			defer b.end(id)
			b.answer(ctx, calls, alone)
			// The callers that were just answered get to queue their next requests before the slot is free. Otherwise the first
			// of them would have a statement for itself, and the others would wait for that.
			runtime.Gosched()
		}()
	}
}

// take removes the calls of the next statement from waiting and returns them, nil if there are none. It also drops calls whose
// callers have gone, and leaves those that are blocked. With the mutex held.
func (b *Queue[Q, R]) take() []*call[Q, R] {
	var calls []*call[Q, R]
	weight, full := 0, false
	b.waiting = slices.DeleteFunc(b.waiting, func(c *call[Q, R]) bool {
		switch {
		case full || c.ctx.Err() == nil && b.blocked(c.q):
			return false
		case c.ctx.Err() != nil:
			return true
		}
		w := 1
		if b.Weight != nil {
			w = b.Weight(c.q)
		}
		if weight += w; len(calls) > 0 && weight > b.MaxWeight {
			full = true
			return false
		}
		calls = append(calls, c)
		return true
	})
	return calls
}

// A statement without an answer must not hold up the others. Its connection may be frozen, or it waits for a row:
//
//	Tx                  Cache
//	UPDATE k
//	                    Set(k)  waits for Tx
//	Set(l)              queues behind Set(k), and Tx waits for Set(l): Postgres sees no deadlock in that
//
// So a statement that keeps others waiting for longer than Patience is stuck and loses its slot. Requests that would wait for
// the same row are not sent until it has ended.

// watch starts a timer that finds stuck statements and ends calls that have waited for a whole Timeout. It runs as long as
// a call waits or is set apart. With the mutex held.
func (b *Queue[Q, R]) watch() {
	if b.ticking || b.Patience == 0 || len(b.waiting)+len(b.apart) == 0 {
		return
	}
	b.ticking = true
	time.AfterFunc(b.Patience, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for i := range b.sent {
			if s := &b.sent[i]; !s.stuck && time.Since(s.began) >= b.Patience {
				s.stuck = true
				b.busy--
			}
		}
		b.waiting = slices.DeleteFunc(b.waiting, func(c *call[Q, R]) bool {
			return c.gone() || b.late(c, b.lateErr)
		})
		b.pump()
		b.share()
		b.ticking = false
		b.watch()
	})
}

// gone says that the caller's context has ended: nobody waits for the answer any more.
func (c *call[Q, R]) gone() bool { return c.ctx.Err() != nil }

// lateErr is the error of a call that waited for Timeout and was never sent.
func (b *Queue[Q, R]) lateErr() error {
	if b.Late != nil {
		return b.Late()
	}
	return context.DeadlineExceeded
}

// late says whether a call has waited for a whole Timeout, and if so ends it with err. With the mutex held.
func (b *Queue[Q, R]) late(c *call[Q, R], err func() error) bool {
	late := time.Since(c.since) >= b.Timeout
	if late {
		c.err = err()
		close(c.done)
	}
	return late
}

// answer sends the statement of calls and gives each call its answer: by One if alone, else by Many.
func (b *Queue[Q, R]) answer(ctx context.Context, calls []*call[Q, R], alone bool) {
	ctx, cancel := context.WithTimeout(ctx, b.Timeout)
	defer cancel()
	if alone {
		c := calls[0]
		c.r, c.err = observed(ctx, b.Observe, nil, func(ctx context.Context) (R, error) { return b.One(ctx, c.q) })
		close(c.done)
		return
	}
	qs := make([]Q, len(calls))
	for i, c := range calls {
		qs[i] = c.q
	}
	var callers []context.Context
	if b.Observe != nil {
		for _, c := range calls {
			callers = append(callers, c.ctx)
		}
	}
	rs, err := observed(ctx, b.Observe, callers, func(ctx context.Context) ([]R, error) { return b.Many(ctx, qs) })
	if err != nil && b.Apart(err) {
		b.setApart(calls)
		return
	}
	for i, c := range calls {
		if c.err = err; err == nil {
			c.r = rs[i]
		}
		close(c.done)
	}
}

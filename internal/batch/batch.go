// Package batch shares statements between callers: a round trip costs the same for one key as for many.
//
// A caller that finds nothing under way runs its own statement, itself and under its own context: a lone caller pays no
// hand-off. Callers that come meanwhile queue, and share the next one. None ever joins a statement that has been sent,
// so each gets an answer from after it asked.
package batch

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/pgcache/go/internal/panics"
)

// Queue coalesces requests of type Q into statements that answer with R each. Set the fields before use. It is safe for
// concurrent use.
type Queue[Q, R any] struct {
	// Slots is how many statements may be under way at a time.
	Slots int
	// Timeout bounds every statement, and the wait for one that is not sent because another is stuck.
	Timeout time.Duration
	// Patience is how long callers wait for a statement before it is taken for stuck and loses its slot. 0: for ever.
	Patience time.Duration
	// Overlap says that two requests would wait for the same row: none is sent while the other waits. nil: never.
	Overlap func(a, b Q) bool
	// MaxWeight bounds what shares a statement; a heavier request has one for itself.
	MaxWeight int
	// Weight is the part of one request. nil: 1 each.
	Weight func(q Q) int
	// LockWaits is how many statements without a slot may wait for locks at a time, and how many requests are tried by
	// themselves at a time.
	LockWaits int

	// One answers a single request, and waits for a lock as long as its context allows.
	One func(ctx context.Context, q Q) (R, error)
	// Many answers several at once, in their order. An error fails all of them. It does not wait for locks for long.
	Many func(ctx context.Context, qs []Q) ([]R, error)
	// Try answers a single request, and does not wait for locks for long. nil: One.
	Try func(ctx context.Context, q Q) (R, error)
	// Apart says of an error of Many that it may concern some of the requests only: then they are set apart, and each is tried by
	// itself.
	Apart func(err error) bool
	// Locked says of an error of Try that somebody holds a lock. nil: never.
	Locked func(err error) bool
	// Late is the error of a request that waited for Timeout and was never sent. nil: context.DeadlineExceeded.
	Late func() error

	// Observe, if not nil, is called before a statement is sent, which then has the context that it returns, and what it returns
	// afterwards. callers are the contexts of those that share the statement; nil: it is ctx's alone.
	Observe func(ctx context.Context, callers []context.Context) (context.Context, func(err error))

	mu      sync.Mutex
	sent    []statement[Q, R] // under way
	lastID  uint64
	busy    int           // how many of sent have a slot
	waiting []*call[Q, R] // for a share in a statement
	apart   []*call[Q, R] // of statements that failed, those without an answer yet: see apart.go
	trying  int           // of apart
	ticking bool          // a timer runs, for those who wait
}

type call[Q, R any] struct {
	q     Q
	ctx   context.Context //nolint:containedctx // to leave out callers that have gone
	since time.Time
	id    uint64        // of the shared statement that it has a share in; 0: it was not sent
	stage stage         // in apart
	done  chan struct{} // closed when r and err are set
	r     R
	err   error
}

// statement is one under way.
type statement[Q, R any] struct {
	id    uint64
	began time.Time
	lone  Q
	calls []*call[Q, R] // instead of lone
	stuck bool          // has no slot
	left  int           // of calls, how many have given up
	end   func()        // cancels it; nil: its only caller's context does
}

// Do answers one request: with its own statement if a slot is free, or with a share in the next.
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
	// No timer of its own: those who share a statement share its timeout.
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

// guarded turns a panic of a driver into an error: other callers wait for what f does.
func guarded[T any](f func() (T, error)) (v T, err error) {
	defer panics.Recover(&err)
	return f()
}

// observed is guarded, seen by observe.
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

// send notes a statement, which takes a slot unless it is stuck from the beginning. With the mutex held.
func (b *Queue[Q, R]) send(s statement[Q, R]) uint64 {
	b.lastID++
	if !s.stuck {
		b.busy++
	}
	s.id, s.began = b.lastID, time.Now()
	b.sent = append(b.sent, s)
	return s.id
}

// end frees what a statement held.
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

// share gives free slots to those who wait. With the mutex held. In goroutines: a caller whose statement has ended has
// its answer, and does not work for others.
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
			// Let them come back with their next requests: the first would otherwise have a statement for itself, and
			// the others wait for that.
			runtime.Gosched()
		}()
	}
}

// take returns the calls of the next statement, or nil. With the mutex held.
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

// A statement that does not come back must not hold up the others. Its connection may be frozen, or it waits for a row:
//
//	Tx                  Cache
//	UPDATE k
//	                    Set(k)  waits for Tx
//	Set(l)              queues behind it, and Tx waits for that: nothing that Postgres could see as a deadlock
//
// So whoever keeps others waiting for longer than Patience loses its slot, and what would wait for the same row stays
// behind until it is back.

// watch looks at the statements while somebody waits. With the mutex held.
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

// gone says that nobody waits for the answer any more.
func (c *call[Q, R]) gone() bool { return c.ctx.Err() != nil }

func (b *Queue[Q, R]) lateErr() error {
	if b.Late != nil {
		return b.Late()
	}
	return context.DeadlineExceeded
}

// late ends a call with err if it has waited for a whole timeout, and says whether it has.
func (b *Queue[Q, R]) late(c *call[Q, R], err func() error) bool {
	late := time.Since(c.since) >= b.Timeout
	if late {
		c.err = err()
		close(c.done)
	}
	return late
}

// answer sends the statement of calls, alone with One.
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

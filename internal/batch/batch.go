// Package batch shares statements between callers: a round trip costs the same for one key as for many.
//
// A caller that finds nothing under way runs its own statement, itself and under its own context: a lone caller pays no
// hand-off. Callers that come meanwhile queue, and share the next one. None ever joins a statement that has been sent,
// so each gets an answer from after it asked.
package batch

import (
	"context"
	"sync"
	"time"
)

// Queue coalesces requests of type Q into statements that answer with R each. Set the fields before use. It is safe for
// concurrent use.
type Queue[Q, R any] struct {
	// Slots is how many statements may be under way at a time.
	Slots int
	// Timeout bounds a shared statement: no caller's context does.
	Timeout time.Duration
	// MaxWeight bounds what shares a statement; a heavier request has one for itself.
	MaxWeight int
	// Weight is the part of one request. nil: 1 each.
	Weight func(q Q) int

	// One answers a single request.
	One func(ctx context.Context, q Q) (R, error)
	// Many answers several at once, in their order. An error fails all of them.
	Many func(ctx context.Context, qs []Q) ([]R, error)
	// Alone says of an error of Many that it may concern some of the requests only: then each is tried by itself.
	Alone func(err error) bool

	mu      sync.Mutex
	busy    int
	waiting []*call[Q, R]
}

type call[Q, R any] struct {
	q    Q
	ctx  context.Context //nolint:containedctx // to leave out callers that have gone
	done chan struct{}
	r    R
	err  error
}

// Do answers one request: with its own statement if a slot is free, or with a share in the next.
func (b *Queue[Q, R]) Do(ctx context.Context, q Q) (R, error) {
	b.mu.Lock()
	if b.busy < b.Slots {
		b.busy++
		b.mu.Unlock()
		defer b.next()
		return b.One(ctx, q)
	}
	c := &call[Q, R]{q: q, ctx: ctx, done: make(chan struct{})}
	b.waiting = append(b.waiting, c)
	b.mu.Unlock()
	select {
	case <-c.done:
		return c.r, c.err
	case <-ctx.Done():
		var none R
		return none, ctx.Err()
	}
}

// next gives the slot to those who wait, or frees it.
func (b *Queue[Q, R]) next() {
	if calls := b.take(); calls != nil {
		// In a goroutine: the caller whose statement has ended has its answer, and does not work for others.
		go func() {
			for ; calls != nil; calls = b.take() {
				b.answer(calls)
			}
		}()
	}
}

// take returns the calls of the next statement, or nil after it has freed the slot.
func (b *Queue[Q, R]) take() []*call[Q, R] {
	b.mu.Lock()
	defer b.mu.Unlock()
	var calls []*call[Q, R]
	weight, n := 0, 0
	for _, c := range b.waiting {
		if c.ctx.Err() == nil {
			w := 1
			if b.Weight != nil {
				w = b.Weight(c.q)
			}
			if weight += w; len(calls) > 0 && weight > b.MaxWeight {
				break
			}
			calls = append(calls, c)
		}
		n++
	}
	b.waiting = append(b.waiting[:0], b.waiting[n:]...)
	clear(b.waiting[len(b.waiting):cap(b.waiting)])
	if len(calls) == 0 {
		b.busy--
		return nil
	}
	return calls
}

func (b *Queue[Q, R]) answer(calls []*call[Q, R]) {
	// Whatever happens, also if a driver panics, nobody is left waiting.
	defer func() {
		for _, c := range calls {
			close(c.done)
		}
	}()
	if len(calls) == 1 {
		b.one(calls[0])
		return
	}
	qs := make([]Q, len(calls))
	for i, c := range calls {
		qs[i] = c.q
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(calls[0].ctx), b.Timeout)
	defer cancel()
	rs, err := b.Many(ctx, qs)
	if err != nil && b.Alone(err) {
		for _, c := range calls {
			b.one(c)
		}
		return
	}
	for i, c := range calls {
		if c.err = err; err == nil {
			c.r = rs[i]
		}
	}
}

func (b *Queue[Q, R]) one(c *call[Q, R]) {
	ctx, cancel := context.WithTimeout(c.ctx, b.Timeout)
	defer cancel()
	c.r, c.err = b.One(ctx, c.q)
}

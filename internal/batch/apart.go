package batch

import (
	"context"
	"fmt"
	"slices"
)

// A shared statement that failed because of some of its requests is not sent again. Its calls are set apart: Try sends each
// request by itself, several at a time, without waiting for a lock for long. A request whose Try found a lock is blocked by a
// transaction. Only such a request is then sent with One, which waits for the lock, and at most LockWaits statements do so at
// a time. So few connections of the process wait for rows, and a request that meets no lock never waits behind them.
//
//	statement [a m x]     a transaction holds a, m    set apart
//	fails after 50 ms                                 a, m, x are tried: x is answered, a and m fail after 10 ms
//	                                                  a and m wait, each in a statement of its own

// stage is how far a call that was set apart has come.
type stage int

const (
	suspect stage = iota // Try is to be called
	tried                // Try, or One in its place, is under way
	locked               // Try found a lock: One is to be called when mayWait allows it
	waits                // One is under way
)

// mayWait says that one more statement may be sent that waits for locks: fewer than LockWaits statements are without a
// slot. With the mutex held.
func (b *Queue[Q, R]) mayWait() bool { return len(b.sent)-b.busy < b.LockWaits }

// blocked says that q overlaps with a statement that is stuck, or with a call that was set apart and may have met a lock. With
// the mutex held.
func (b *Queue[Q, R]) blocked(q Q) bool {
	if b.Overlap == nil {
		return false
	}
	return slices.ContainsFunc(b.apart, func(c *call[Q, R]) bool { return b.Overlap(c.q, q) }) || b.stuckOn(q)
}

// stuckOn says that q overlaps with a statement that is stuck. Overlap must not be nil if there is one. With the mutex held.
func (b *Queue[Q, R]) stuckOn(q Q) bool {
	if b.busy == len(b.sent) {
		return false
	}
	return slices.ContainsFunc(b.sent, func(s statement[Q, R]) bool {
		if s.calls == nil {
			return s.stuck && b.Overlap(s.lone, q)
		}
		return s.stuck && slices.ContainsFunc(s.calls, func(c *call[Q, R]) bool { return b.Overlap(c.q, q) })
	})
}

// setApart adds the calls of a statement that failed to apart, to be tried one by one.
func (b *Queue[Q, R]) setApart(calls []*call[Q, R]) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.apart = append(b.apart, calls...)
	b.pump()
	b.watch()
}

// pump sends the calls of apart that may be sent now. It drops those that are not under way if their callers have gone, and ends
// those that have waited for a whole Timeout. With the mutex held.
func (b *Queue[Q, R]) pump() {
	if len(b.apart) == 0 {
		return
	}
	b.apart = slices.DeleteFunc(b.apart, func(c *call[Q, R]) bool {
		return (c.stage == suspect || c.stage == locked) &&
			(c.gone() || b.late(c, lockedErr))
	})
	for _, c := range b.apart {
		switch {
		case c.stage == suspect && b.trying < b.LockWaits:
			c.stage = tried
			b.trying++
			go b.try(c)
		case c.stage == locked && b.mayWait() && !b.stuckOn(c.q):
			c.stage = waits
			id := b.send(statement[Q, R]{lone: c.q, stuck: true})
			go func() {
				defer b.end(id)
				b.finish(c, b.One)
			}()
		}
	}
}

// lockedErr is the error of a call that was set apart and waited for Timeout.
func lockedErr() error {
	return fmt.Errorf("a transaction has locked the row: %w", context.DeadlineExceeded)
}

// try sends one request by itself, with Try, or with One if Try is nil.
func (b *Queue[Q, R]) try(c *call[Q, R]) {
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.trying--
		b.pump()
		b.share()
		b.watch()
	}()
	if b.Try == nil {
		b.finish(c, b.One)
		return
	}
	b.finish(c, b.Try)
}

// finish sends the request of c with send and gives c the answer. If Try found a lock, c gets no answer yet and becomes locked.
func (b *Queue[Q, R]) finish(c *call[Q, R], send func(ctx context.Context, q Q) (R, error)) {
	ctx, cancel := context.WithDeadline(c.ctx, c.since.Add(b.Timeout))
	defer cancel()
	r, err := observed(ctx, b.Observe, nil, func(ctx context.Context) (R, error) { return send(ctx, c.q) })
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.stage == tried && err != nil && b.Locked != nil && b.Locked(err) {
		c.stage = locked
		return
	}
	c.r, c.err = r, err
	b.apart = slices.DeleteFunc(b.apart, func(other *call[Q, R]) bool { return other == c })
	close(c.done)
}

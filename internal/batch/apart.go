package batch

import (
	"context"
	"fmt"
	"slices"
)

// A statement that failed because of one of its requests is not sent again: each request is tried by itself, several at
// a time and none of them waiting for a lock. What finds a lock is known to be blocked by somebody's transaction, and
// only that is sent to wait for it, as long as one of the few places is free. The connections of a process that wait for
// rows are bounded so, and requests that no lock concerns never wait for a place.
//
//	statement [a m x]     somebody holds a, m         apart
//	fails after 50 ms                                 a, m, x are tried: x is answered, a and m fail after 10 ms
//	                                                  a and m wait, each in a statement of its own

// stage is how far a call that was set apart has come.
type stage int

const (
	suspect stage = iota // to be tried
	tried                // under way
	locked               // to be sent, when a place is free
	waits                // under way
)

// mayWait says that there is a place for one more statement that waits for a lock. With the mutex held.
func (b *Queue[Q, R]) mayWait() bool { return len(b.sent)-b.busy < b.LockWaits }

// blocked says that q would wait with a statement that is stuck, or that it concerns what may be locked. With the mutex
// held.
func (b *Queue[Q, R]) blocked(q Q) bool {
	if b.Overlap == nil {
		return false
	}
	return slices.ContainsFunc(b.apart, func(c *call[Q, R]) bool { return b.Overlap(c.q, q) }) || b.stuckOn(q)
}

// stuckOn says that q would wait with a statement that is stuck. With the mutex held.
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

// setApart takes the calls of a statement that failed.
func (b *Queue[Q, R]) setApart(calls []*call[Q, R]) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.apart = append(b.apart, calls...)
	b.pump()
	b.watch()
}

// pump sends what there is room for, and lets go of calls that nobody waits for. With the mutex held.
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

func lockedErr() error {
	return fmt.Errorf("a transaction has locked the row: %w", context.DeadlineExceeded)
}

// try sends one request by itself.
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

// finish sends one request with send, and ends its call unless a lock was in the way of a try.
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

package listener

import (
	"math/rand/v2"
	"time"
)

// backoff draws delays with full jitter: evenly from nothing to a bound that grows from min to max. All nodes lose
// their connection in the same moment when a server restarts, and must not come back in the same moment.
type backoff struct {
	min, max, bound time.Duration
}

func newBackoff(least, most time.Duration) backoff {
	return backoff{min: least, max: most, bound: least}
}

// reset is called after a success.
func (b *backoff) reset() { b.bound = b.min }

// grow is called after a failure.
func (b *backoff) grow() { b.bound = min(2*b.bound, b.max) }

// delay draws how long to wait now.
func (b *backoff) delay() time.Duration { return rand.N(b.bound + 1) }

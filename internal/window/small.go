package window

import (
	"context"
	"math"
	"time"

	"github.com/pgcache/go/internal/mono"
	"github.com/pgcache/go/internal/notify"
)

// The steps that keep the log small, in bytes of its size on disk. A flush's DELETE leaves dead rows, and the next flush's scan
// reads them all; so does every node's pulse.
const (
	vacuumAt, vacuumEvery = 1 << 20, time.Second
	drainAt, drainEvery   = 8 << 20, 10 * time.Second
	fullAt                = 32 << 20
	quietAt               = 64 << 10 // when a lead ends, the log is emptied beyond this

	upkeepTimeout = time.Second
)

// ladder is when its steps were last taken.
type ladder struct {
	vacuumed, drained int64
	busy              bool // one is under way
}

// keepSmall starts VACUUM or Drain in a goroutine when the log is too large. VACUUM goes first because Drain stops all writers for
// a moment. It removes nothing while a long transaction is open or the role lacks the right. Drain fails while a pg_dump or a
// report holds the table; then writes publish inline until the log is smaller. quiet says that a lead has ended: nobody
// writes then, so Drain stops nobody.
func (w *Window) keepSmall(bytes int64, quiet bool) {
	t := mono.Now()
	since := func(last int64) time.Duration {
		if last == 0 {
			return math.MaxInt64
		}
		return time.Duration(t - last)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.full = bytes > fullAt
	if w.ladder.busy || w.closing {
		return
	}
	var step func(ctx context.Context) error
	switch l := &w.ladder; {
	case bytes > drainAt && since(l.drained) >= drainEvery && l.vacuumed != 0,
		quiet && bytes > quietAt && since(l.drained) >= vacuumEvery:
		l.drained = t
		sender := notify.Stretched(w.node, w.window, w.current, 0)
		step = func(ctx context.Context) error { return w.log.Drain(ctx, sender) }
	case bytes > vacuumAt && since(l.vacuumed) >= vacuumEvery:
		l.vacuumed = t
		step = w.log.Vacuum
	default:
		return
	}
	w.ladder.busy = true
	w.upkeep.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), upkeepTimeout)
		defer cancel()
		_ = step(ctx) // fails for good reasons (a lock held, a right missing): the next step is the answer
		w.mu.Lock()
		w.ladder.busy = false
		w.mu.Unlock()
	})
}

package window

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/pgcache/go/internal/mono"
)

// From which size of the log on disk, in bytes, a node makes it smaller, and how often at the most. A flush's DELETE leaves dead rows,
// and the next flush's scan reads them all; so does every node's pulse.
const (
	vacuumAt, vacuumEvery = 1 << 20, time.Second
	drainAt, drainEvery   = 8 << 20, 10 * time.Second
	fullAt                = 32 << 20 // from here writes publish inline
	quietAt               = 64 << 10 // when a lead ends Drain is due from here already, once in vacuumEvery

	upkeepTimeout = time.Second
)

// upkeep is when VACUUM and Drain were last begun.
type upkeep struct {
	vacuumed, drained int64 // 0: never
	busy              bool  // one is under way
	running           sync.WaitGroup
}

// keepSmall starts VACUUM or Drain in a goroutine when the log is too large. VACUUM goes first because Drain stops all writers for
// a moment. It removes nothing while a long transaction is open or the role lacks the right. Drain fails while a pg_dump or a
// report holds the table; then writes publish inline until the log is smaller. leadEnded says that this node has just stopped
// leading, because its flushes found nothing: nobody writes then, so Drain stops nobody.
func (w *Window) keepSmall(bytes int64, leadEnded bool) {
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
	if w.upkeep.busy || w.closing {
		return
	}
	var step func(ctx context.Context) error
	switch u := &w.upkeep; {
	case bytes > drainAt && since(u.drained) >= drainEvery && u.vacuumed != 0,
		leadEnded && bytes > quietAt && since(u.drained) >= vacuumEvery:
		u.drained = t
		sender := w.sender(w.current, 0)
		step = func(ctx context.Context) error { return w.log.Drain(ctx, sender) }
	case bytes > vacuumAt && since(u.vacuumed) >= vacuumEvery:
		u.vacuumed = t
		step = w.log.Vacuum
	default:
		return
	}
	w.upkeep.busy = true
	w.upkeep.running.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), upkeepTimeout)
		defer cancel()
		_ = step(ctx) // it fails where a lock is held or a right is missing: then the log grows until the next step is due
		w.mu.Lock()
		w.upkeep.busy = false
		w.mu.Unlock()
	})
}

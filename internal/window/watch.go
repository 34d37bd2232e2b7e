package window

import (
	"context"
	"math"
	"time"

	"github.com/pgcache/go/internal/mono"
)

// leastLook is the shortest pause between two looks at the log, also of a node whose window is shorter.
const leastLook = 10 * time.Millisecond

// Watch has this node look once a window, for d, whether the log holds a change, and flush it: triggers of watched tables leave
// changes there, and whoever writes those tables plans no flush. One node of the fleet does so, and calls this again before d has
// passed.
func (w *Window) Watch(d time.Duration) {
	t := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watchUntil < t {
		defer w.signal()
	}
	w.watchUntil = t + int64(d)
}

// nextLook is when the next look is due. While a leader flushes, here or elsewhere, there is none. With the mutex held.
func (w *Window) nextLook(t int64) int64 {
	if t >= w.watchUntil || w.leading {
		return math.MaxInt64
	}
	return w.after(max(w.flushedAt, w.lookedAt)+int64(max(w.window, leastLook)), t)
}

// look flushes if the log holds a change. It also flushes after an error, because a flush that fails reports it, and plans another
// try.
func (w *Window) look(ctx context.Context) error {
	pending, err := w.log.Pending(ctx)
	if err == nil && !pending {
		t := mono.Now()
		w.mu.Lock()
		w.lookedAt = t
		w.mu.Unlock()
		return nil
	}
	return w.flush(ctx)
}

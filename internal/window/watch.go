package window

import (
	"context"
	"math"
	"time"

	"github.com/pgcache/go/internal/mono"
)

// leastLook is the shortest pause between two looks at the log, also of a node whose window is shorter.
const leastLook = 10 * time.Millisecond

// Watch has this node look once a window, for d at least, whether the log holds a change, and flush it. Two kinds of changes come there
// without a write that plans a flush: those of watched tables, which one node of the fleet looks for, and those of transactions of
// the caller's, whose commits nobody reports. Call it again before d has passed.
func (w *Window) Watch(d time.Duration) {
	t := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watchUntil < t {
		defer w.signal()
	}
	w.watchUntil = max(w.watchUntil, t+int64(d))
}

// InlineTx reports whether a statement in a transaction of the caller's must publish inline. It should not: the server commits
// transactions that notify one by one.
func (w *Window) InlineTx() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.immediate || w.full || w.closing
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

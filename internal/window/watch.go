package window

import (
	"context"
	"math"
	"time"

	"github.com/pgcache/go/internal/mono"
)

const (
	// leastLook is the shortest pause between two looks at the log, also of a node whose window is shorter.
	leastLook = 10 * time.Millisecond
	// The pause after a look is at least lookPause times as long as the look takes, up to maxWindow: a look reads the dead rows that
	// nobody could remove from the log, and every node may look.
	lookPause = 10
)

// watching is until when and why this node looks at the log, which it does once a window. It is under the Window's mutex.
type watching struct {
	until   int64       // see Watch
	txUntil int64       // see WatchTx
	txOpen  func() bool // see WatchTx

	lookedAt int64         // when it last looked, and found nothing
	took     time.Duration // how long that look took, without the way to the server and back
	cost     time.Duration // how long a look takes: the shorter of the last two, so that one which took long by chance does not count
	lookNext bool          // what Run has planned is a look
}

// ends is when this node stops looking.
func (w *watching) ends() int64 { return max(w.until, w.txUntil) }

// Watch has this node look once a window, for d at least, whether the log holds a change, and flush it: triggers of watched tables leave
// theirs there without a write that plans a flush. Call it again before d has passed.
func (w *Window) Watch(d time.Duration) {
	t := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watch(t, &w.watching.until, d)
}

// WatchTx is like Watch for transactions of the caller's, whose commits nobody reports, but the looks end when open returns false: no
// transaction is open any more whose changes may yet come into the log. open is called without a lock held. The caller has noted the
// transaction before it calls this.
func (w *Window) WatchTx(d time.Duration, open func() bool) {
	t := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watching.txOpen = open
	w.watch(t, &w.watching.txUntil, d)
}

// watch extends *until, and wakes Run if no looks are planned. With the mutex held.
func (w *Window) watch(t int64, until *int64, d time.Duration) {
	if w.watching.ends() < t {
		defer w.signal()
	}
	*until = max(*until, t+int64(d))
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
	if t >= w.watching.ends() || w.leading {
		return math.MaxInt64
	}
	pause := max(w.window, leastLook, min(lookPause*w.watching.cost, w.maxWindow))
	return w.after(max(w.flushedAt, w.watching.lookedAt)+int64(pause), t)
}

// look flushes if the log holds a change. It also flushes after an error, because a flush that fails reports it, and plans another
// try.
func (w *Window) look(ctx context.Context) error {
	if !w.watched() {
		return nil
	}
	w.mu.Lock()
	ask := w.unnotified.yes && !w.closing
	w.mu.Unlock()
	if ask {
		return w.ask(ctx)
	}
	sent := mono.Now()
	pending, err := w.log.Pending(ctx)
	if err == nil && !pending {
		t := mono.Now()
		w.mu.Lock()
		defer w.mu.Unlock()
		took := max(0, time.Duration(t-sent)-w.roundTrip.shortest())
		w.watching.lookedAt, w.watching.took, w.watching.cost = t, took, min(took, w.watching.took)
		return nil
	}
	return w.flush(ctx)
}

// watched reports whether there is still something to look for. If WatchTx is called while txOpen runs, its transaction counts even where
// txOpen did not see it.
func (w *Window) watched() bool {
	w.mu.Lock()
	until, open := w.watching.txUntil, w.watching.txOpen
	w.mu.Unlock()
	over := open != nil && !open()
	t := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if over && w.watching.txUntil == until {
		w.watching.txUntil = longAgo
	}
	return t < w.watching.ends()
}

package window

import (
	"time"

	"github.com/pgcache/go/internal/mono"
)

// How the window of a leader follows what its flushes cost. It is TCP's congestion control turned round: where a notification comes
// back late the rate of flushes falls by half, and where it comes early it rises slowly. So the window is two to six times what
// a flush takes until its notification is there.
const (
	lateAt   = 2  // a notification later than this fraction of the window stretches the window to twice its length
	earlyAt  = 6  // one earlier than this fraction shrinks it
	shrinkBy = 10 // by this fraction
)

// remembered is how long what a leader has found, or that this node has heard an echo, is believed.
const remembered = 2 * time.Second

// echo is what a node knows of the notification of its own last flush that published something. The committing session signals
// every listening one before it answers, and those take their time to read and to send: both are seen here.
type echo struct {
	awaited bool          // the flush has published something
	sent    int64         // when it was sent
	came    bool          // a message of it was received,
	late    time.Duration // so long after it was sent: the last of them counts
	heard   int64         // when any message of this node was received; 0: never
}

func (e *echo) received(t int64) {
	e.came, e.heard, e.late = true, t, time.Duration(t-e.sent)
}

// adapt stretches or shrinks the window by what the last flush has shown. It is called when the next is sent, with the mutex held.
func (w *Window) adapt(t int64) {
	e := &w.echo
	switch {
	case !e.awaited:
	case !e.came && time.Duration(t-e.sent) <= w.current/lateAt:
		return // it may still come early
	case !e.came && (e.heard == 0 || t-e.heard > int64(remembered+w.most)):
		w.current = w.window // there is no listener here that could show what a flush costs, or it is lost
	case !e.came || e.late > w.current/lateAt:
		w.current = min(2*w.current, w.most)
	case e.late < w.current/earlyAt:
		w.current = max(w.current-w.current/shrinkBy, w.window)
	}
	w.current = w.current.Truncate(time.Millisecond) // as messages have it
	w.echo = echo{sent: t, heard: e.heard}
}

// lead is called after a flush that has published something and returned at t. With the mutex held.
func (w *Window) lead(t int64) {
	if !w.leading && w.leader.seen != 0 && t-w.leader.seen < int64(remembered) {
		w.current = min(max(w.current, w.leader.current), w.most) // what the last leader has found need not be found again
	}
	w.leading, w.empty, w.published = true, 0, t
	w.echo.awaited = true
}

// Current returns the window that changes are published by now, this node's or the leader's; 0: every write publishes for itself.
func (w *Window) Current() time.Duration {
	t := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.immediate:
		return 0
	case !w.leading && w.led(t):
		return w.leader.current
	}
	return w.current
}

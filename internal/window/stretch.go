package window

import (
	"time"

	"github.com/pgcache/go/internal/mono"
)

// How the window of a leader follows what its flushes cost. It is TCP's congestion control turned round: where a notification comes
// back late the rate of flushes falls by half, and where it comes in time it rises slowly.
const (
	lateAt   = 2  // a notification later than this fraction of the window is late: it stretches the window to twice its length
	inTimeAt = 4  // one earlier than this fraction is in time: it shrinks the window
	shrinkBy = 10 // by this fraction
)

// remembered is how long what a leader has found, or that this node has heard an echo, is believed.
const remembered = 2 * time.Second

// echo is what a node knows of the notification of its own last flush that published something. The server has sent it to every
// listening session at about the same time, so it comes back late when waking them all takes long.
type echo struct {
	awaited  bool          // the flush has returned, and
	returned int64         // when
	came     bool          // a message of it was received,
	late     time.Duration // so long after the flush had returned: the last of them counts
	heard    int64         // when any message of this node was received; 0: never
}

func (e *echo) received(t int64) {
	e.came, e.heard = true, t
	if e.awaited {
		e.late = time.Duration(t - e.returned)
	}
}

// adapt stretches or shrinks the window by what the last flush has shown. It is called before the next is sent, with the mutex
// held.
func (w *Window) adapt(t int64) {
	e := &w.echo
	switch {
	case !e.awaited:
		return // the last flush found nothing to publish
	case !e.came && time.Duration(t-e.returned) <= w.current/lateAt:
		return // it may still come in time
	case !e.came && (e.heard == 0 || t-e.heard > int64(remembered+w.most)):
		w.current = w.window // there is no listener here that could show what a flush costs, or it is lost
	case !e.came || e.late > w.current/lateAt:
		w.current = min(2*w.current, w.most)
	case e.late <= w.current/inTimeAt:
		w.current = max(w.current-w.current/shrinkBy, w.window)
	}
	w.current = w.current.Truncate(time.Millisecond) // as messages have it
	w.echo = echo{heard: e.heard}
}

// lead is called after a flush that has published something and returned at t. With the mutex held.
func (w *Window) lead(t int64) {
	if !w.leading && w.leader.seen != 0 && t-w.leader.seen < int64(remembered) {
		w.current = min(max(w.current, w.leader.current), w.most) // what the last leader has found need not be found again
	}
	w.leading, w.empty, w.published = true, 0, t
	w.echo.awaited, w.echo.returned = true, t
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

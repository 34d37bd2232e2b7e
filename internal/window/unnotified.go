package window

import (
	"context"
	"math"
	"time"

	"github.com/pgcache/go/internal/mono"
	"github.com/pgcache/go/internal/notify"
)

// unnotified is the state of a node that receives no notifications, because it has no listener or its listener is down. It can't hear
// who else flushes. If each such node flushed once a window, each would wake all listening sessions once a window. So before it flushes
// it asks how old the oldest change in the log is:
//
//	this node               another           the log
//	logs v1                                   v1
//	                        flushes
//	logs v2                                   v2
//	asks, a window after v1                   v2 is younger than that: somebody flushes, and v1 is published
//
// Where others flush it asks again only after two to three of the windows that they seem to flush by, and takes over where the log then
// holds a change as old as that. Its messages say that it is unnotified, so that no listening node takes it for a leader: an unnotified
// node can't see what a flush costs. A listening node that writes leads instead, and one that does not write takes over by Relieve.
type unnotified struct {
	yes      bool          // the rest is meaningless if it is false
	follows  bool          // others were seen to flush when it last asked
	others   time.Duration // the window that they seem to flush by, up to maxWindow
	patience time.Duration // this node flushes if the log holds a change as old as that
	since    int64         // when it last took over
}

// A pending change is taken for published when it is older than the oldest change in the log by unnotifiedSlack and a hundredth of that
// one's age: the clocks of node and server do not run equally fast.
const unnotifiedSlack = time.Millisecond

// SetUnnotified says whether this node receives no notifications. Until it is called the node is taken for one that receives them.
func (w *Window) SetUnnotified(yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.unnotified.yes == yes {
		return
	}
	w.unnotified = unnotified{yes: yes, others: w.window, patience: w.window, since: longAgo}
	w.leader, w.earliest = leader{}, math.MinInt64
	w.follow()
	w.signal()
}

// ask flushes if the log holds a change so old that nobody else seems to flush. It also flushes after an error, because a flush that
// fails reports it, and plans another try.
func (w *Window) ask(ctx context.Context) error {
	sent := mono.Now()
	age, err := w.log.Oldest(ctx)
	if err != nil || w.takesOver(sent, age) {
		return w.flush(ctx)
	}
	return nil
}

// takesOver says whether this node must flush, and else drops what is pending and was published by others. age is the answer to what it
// asked at sent: how old the oldest change in the log is; below 0: there is none.
func (w *Window) takesOver(sent int64, age time.Duration) bool {
	t := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	u := &w.unnotified
	if !u.yes {
		return true
	}
	if age >= u.patience-u.patience/8 { // by the server's clock a change of its own that is due may be a little younger
		if u.follows {
			u.follows, u.patience, u.since = false, u.others, t
		} else { // not to the configured window at once: others may flush by a stretched window, and soon again
			u.patience = max(u.patience-u.patience/shrinkBy, w.window)
		}
		return true
	}
	w.earliest, w.watching.lookedAt = math.MinInt64, t
	if !w.dropPublished(sent, age) {
		return false
	}
	switch {
	case u.follows:
		// The oldest change is no older than their last flush, so their window is at least age. others shrinks slowly: where several
		// unnotified nodes take over by turns, each would forget meanwhile that a listening node flushes rarely.
		u.others = max(age, u.others*31/32, w.window)
	case t-u.since < int64(remembered+3*u.others):
		u.others *= 2 // it took over from somebody who flushes more rarely than it seemed
	default:
		u.others = w.window
	}
	u.others = min(u.others, w.maxWindow)
	u.follows, u.patience = true, min(patience(u.others), max(w.maxWindow, 3*w.window))
	return false
}

// dropPublished drops what is pending and was acknowledged before the oldest change in the log was made: it is not in the log any more.
// It reports whether others have published some of that. What was begun before this node's last flush ended does not show it, because
// that flush may have published it. With the mutex held.
func (w *Window) dropPublished(sent int64, age time.Duration) (others bool) {
	before := sent
	if age >= 0 {
		before -= int64(age + age/100 + unnotifiedSlack)
	}
	for v, c := range w.pending {
		if c.acked && c.due-int64(w.window) < before {
			others = others || c.began > w.flushedAt
			delete(w.pending, v)
		}
	}
	return others
}

// unnotifiedAfter is when an unnotified node asks for what is due at due. With the mutex held.
func (w *Window) unnotifiedAfter(due int64) int64 {
	return max(due+int64(w.unnotified.patience-w.window), w.watching.lookedAt+int64(min(leastLook, w.window)))
}

// sender is what the messages of this node's flushes say of it. With the mutex held.
func (w *Window) sender(current time.Duration, number uint16) string {
	if w.unnotified.yes {
		return notify.UnnotifiedSender(w.window)
	}
	return notify.StretchedSender(w.node, w.window, current, number)
}

// heard is what a listening node knows of the flushes of unnotified nodes.
type heard struct {
	last   int64         // when the last was received
	n      int           // how many have come with pauses of relieveWithin at the most
	window time.Duration // the shortest window of those nodes
}

// A listening node relieves unnotified nodes when they have flushed relieveAfter times with pauses of relieveWithin at the most. Where
// they flush more rarely little is won.
const (
	relieveAfter  = 8
	relieveWithin = 250 * time.Millisecond
)

func (h *heard) add(window time.Duration, t int64) {
	if h.n == 0 || t-h.last > int64(relieveWithin) {
		*h = heard{window: window}
	}
	h.last, h.n, h.window = t, h.n+1, min(h.window, window)
}

// Relieve has this node flush, and so lead, where only unnotified nodes seem to flush. The pulse calls it: pulses of different nodes come
// at different times, so one node flushes, and the others receive that and do not.
func (w *Window) Relieve(ctx context.Context) error {
	t := mono.Now()
	w.mu.Lock()
	h := &w.heard
	relieves := w.listening && !w.leading && !w.led(t) && h.n >= relieveAfter && t-h.last < int64(relieveWithin) && w.window <= h.window
	w.mu.Unlock()
	if !relieves {
		return nil
	}
	defer w.signal() // Run goes on with it
	return w.flush(ctx)
}

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

const (
	// remembered is how long past its silence is believed what the last leader has found.
	remembered = 2 * time.Second
	// lostAt is when a notification that has not come, although its window was stretched for it, is no longer awaited.
	lostAt = 5 * time.Second
	// handOver is how long a leader flushes by a stretched window until it lets another try. Its notifications may be late for
	// reasons that are its own, a processor that it shares with others, and would not be elsewhere.
	handOver = time.Minute
	// handOverBy is by what fraction of its window a leader invites others to take over. They wait for two to three windows of
	// the leader, so they come before its next flush; where nobody does, it leads on.
	handOverBy = 4
)

// echo is what a node knows of the notification of one of its own flushes. The committing session signals every listening one before
// it answers, and those take their time to read and to send: both are seen here.
//
// A flush's messages carry its number. Without it the notification of one would be taken for that of the next:
//
//	flush 1 sent                  flush 2 sent    notification 1   <- late by a whole window, but just behind flush 2
type echo struct {
	awaited bool          // a flush that may publish something has been sent
	number  uint16        // of that flush
	sent    int64         // when
	came    bool          // its notification was received,
	late    time.Duration // so long after it was sent: of several messages the last counts
}

func (e *echo) received(number uint16, t int64) {
	if e.awaited && number == e.number {
		e.came, e.late = true, time.Duration(t-e.sent)
	}
}

// link is the time that a statement takes on this node's way to the server, whatever is published: a distant leader's notifications
// are late, and no flush less would bring them sooner. It is the shortest of the last pulses, because a busy server answers
// some of them at once.
type link struct {
	least [2]time.Duration // of the pulses since, and of those before; 0: none
	n     int
}

const linkPulses = 8 // 16 s

func (l *link) add(d time.Duration) {
	if l.n++; l.n > linkPulses {
		l.least, l.n = [2]time.Duration{0, l.least[0]}, 1
	}
	if l.least[0] == 0 || d < l.least[0] {
		l.least[0] = d
	}
}

func (l *link) shortest() time.Duration {
	if l.least[1] == 0 {
		return l.least[0]
	}
	return min(l.least[0], l.least[1])
}

// Took says how long a statement of this node took that publishes nothing.
func (w *Window) Took(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.link.add(d)
}

// Listening says whether notifications reach this node as they are sent. Only then can it see what a flush costs: one that polls
// receives them when it polls.
func (w *Window) Listening(yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listening, w.echo = yes, echo{}
}

// adapt stretches or shrinks the window by what an earlier flush has shown, and awaits the notification of the one that is
// about to be sent, if no other is awaited. With the mutex held.
func (w *Window) adapt(t int64) {
	w.number++
	e := &w.echo
	age := time.Duration(t - e.sent)
	switch {
	case !w.listening:
		w.current = w.window // nothing shows what a flush costs
		return
	case !e.awaited:
	case e.came:
		switch late := max(0, e.late-w.link.shortest()); {
		case late > w.current/lateAt:
			w.stretch(t)
		case late < w.current/earlyAt:
			w.shrink()
		}
	case age > lostAt:
		// There is a listener, and it would have been found out if it did not live.
	case age-w.link.shortest() > w.current/lateAt:
		w.stretch(t)
		return
	default:
		return
	}
	w.echo = echo{awaited: true, number: w.number, sent: t}
}

func (w *Window) stretch(t int64) {
	if w.current == w.window {
		w.stretched = t
	}
	w.current = min(2*w.current, w.most)
}

func (w *Window) shrink() {
	w.current = max(w.current-w.current/shrinkBy, w.window).Truncate(time.Millisecond) // as messages have it
}

// announce is the window that the flush which is about to be sent says. With the mutex held.
func (w *Window) announce(t int64) time.Duration {
	if !w.leading || w.current == w.window || t-w.stretched < int64(handOver) {
		return w.current
	}
	w.stretched, w.yields = t, true
	return max(w.current/handOverBy, w.window).Truncate(time.Millisecond)
}

// succeed is called when a node that does not lead is about to flush: what the last leader has found need not be found again. Already
// this flush must say so: after one that says the configured window, all would wait for the next no longer than that. With the
// mutex held.
func (w *Window) succeed(t int64) {
	l := &w.leader
	w.current, w.stretched = w.window, t
	if l.seen != 0 && t-l.seen < int64(remembered+3*l.current) {
		w.current = min(max(w.window, l.current), w.most)
	}
}

// lead is called after a flush that has published something and returned at t. With the mutex held.
func (w *Window) lead(t int64) {
	w.leading, w.empty, w.published = true, 0, t
}

// follow is called when this node does not lead, or no longer. With the mutex held.
func (w *Window) follow() {
	w.leading, w.yields, w.current, w.echo = false, false, w.window, echo{}
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

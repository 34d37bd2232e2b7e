package window

import (
	"time"

	"github.com/pgcache/go/internal/mono"
)

// How the window of a leader follows what its flushes cost. As in TCP's congestion control, the rate falls by half where a
// notification comes back late, and rises slowly where one comes early. So the window is two to six times what a flush takes until
// its notification is there.
const (
	lateAt   = 2  // a notification that takes longer than a half of the window doubles the window
	earlyAt  = 6  // one that takes less than a sixth of the window shrinks it
	shrinkBy = 10 // a window shrinks by a tenth of itself
)

const (
	// remembered is for how long, after a leader has been silent for three windows, a node that takes over adopts its window.
	remembered = 2 * time.Second
	// lostAt is how long after its flush a notification that has not come is taken for lost.
	lostAt = 5 * time.Second
	// handOver is how long a leader flushes by a stretched window until it invites others to take over. Its notifications may be
	// late for reasons that are its own, as a processor that it shares with others, and would not be late elsewhere.
	handOver = time.Minute
	// A leader invites others to take over by a message that says a quarter of its window, and flushes by the whole of it. They wait
	// for two to three of the windows that it says, so they flush before it does; where nobody takes over, it leads on.
	handOverBy = 4
)

// echo is what a node knows of the notification of one of its own flushes. How late it is shows how long the committing session
// takes to signal every listening one, and how long those take to read and to send.
//
// A flush's messages carry its number. Without it the notification of one would be taken for that of the next:
//
//	flush 1 sent                  flush 2 sent    notification 1   <- late by a whole window, but just behind flush 2
type echo struct {
	awaited bool          // a flush has been sent whose notification is timed; false: the rest is meaningless
	number  uint16        // of that flush
	sent    int64         // when it was sent
	came    bool          // its notification was received
	late    time.Duration // if it came: so long after the flush was sent; of several messages the last counts
}

// received notes that the notification of this node's flush of that number has come.
func (e *echo) received(number uint16, t int64) {
	if e.awaited && number == e.number {
		e.came, e.late = true, time.Duration(t-e.sent)
	}
}

// roundTrip is how long a statement takes that publishes nothing: the way to the server and back. It is taken off an echo, because
// a distant leader's notifications are late however rarely it flushes. The shortest of the last pulses counts, because even a
// busy server answers some of them at once.
type roundTrip struct {
	least [2]time.Duration // the shortest of the last n pulses, and of the roundTripPulses before them; 0: there were none
	n     int
}

const roundTripPulses = 8 // 16 s

func (r *roundTrip) add(d time.Duration) {
	if r.n++; r.n > roundTripPulses {
		r.least, r.n = [2]time.Duration{0, r.least[0]}, 1
	}
	if r.least[0] == 0 || d < r.least[0] {
		r.least[0] = d
	}
}

func (r *roundTrip) shortest() time.Duration {
	if r.least[1] == 0 {
		return r.least[0]
	}
	return min(r.least[0], r.least[1])
}

// AddRoundTrip notes how long a statement of this node took that publishes nothing: see roundTrip.
func (w *Window) AddRoundTrip(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.roundTrip.add(d)
}

// SetListening says whether notifications reach this node as they are sent. Only then can it see what a flush costs: a node that polls
// receives them when it polls.
func (w *Window) SetListening(yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listening, w.echo = yes, echo{}
}

// adapt stretches or shrinks the window by how late the notification of an earlier flush was, and times that of the flush that is
// about to be sent, unless the earlier one is still awaited. With the mutex held.
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
		switch late := max(0, e.late-w.roundTrip.shortest()); {
		case late > w.current/lateAt:
			w.stretch(t)
		case late < w.current/earlyAt:
			w.shrink()
		}
	case age > lostAt:
		// The notification is lost, but the listener is not: a lost one would have been noticed by now, and SetListening would have
		// ended the echo. So the flush that is about to be sent is timed instead.
	case age-w.roundTrip.shortest() > w.current/lateAt:
		w.stretch(t)
		return
	default:
		return
	}
	w.echo = echo{awaited: true, number: w.number, sent: t}
}

// stretch doubles the window. With the mutex held.
func (w *Window) stretch(t int64) {
	if w.current == w.window {
		w.handOverFrom = t
	}
	w.current = min(2*w.current, w.maxWindow)
}

// shrink shortens the window by a tenth. With the mutex held.
func (w *Window) shrink() {
	w.current = max(w.current-w.current/shrinkBy, w.window).Truncate(time.Millisecond) // as messages have it
}

// announce returns the window that the messages of the flush which is about to be sent say. With the mutex held.
func (w *Window) announce(t int64) time.Duration {
	if !w.leading || w.current == w.window || t-w.handOverFrom < int64(handOver) {
		return w.current
	}
	w.handOverFrom, w.inviting = t, true
	return max(w.current/handOverBy, w.window).Truncate(time.Millisecond)
}

// adoptWindow is called when a node that does not lead is about to flush. It sets the window that the last leader flushed by, if that
// was stretched, else the configured one. Already this flush must say so: after one that says the configured window, the others would
// wait no longer than that for the next. With the mutex held.
func (w *Window) adoptWindow(t int64) {
	l := &w.leader
	w.current, w.handOverFrom = w.window, t
	// A window that is only configured longer shows nothing of what flushes cost.
	if l.seen != 0 && l.current > l.window && t-l.seen < int64(remembered+3*l.current) {
		w.current = min(max(w.window, l.current), w.maxWindow)
	}
}

// lead is called after a flush that has published something and returned at t. With the mutex held.
func (w *Window) lead(t int64) {
	w.leading, w.empty, w.notifiedAt = true, 0, t
}

// follow has this node step down if it leads, and go back to its configured window. With the mutex held.
func (w *Window) follow() {
	w.leading, w.inviting, w.current, w.echo = false, false, w.window, echo{}
}

// Current returns the window that changes are published by now, this node's or the leader's; 0: every write publishes inline.
func (w *Window) Current() time.Duration {
	t := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.immediate:
		return 0
	case w.unnotified.yes && w.unnotified.follows:
		return w.unnotified.others
	case !w.leading && w.led(t):
		return w.leader.current
	}
	return w.current
}

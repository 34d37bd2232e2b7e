// Package window says when changes are published.
//
// A writing statement leaves its changes in the change log, and a flush publishes everybody's changes in one notification:
// listeners then receive one a flush, not one a write. A write's change is pending on its node until a notification lists its
// version or a flush of this node publishes it, and the node flushes within its window while changes are pending. When the
// system has been quiet for a window and nobody leads, a write publishes in its own statement instead (inline publish), without
// delay.
//
// Who flushes: a node whose flush published a change leads. It flushes once a window until three flushes in a row find
// nothing. Another node with pending changes takes over when the leader was silent for two to three of the leader's windows. If
// two lead, the one with the longer window steps down when it receives the other's flush; with equal windows, the one with the
// higher id. So a fleet flushes about once a window, without an election.
//
// Every flush wakes every listening session of the database. The leader sees from its own notifications what that costs: where
// they come late it stretches its window, up to a bound, and where they come early it shrinks it back. See stretch.go.
//
// A node that receives no notifications takes no part in this: it flushes only what others have left in the log. See unnotified.go.
//
// A node that dies, a flush that fails and a write that commits later than its writer waited leave changes in the log that no
// node plans to flush. The pulse, a check that every listening node makes every two seconds, finds and flushes them: see
// pgcache/pulse.go.
//
// A model checker walks through all states of these rules, and shows that each is needed: internal/model/window,
// internal/model/stretch and internal/model/unnotified.
package window

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pgcache/go/internal/mono"
	"github.com/pgcache/go/internal/notify"
)

const (
	emptyFlushes = 3           // a leader steps down after so many flushes in a row that found no change
	maxRetry     = time.Second // the longest pause after a flush that failed

	// A pending change is dropped when a flush of the leader has come that is later than the change was due, by more than overdue and
	// two of the leader's windows. No notification may ever list its version: a flush lists sixteen of a key at the most, and none
	// where it publishes "everything". The change was committed before that flush, so one of the leader's flushes has published it.
	overdue = 250 * time.Millisecond

	// immediateWindow is the least window of a node whose writes all publish inline. It matters only while some node polls:
	// then such writes are also logged, and have to be flushed.
	immediateWindow = 5 * time.Millisecond

	closeTimeout = time.Second // for what is still to be published when the cache is closed
)

// Outcome is what a node knows of its write.
type Outcome int

const (
	// Silent: the statement changed nothing that others could hold, as an insert of a new key, or certainly did not commit.
	Silent Outcome = iota
	// Published: by the statement that wrote (inline).
	Published
	// Logged: it is in the change log, for the next flush.
	Logged
	// Unknown: the reply was lost. The write may have committed or may commit later; it is flushed like Logged.
	Unknown
)

// Window decides when the changes of one node are published, and flushes the change log. It is safe for concurrent use.
//
// Times are of mono.Now.
type Window struct {
	window    time.Duration // as configured
	maxWindow time.Duration // how far it may be stretched
	immediate bool          // every write publishes in its own statement
	node      uint32
	log       Log

	flushing chan struct{} // held by the one flush of this node that is under way

	mu         sync.Mutex
	pending    map[int64]*change // own writes that nobody is known to have published, by version
	earliest   int64             // no pending change is due before; MaxInt64: none is due; MinInt64: to be computed anew
	planned    int64             // when Run's timer goes off; MaxInt64: never
	notifiedAt int64             // when this node last received or made a notification
	flushedAt  int64             // when its last flush returned, with or without an error
	retry      time.Duration     // the pause after a flush that failed; 0: the last one did not
	full       bool              // the log is larger than fullAt: writes publish inline until a flush finds it smaller
	closing    bool              // Run is ending: writes publish inline
	upkeep     upkeep

	leading bool   // this node leads
	empty   int    // its flushes in a row that found nothing
	leader  leader // the other node that was last seen to flush

	watching   watching
	unnotified unnotified
	heard      heard
	askNext    bool // what Run has planned is to be asked for first: see unnotified

	current      time.Duration // what this node flushes by while it leads: window, or stretched
	handOverFrom int64         // handOver counts from here: when current was first stretched, or others were last invited to take over
	inviting     bool          // others were invited to take over: it steps down for any of them whose window is as long
	listening    bool          // see SetListening
	number       uint16        // of its last flush
	echo         echo
	roundTrip    roundTrip

	wake chan struct{} // has Run plan anew
}

// change is one own write that somebody has to publish.
type change struct {
	began int64 // when Begin was called
	due   int64 // when this node flushes it; 0 before End
	acked bool  // End was called: a flush sent from now on publishes it if it has committed; if it commits later, a pulse does
}

// leader is the other node that was last seen to flush. While one that may lead this node flushes, others that may not are left out.
type leader struct {
	node     uint32
	seen     int64         // when its last flush was received; 0: none was
	window   time.Duration // as configured there
	current  time.Duration // that it flushes by: window, or longer where it is stretched
	patience time.Duration // how long it may be silent until this node takes over
}

// New returns the Window of a node. window is rounded down to milliseconds, at least one, and may be stretched to maxWindow.
// immediate makes every write publish inline; the log is then written only while some node polls. New starts no goroutine: the
// caller must call Run.
func New(window, maxWindow time.Duration, immediate bool, log Log) *Window {
	window = max(window.Truncate(time.Millisecond), time.Millisecond) // as messages have it: else two could each step down
	if immediate {
		window = max(window, immediateWindow)
	}
	return &Window{
		window: window, maxWindow: max(window, maxWindow), current: window, immediate: immediate, node: newNode(), log: log, flushing: make(chan struct{}, 1),
		pending: map[int64]*change{}, wake: make(chan struct{}, 1),
		notifiedAt: mono.Now() - int64(time.Hour), // so that the first write publishes inline
		earliest:   math.MaxInt64,
		planned:    math.MaxInt64,
		flushedAt:  longAgo,
		watching:   watching{until: longAgo, txUntil: longAgo, lookedAt: longAgo},
	}
}

// longAgo is before any time that mono.Now returns, far enough from the end of its range for sums.
const longAgo = math.MinInt64 / 2

// newNode draws an id. 0 is nobody's: see notify.Nobody.
func newNode() uint32 {
	for {
		if n := rand.Uint32(); n != 0 {
			return n
		}
	}
}

// Begin registers versions as pending and reports whether the statement that writes them must publish inline. Call it before the
// statement is sent, and End once for each version afterwards, also after an error.
func (w *Window) Begin(forceInline bool, versions ...int64) (inline bool) {
	t := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	// The system is quiet when no notification has come for a window. That does not count on an unnotified node, which receives
	// none, nor while some node leads, because under load its flushes are late.
	quiet := !w.unnotified.yes && !w.leading && !w.led(t) && t-w.notifiedAt >= int64(w.window)
	inline = forceInline || w.immediate || w.full || w.closing || quiet
	// Inline writes are registered too: while some node polls they are also logged. They are registered before the statement is
	// sent, because the notification may arrive before the reply.
	for _, v := range versions {
		w.pending[v] = &change{began: t}
	}
	return inline
}

// led reports whether another node leads this one: it has flushed within the last three of its windows, its configured window is at
// most this node's, and it is stretched to maxWindow of this node at the most. Then it flushes in time what is pending here. With the
// mutex held.
func (w *Window) led(t int64) bool {
	l := &w.leader
	return l.seen != 0 && l.window <= w.window && l.current <= w.maxWindow && t-l.seen < 3*int64(l.current)
}

// End says what came of a write.
func (w *Window) End(version int64, outcome Outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closing {
		defer w.signal()
	}
	t := mono.Now()
	if outcome == Published {
		w.notifiedAt = t
	}
	c := w.pending[version]
	if c == nil {
		return // published before its reply came
	}
	if outcome <= Published {
		delete(w.pending, version)
		return
	}
	c.acked, c.due = true, t+int64(w.window)
	w.earliest = min(w.earliest, c.due)
	// Under load every write does this: Run is woken only if it would sleep too long.
	if w.after(c.due, t) < w.planned {
		w.signal()
	}
}

// Published says that a notification named these versions, whoever flushed. Exactly these: an older version of a key does
// not settle a newer one, and versions have no order.
func (w *Window) Published(versions []int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range versions {
		delete(w.pending, v)
	}
}

// Received says that a notification of this cache has come.
func (w *Window) Received(m notify.Message) {
	t := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notifiedAt = t
	if m.Flush && m.Node == w.node {
		w.echo.received(m.Number, t)
	}
	if m.Unnotified() {
		w.heard.add(m.Window, t)
	}
	if !m.Flush || m.Node == 0 || m.Node == w.node || w.unnotified.yes {
		return
	}
	window := max(m.Window, time.Millisecond)
	current := max(m.Current, window)
	// A flush of a node that can't lead this one does not make it forget the one that does: else it would flush beside that.
	if may := window <= w.window && current <= w.maxWindow; may || m.Node == w.leader.node || !w.led(t) {
		w.leader = leader{node: m.Node, seen: t, window: window, current: current, patience: patience(current)}
	}
	if w.leading && (window < w.window || window == w.window && (w.inviting || m.Node < w.node)) {
		w.follow()
	}
}

// patience draws how long a leader may be silent before this node takes over: random, so that not all do at once.
func patience(window time.Duration) time.Duration { return 2*window + rand.N(window+1) }

// after returns when this node flushes or looks for what is due at due: later while another node leads, which mostly flushes it before.
// With the mutex held.
func (w *Window) after(due, t int64) int64 {
	if w.unnotified.yes {
		return w.unnotifiedAfter(due)
	}
	if w.led(t) {
		return max(due, w.leader.seen+int64(w.leader.patience))
	}
	return due
}

// signal wakes Run.
func (w *Window) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

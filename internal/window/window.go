// Package window says when changes are published.
//
// A writing statement leaves its changes in the change log, and a flush publishes everybody's changes in one notification:
// listeners then pay for flushes, not for writes. A node that has written sees to it that a flush comes within its window,
// unless a notification that lists exactly its versions has come by. When the system has been quiet for a window and
// nobody flushes, a write publishes in its own statement instead (inline publish), without delay.
//
// Who flushes: a node whose flush published a change leads. It flushes once a window until three flushes in a row find
// nothing. Another node takes over when the leader was silent for two to three of the leader's windows. If two lead, the one
// with the longer window steps down when it receives the other's flush; with equal windows, the one with the higher id. So a
// fleet flushes about once a window, without an election.
//
// Every flush wakes every listening session of the database. The leader sees from its own notifications what that costs: where
// they come late it stretches its window, up to a bound, and where they come in time it shrinks it back. See stretch.go.
//
// A node that dies, a flush that fails and a write that commits later than its writer waited leave changes in the log that no
// node plans to flush. The pulse, a check that every listening node makes every two seconds, finds and flushes them: see
// pgcache/pulse.go.
//
// A model checker walks through all states of these rules, and shows that each is needed: internal/model/window.
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

	// overdue is how long past its due time another node must have been seen to lead for a pending change to be dropped. A
	// flush may publish a change without listing its version: it lists sixteen of a key at the most, and none where it
	// publishes "everything". The change was committed before those flushes, so one of them has published it.
	overdue = 250 * time.Millisecond

	// immediateWindow is the window of a node whose writes all publish inline. It goes by it only while some node polls.
	immediateWindow = 5 * time.Millisecond

	closeTimeout = time.Second // for what is still to be published when the cache is closed
)

// Outcome is what a node knows of its write.
type Outcome int

const (
	// Silent: the statement changed nothing that others could hold, or certainly did not commit.
	Silent Outcome = iota
	// Published: by the statement that wrote (inline).
	Published
	// Logged: it is in the change log, for the next flush.
	Logged
	// Unknown: the reply was lost. The write may have committed or may commit later; it is flushed like Logged.
	Unknown
)

// Window is one node's part. It is safe for concurrent use.
type Window struct {
	window    time.Duration
	most      time.Duration // how far it may be stretched
	immediate bool          // every write publishes in its own statement
	node      uint32
	log       Log

	flushing chan struct{} // held by the one flush of this node that is under way

	mu        sync.Mutex
	pending   map[int64]*change // own writes that nobody is known to have published, by version
	earliest  int64             // a lower bound of when they are due; MinInt64: to be computed anew
	planned   int64             // when Run's timer goes off; MaxInt64: never
	leading   bool              // this node leads
	empty     int               // flushes in a row that found nothing
	retry     time.Duration     // after a flush that failed
	published int64             // when this node last received, or made, a notification
	flushed   int64             // when its last flush returned, with or without an error
	watching  int64             // until then this node looks at the log once a window: see Watch
	looked    int64             // when it last did, and found nothing
	lookNext  bool              // what Run has planned is a look
	leader    leader
	current   time.Duration // what this node flushes by while it leads: window or longer
	stretched int64         // since when; of a leader that has invited others to take over, when it last did
	yields    bool          // it has: it steps down for any that flushes
	listening bool
	number    uint16 // of its last flush
	echo      echo
	link      link
	full      bool // the log is larger than fullAt: writes publish inline until a flush finds it smaller
	closing   bool // Run is ending: writes publish inline
	wake      chan struct{}

	ladder ladder
	upkeep sync.WaitGroup
}

// change is one own write that somebody has to publish.
type change struct {
	due   int64 // when this node flushes it; 0 before End
	acked bool  // End was called: a flush sent from now on publishes it if it has committed; if it commits later, a pulse does
}

// leader is the other node that was last seen to flush.
type leader struct {
	seen     int64 // 0: none
	window   time.Duration
	current  time.Duration // as far as it is stretched
	patience time.Duration // how long it may be silent until this node takes over
}

// New returns the window of a node, rounded down to milliseconds, at least one, that may be stretched to most. immediate makes every write publish in its own
// statement; the log is then written only while some node polls. New starts no goroutine: the caller must call Run.
func New(window, most time.Duration, immediate bool, log Log) *Window {
	window = max(window.Truncate(time.Millisecond), time.Millisecond) // as messages have it: else two could each step down
	if immediate {
		window = max(window, immediateWindow)
	}
	return &Window{
		window: window, most: max(window, most), current: window, immediate: immediate, node: newNode(), log: log, flushing: make(chan struct{}, 1),
		pending: map[int64]*change{}, wake: make(chan struct{}, 1),
		published: mono.Now() - int64(time.Hour), // so that the first write publishes inline
		planned:   math.MaxInt64,
		flushed:   longAgo,
		looked:    longAgo,
		watching:  longAgo,
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
	// While a node leads, the time since the last notification does not show that the system is quiet: under load flushes
	// are late.
	quiet := !w.leading && !w.led(t) && t-w.published >= int64(w.window)
	inline = forceInline || w.immediate || w.full || w.closing || quiet
	// Inline writes too: while some node polls they are written to the log. Before the SQL, because the notification may
	// arrive before the reply.
	for _, v := range versions {
		w.pending[v] = &change{}
	}
	return inline
}

// led reports whether another node has flushed within the last three of its windows, its window is at most this one's, and it is
// not stretched further than this one may be: then it flushes what is pending here in time.
func (w *Window) led(t int64) bool {
	l := &w.leader
	return l.seen != 0 && l.window <= w.window && l.current <= w.most && t-l.seen < 3*int64(l.current)
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
		w.published = t
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
	// Under load every write comes by here: Run is woken only if it would sleep too long.
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
	w.published = t
	if m.Flush && m.Node == w.node {
		w.echo.received(m.Number, t)
	}
	if !m.Flush || m.Node == 0 || m.Node == w.node {
		return
	}
	other := max(m.Window, time.Millisecond)
	current := max(m.Current, other)
	w.leader = leader{seen: t, window: other, current: current, patience: patience(current)}
	if w.leading && (other < w.window || other == w.window && (w.yields || m.Node < w.node)) {
		w.follow()
	}
}

// patience draws how long a leader may be silent before this node takes over: random, so that not all do at once.
func patience(window time.Duration) time.Duration { return 2*window + rand.N(window+1) }

// after puts off what is due at due as long as another leads.
func (w *Window) after(due, t int64) int64 {
	if w.led(t) {
		return max(due, w.leader.seen+int64(w.leader.patience))
	}
	return due
}

func (w *Window) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

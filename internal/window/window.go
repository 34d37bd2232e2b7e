// Package window says when changes are published.
//
// A writing statement leaves its changes in the change log, and a flush publishes everybody's changes in one notification:
// listeners then pay for flushes, not for writes. A node that has written sees to it that a flush comes within its window,
// unless a notification that lists exactly its versions has come by. When the system has been quiet for a window and
// nobody flushes, a write publishes in its own statement instead (inline publish), without delay.
//
// Who flushes: the node that has flushed leads. It goes on, a window apart, as long as it finds something. The others take
// over after two to three silent windows; of two that lead, the one with the longer window, or else the higher id, steps
// down when it receives the other's flush. So a fleet flushes about once a window, without an election.
//
// A node that dies, a flush that fails and a write that commits later than its writer waited leave changes in the log that
// no window cares for. The pulse of every node that listens finds them: see pgcache/pulse.go.
//
// internal/model/window checks the rules exhaustively, and shows that each of them is needed.
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
	emptyFlushes = 3           // in a row end a lead
	maxRetry     = time.Second // after a flush that failed

	// overdue is how long a node waits for its version to be named while another leads. A flush names no versions where it
	// publishes everything, and sixteen of a key at the most: then nobody would ever name it. Nothing is lost: the change
	// is committed, so the leader's next flush publishes it.
	overdue = 250 * time.Millisecond

	closeTimeout = time.Second // for what is still to be published when the cache is closed
)

// Outcome is what a node knows of its write.
type Outcome int

const (
	// Silent: nothing to publish, or not written.
	Silent Outcome = iota
	// Published: by the statement that wrote.
	Published
	// Logged: it is in the change log.
	Logged
	// Unknown: the reply was lost. It may be committed, or be so later.
	Unknown
)

// Window is one node's part. It is safe for concurrent use.
type Window struct {
	window    time.Duration
	immediate bool // every write publishes in its own statement
	node      uint32
	sender    string // what this node's flushes say of it
	log       Log

	flushing chan struct{} // held by the one flush of this node that is under way

	mu        sync.Mutex
	pending   map[int64]*change // own writes that nobody is known to have published, by version
	earliest  int64             // none of them is due before
	planned   int64             // when Run looks again
	leading   bool              // this node leads
	empty     int               // flushes in a row that found nothing
	retry     time.Duration     // after a flush that failed
	published int64             // when this node last received, or made, a notification
	flushed   int64             // when its last flush returned
	leader    leader
	full      bool // the log can't be kept small: writes publish inline until it can
	closing   bool // nobody flushes here any more: writes publish inline
	wake      chan struct{}

	ladder ladder
	upkeep sync.WaitGroup
}

// change is one own write that somebody has to publish.
type change struct {
	due   int64 // when this node sees to it; 0: its reply is yet to come
	acked bool  // its reply has come, or will not come: a flush sent from now on publishes it, or else a pulse does
}

// leader is the other node that was last seen to flush.
type leader struct {
	seen     int64 // 0: none
	window   time.Duration
	patience time.Duration // how long it may be silent until this node takes over
}

// New returns the window of a node. immediate makes every write publish in its own statement; the log is then used only
// while a node polls.
func New(window time.Duration, immediate bool, log Log) *Window {
	w := &Window{
		window: window, immediate: immediate, node: newNode(), log: log, flushing: make(chan struct{}, 1),
		pending: map[int64]*change{}, wake: make(chan struct{}, 1),
		published: mono.Now() - int64(time.Hour), planned: math.MaxInt64,
	}
	w.sender = notify.Sender(w.node, window)
	return w
}

// newNode draws an id. 0 is nobody's: see notify.Nobody.
func newNode() uint32 {
	for {
		if n := rand.Uint32(); n != 0 {
			return n
		}
	}
}

// Begin says how a write of versions is to be published: inline, or through the log. It is called before the statement is
// sent, and End once for each version after. now asks for the former.
func (w *Window) Begin(now bool, versions ...int64) (inline bool) {
	t := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	// While somebody flushes, a flush that is late is no sign of quiet: under load it is the rule.
	quiet := !w.leading && !w.led(t) && t-w.published >= int64(w.window)
	inline = now || w.immediate || w.full || w.closing || quiet
	// Also for an inline publish: while a node polls it goes through the log all the same. And before the SQL: its
	// notification may come before its reply.
	for _, v := range versions {
		w.pending[v] = &change{}
	}
	return inline
}

// led says whether another node leads whose window is no longer than this one's. What is pending here may be left to it.
func (w *Window) led(t int64) bool {
	l := &w.leader
	return l.seen != 0 && l.window <= w.window && t-l.seen < 3*int64(l.window)
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

// Received says that a notification has come. It is called after Published.
func (w *Window) Received(m notify.Message) {
	t := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.published = t
	if !m.Flush || m.Node == 0 || m.Node == w.node {
		return
	}
	other := max(m.Window, time.Millisecond)
	w.leader = leader{seen: t, window: other, patience: patience(other)}
	if w.leading && (other < w.window || other == w.window && m.Node < w.node) {
		w.leading = false
	}
}

// patience draws how long a leader may be silent before another takes over.
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

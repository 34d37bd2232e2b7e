// Package window says when changes are told.
//
// A writing statement leaves its changes in a log, and a flush tells everybody's changes in one notification: listeners
// then pay for flushes, not for writes. A node that has written sees to it that a flush comes within a window, unless a
// notification that lists exactly its versions has come by. When the system has been quiet for a window and nobody
// flushes, a write tells in its own statement instead, without delay.
//
// Who flushes: the node that has flushed keeps the beat, a window apart, as long as it finds something. The others step in
// after two to three silent windows; of two that beat, the higher id resigns when it hears the other. So a fleet flushes
// about once a window, without an election.
//
// internal/model/window checks the rules exhaustively, and shows that each of them is needed.
package window

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pgcache/go/internal/mono"
)

const (
	emptyBeats = 3                // in a row end a beat
	sweepSoon  = time.Second      // at the latest, after the last notification: what a node left that died
	sweepLate  = 10 * time.Second // and what was committed later than its writer could wait for
	unknownFor = time.Minute      // how long a write of unknown outcome is cared for; then sweeps cover it
	maxRetry   = time.Second

	// overdue is how long a node waits to hear its version from somebody who beats. A flush tells no versions where it
	// tells everything, and sixteen of a key at the most: then nobody would ever take the mark off. Nothing is lost with
	// it: the change is committed, so the beat's next flush tells it, and if there is none, a sweep does.
	overdue = 250 * time.Millisecond

	closeTimeout = time.Second // for what is still to be told when the cache is closed
)

// Outcome is what a node knows of its write.
type Outcome int

const (
	// Silent: nothing to tell, or not written.
	Silent Outcome = iota
	// Told: by the statement that wrote.
	Told
	// Logged: it is in the change log.
	Logged
	// Unknown: the reply was lost. It may be committed, or be so later.
	Unknown
)

// Window is one node's part. It is safe for concurrent use.
type Window struct {
	window    time.Duration
	immediate bool   // every write tells in its own statement
	node      uint32 // this node
	log       Log

	mu       sync.Mutex
	pending  map[int64]*mark // own writes that nobody has told yet, by version
	earliest int64           // none of them is due before
	planned  int64           // when Run looks again
	beating  bool            // this node keeps the beat
	empty    int             // flushes in a row that found nothing
	retry    time.Duration   // after a flush that failed
	patience time.Duration   // how long another's beat may be silent

	told    int64 // when this node last heard, or told, anything
	heard   int64 // when it last heard another's flush; 0: never
	flushed int64 // when its last flush returned
	dirty   int64 // since when the log may hold what a node left that died; 0: it can't
	late    int64 // the same, of what was committed later than its writer could wait for
	full    bool  // the log can't be kept small: writes tell at once until it can
	closing bool  // nobody flushes here any more: writes tell at once
	wake    chan struct{}

	ladder ladder
}

// mark is one own write that somebody has to tell.
type mark struct {
	acked bool  // its reply has come: a flush sent from now on tells it
	due   int64 // when this node sees to it
	wait  time.Duration
	born  int64
}

// New returns the window of a node. immediate makes every write tell in its own statement; the log is then used only
// while somebody polls.
func New(window time.Duration, immediate bool, log Log) *Window {
	w := &Window{
		window: window, immediate: immediate, node: rand.Uint32(), log: log,
		pending: map[int64]*mark{}, wake: make(chan struct{}, 1),
		told: mono.Now() - int64(time.Hour), planned: math.MaxInt64,
	}
	w.patience = w.lose()
	return w
}

// lose draws how long another's beat may be silent before this node steps in.
func (w *Window) lose() time.Duration { return 2*w.window + rand.N(w.window+1) }

// Begin says how a write of versions is to be told: in its own statement, or through the log. It is called before the
// statement is sent, and End once for each version after. now asks for the former.
func (w *Window) Begin(now bool, versions ...int64) (inline bool) {
	t := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	// While somebody flushes, a flush that is late is no sign of quiet: under load it is the rule.
	quiet := !w.beating && !w.beats(t) && t-w.told >= int64(w.window)
	inline = now || w.immediate || w.full || w.closing || quiet
	// Also for a write that tells itself: while somebody polls it goes through the log all the same. And before the
	// SQL: its notification may come before its reply.
	for _, v := range versions {
		w.pending[v] = &mark{born: t}
	}
	return inline
}

// beats says whether somebody else keeps the beat.
func (w *Window) beats(t int64) bool { return w.heard != 0 && t-w.heard < 3*int64(w.window) }

// End says what came of a write.
func (w *Window) End(version int64, outcome Outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closing {
		defer w.signal()
	}
	if outcome == Told {
		w.tell(mono.Now())
	}
	m := w.pending[version]
	if m == nil {
		return // told before its reply came
	}
	if outcome <= Told {
		delete(w.pending, version)
		return
	}
	m.acked = outcome == Logged
	m.wait = w.window
	t := mono.Now()
	m.due = t + int64(m.wait)
	w.earliest = min(w.earliest, m.due)
	// Under load every write comes by here: Run is woken only if it would sleep too long.
	if w.after(m.due, t) < w.planned {
		w.signal()
	}
}

// Told says that a notification named these versions: whoever flushed them, they are told. Exactly these: an older
// version of a key does not discharge a newer one, and nobody can tell which is which.
func (w *Window) Told(versions []int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range versions {
		delete(w.pending, v)
	}
}

// Heard says that a notification has come, and if it is a flush, whose. It is called after Told.
func (w *Window) Heard(node uint32, flush bool) {
	t := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tell(t)
	if flush && node != w.node {
		w.drained(t)
		w.heard, w.patience = t, w.lose()
		if w.beating && node < w.node {
			w.beating = false
		}
	}
}

// Listening says that the listener has come up: what was told before was missed, and may have been left by a node that
// is gone.
func (w *Window) Listening() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.soil(mono.Now())
}

// tell notes a notification at t. A change can only be in the log if something was told a few windows before it: a
// write tells itself where nothing was. So after a notification the log is to be swept, unless somebody flushes it
// anyway, and a fleet that is idle sweeps nothing. Notifications that are no flush drain nothing: they don't put it off.
func (w *Window) tell(t int64) {
	w.told = t
	w.soil(t)
}

func (w *Window) soil(t int64) {
	w.late = t + int64(sweepLate)
	if w.dirty == 0 {
		w.dirty = t
		w.signal()
	}
}

// drained notes that a flush told what was committed before it was sent, just before t.
func (w *Window) drained(t int64) { w.dirty = t }

// Node is this node's id in the heads of its flushes.
func (w *Window) Node() uint32 { return w.node }

func (w *Window) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgcache/go/pgcache"
)

const (
	// bound is the heartbeat and its timeout: nothing may be older, whatever has happened to the listener. It is stricter than the 4 s of
	// P2, which count that a pulse has to find changes that nobody published; here nothing but listeners is disturbed.
	bound = 3 * time.Second
	// drift is what P7 allows after the expiry.
	drift = 50 * time.Millisecond
)

// read is one answer, with what the node that gave it was bound to when it was asked.
type read struct {
	node       int
	op         string
	start, end time.Duration

	bounds                // which of them holds is known at the end
	applied time.Duration // everything acknowledged before this moment had been applied by the node
	down    bool          // its listener was down
	own     time.Duration // the latest begin of the node's own acknowledged writes
	seen    time.Duration // the latest begin of the writes that it had shown

	found bool
	value value
	none  bool // a loader was asked, and had said that there is nothing

	moving bool // the key was held nowhere at times
}

// verdict is what one read shows.
type verdict struct {
	breach *breach       // nil: all is well
	behind time.Duration // for how long the value had been overwritten for certain
	seen   time.Duration // the begin of the write that it shows
}

// A breach is a promise that was not kept.
type breach struct {
	promise        string
	key            string
	read           read
	came, expected string
}

func (b *breach) String() string {
	who := fmt.Sprint("node ", b.read.node)
	if b.read.node == table {
		who = "the table"
	}
	state := fmt.Sprintf("had applied all that was acknowledged before %v", show(b.read.applied))
	if b.read.down {
		state = "had to ask the database"
	}
	return fmt.Sprintf("%s: %s, key %q, %s from %v to %v, when it %s\n    came      %s\n    expected  %s",
		b.promise, who, b.key, b.read.op, show(b.read.start), show(b.read.end), state, b.came, b.expected)
}

// judge holds one read against the history of its key.
func (h *history) judge(r read) verdict {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.found && !h.written(r.value, r.end) {
		promise, wants := "P7", "a value that somebody wrote under this key"
		if n := r.value.N; n >= 0 && n < len(h.writes) && h.writes[n].inTx {
			promise, wants = "P8", "nothing of a transaction that has not committed"
		}
		return verdict{breach: h.breach(promise, r, wants)}
	}
	if !r.found && !r.none && h.source != nil {
		return verdict{} // entries come and go with the loads
	}
	if !r.found && !r.none {
		// A new row is not published, because nobody can hold it, and a read that was under way then may be joined.
		r.applied = 0
	}
	by := func(t time.Duration) time.Duration {
		if r.found {
			return max(h.newestBy(t), h.missedBy(r.value.N, t))
		}
		return h.newestBy(t)
	}
	asked, mustAsk := "P5", time.Duration(0) // 0: it may answer from memory
	if r.down {
		mustAsk = by(r.start)
	}
	if r.node == table {
		asked = "P6"
	}
	// What was acknowledged before one of these moments is older than the promise allows.
	floors := []struct {
		promise string
		begin   time.Duration
		why     string
	}{
		{"P3", r.own, "which this node wrote itself"},
		{"P4", r.seen, "which this node had shown already"},
		{asked, mustAsk, "there before the question"},
		{"P1", by(r.applied), "which this node had applied"},
		{"P2", by(r.start - bound), fmt.Sprintf("there more than %v before", bound)},
	}
	floor := time.Duration(0)
	for _, f := range floors {
		floor = max(floor, f.begin)
	}
	ok := func(floor time.Duration) bool { return h.writes[r.value.N].acked >= floor }
	v := verdict{}
	if r.found {
		w := h.writes[r.value.N]
		if r.start > w.expires && r.start-w.expires > drift {
			return verdict{breach: h.breach("P7", r, fmt.Sprintf("nothing later than its expiry at %v and %v", show(w.expires), drift))}
		}
		// What is loaded while the key moves is not stored: it may be newer than what is found next, until its write has finished.
		if v.seen = w.begun; r.moving && w.acked == never && r.op != "Get" && r.op != "GetMany" {
			v.seen = 0
		}
		if at := h.overwritten(w.acked); at < r.start {
			v.behind = r.start - at
		}
	} else {
		ok = func(floor time.Duration) bool { _, explained := h.absence(floor, r.end); return explained }
		v.seen, _ = h.absence(floor, r.end)
	}
	if ok(floor) {
		return v
	}
	for _, f := range floors {
		if !ok(f.begin) {
			return verdict{breach: h.breach(f.promise, r, h.since(f.begin)+" or newer, "+f.why)}
		}
	}
	return v
}

func (h *history) breach(promise string, r read, expected string) *breach {
	b := &breach{promise: promise, key: h.name, read: r, came: "nothing", expected: expected}
	if r.found {
		b.came = fmt.Sprintf("%+v", r.value)
		if h.written(r.value, never) {
			b.came = h.describe(r.value.N)
		}
	}
	return b
}

// since describes the write that began at a moment, or that the table was seen to hold from then on.
func (h *history) since(t time.Duration) string {
	for n, w := range h.writes {
		if w.begun == t {
			return h.describe(n)
		}
	}
	for _, l := range h.looks {
		if l.from == t {
			return fmt.Sprintf("%s, the row from %v to %v", h.describe(l.n), show(l.from), show(l.to))
		}
	}
	return "a write"
}

func (h *history) describe(n int) string {
	w := h.writes[n]
	what := "value"
	if w.gone {
		what = "Delete"
	}
	s := fmt.Sprintf("%s %d of node %d (begun %v, acknowledged %v", what, n, w.node, show(w.begun), show(w.acked))
	if w.ttl > 0 {
		s += fmt.Sprintf(", TTL %v", w.ttl)
	}
	return s + ")"
}

func show(t time.Duration) string {
	if t == never {
		return "never"
	}
	return t.Round(10 * time.Microsecond).String()
}

// book collects what went wrong.
type book struct {
	mu       sync.Mutex
	breaches []*breach // the first of them
	counts   map[string]int
	of       map[[2]string]bool // key and promise
	errors   int
	moving   int // operations that had to be refused because their key moved
	first    []error
}

const (
	keepBreaches = 1000
	keepErrors   = 5
)

func (b *book) breach(v *breach) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.counts == nil {
		b.counts, b.of = map[string]int{}, map[[2]string]bool{}
	}
	b.of[[2]string{v.key, v.promise}] = true
	b.counts[v.promise]++
	if len(b.breaches) < keepBreaches {
		b.breaches = append(b.breaches, v)
	}
}

// has says whether a breach of a promise was noted of a key.
func (b *book) has(key, promise string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.of[[2]string{key, promise}]
}

// fail notes an operation that returned an error. None may: nothing but listeners is ever disturbed here.
func (b *book) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if errors.Is(err, pgcache.ErrMoving) {
		b.moving++ // its outcome is unknown, as with any other error
		return
	}
	b.errors++
	if len(b.first) < keepErrors {
		b.first = append(b.first, err)
	}
}

// total counts the breaches and the errors, and summary says which.
func (b *book) total() (breaches, failed int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.counts {
		breaches += n
	}
	return breaches, b.errors
}

func (b *book) summary() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var parts []string
	for promise, n := range b.counts {
		parts = append(parts, fmt.Sprintf("%s %d times", promise, n))
	}
	slices.Sort(parts)
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

package main

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// read is one answer, with what the node that gave it was bound to when it was asked.
type read struct {
	who        string
	start, end time.Duration
	own, seen  int           // the newest writes that this node had made, and shown; -1: none
	bound      time.Duration // how old the answer may be
	down       bool          // its listener was down: the node had to ask the database
	isRow      bool          // it is the table itself
	found      bool
	value      value
}

// verdict is what a read shows.
type verdict struct {
	violation *violation
	lag       time.Duration // for how long the value had been replaced
	seen      int           // the write that it proves to have come to pass; -1: none
}

type violation struct {
	promise string
	text    string
}

func (v *violation) String() string { return v.promise + ": " + v.text }

// judge holds a read against the history of its key.
func (h *history) judge(r read) verdict {
	h.mu.Lock()
	defer h.mu.Unlock()
	bad := func(promise, format string, args ...any) verdict {
		came := "nothing"
		if r.found {
			came = fmt.Sprintf("number %d", r.value.N)
			if n := r.value.N; n >= 0 && n < len(h.writes) {
				came = h.describe(n)
			}
		}
		return verdict{seen: -1, violation: &violation{promise, fmt.Sprintf("%s read key %q from %v to %v and got %s; %s",
			r.who, h.name, show(r.start), show(r.end), came, fmt.Sprintf(format, args...))}}
	}
	bound, fresh, why := r.bound, "P2", fmt.Sprintf("acknowledged more than %v before", r.bound)
	if r.down {
		bound, fresh, why = 0, "P5", "acknowledged before, and the node was not live"
	} else if r.isRow {
		fresh, why = "P6", "acknowledged before"
	}
	known := h.newest(r.start - bound)
	floors := []struct {
		promise, why string
		n            int
	}{
		{"P3", "which it wrote itself", r.own},
		{"P4", "which it had shown", r.seen},
		{fresh, why, known},
	}
	if !r.found {
		for _, f := range floors {
			if ok, _, _ := h.absence(f.n, r.end); !ok {
				return bad(f.promise, "expected %s or newer, %s", h.describe(f.n), f.why)
			}
		}
		_, seen, _ := h.absence(max(known, r.own, r.seen), r.end)
		_, _, since := h.absence(0, r.end) // the last time that there was nothing
		return verdict{seen: seen, lag: max(0, r.start-since)}
	}
	n := r.value.N
	if n >= rolledBack {
		return bad("P8", "it was rolled back")
	}
	if n < 0 || n >= len(h.writes) || r.value != h.value(n) || h.writes[n].begun > r.end || h.writes[n].gone {
		return bad("P7", "nobody had written that")
	}
	if w := h.writes[n]; w.acked == never && w.there == 0 && h.kind != sourced {
		h.appeared(n)
		return verdict{seen: n}
	}
	for _, f := range floors[:2] {
		if n < f.n && h.writes[n].acked != never { // else it may have come later
			return bad(f.promise, "expected %s or newer, %s", h.describe(f.n), f.why)
		}
	}
	at := h.replaced(n)
	if r.start > at && r.start-at > bound {
		v := bad(fresh, "it was gone %v before the read began; expected %s or newer, %s",
			(r.start - at).Round(time.Millisecond), h.describe(max(known, 0)), why)
		v.lag = r.start - at
		return v
	}
	v := verdict{seen: n, lag: max(0, r.start-at)}
	if h.kind == sourced && h.writes[n].acked >= r.end {
		v.seen = -1 // a loader's value, which may not have been stored
	}
	return v
}

func (h *history) describe(n int) string {
	if n < 0 {
		return "none"
	}
	w, what := h.writes[n], "value"
	if w.gone {
		what = "Delete"
	}
	return fmt.Sprintf("%s %d of %d (begun %v, acknowledged %v)", what, n, len(h.writes)-1, show(w.begun), show(w.acked))
}

func show(t time.Duration) string {
	if t == never {
		return "never"
	}
	return t.Round(100 * time.Microsecond).String()
}

// book collects what a run has found. Its methods are safe for concurrent use.
type book struct {
	mu         sync.Mutex
	operations int
	failed     int
	faults     int
	violations int
	lag        time.Duration
	longest    time.Duration
	longestOp  string
	lines      []string // the first violations
	failures   map[string]int
}

const keepLines = 20

func (b *book) violate(v *violation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.violations++
	if len(b.lines) < keepLines {
		b.lines = append(b.lines, v.String())
	}
}

// operation notes one that has ended. fatal says that it had no right to fail.
func (b *book) operation(name string, took time.Duration, err error, fatal bool) {
	b.mu.Lock()
	b.operations++
	if took > b.longest {
		b.longest, b.longestOp = took, name
	}
	if err != nil {
		b.failed++
		if b.failures == nil {
			b.failures = map[string]int{}
		}
		op, _, _ := strings.Cut(name, " of ")
		text, _, _ := strings.Cut(err.Error(), "\n")
		if text = digits.Replace(text); len(b.failures) < 30 || b.failures[op+": "+text] > 0 {
			b.failures[op+": "+text]++
		}
	}
	b.mu.Unlock()
	if err != nil && fatal {
		b.violate(&violation{"failed", fmt.Sprintf("%s at %v after %v: %v", name, show(clock()), took.Round(time.Millisecond), err)})
	}
}

// digits makes the texts of failures that differ in numbers alike.
var digits = strings.NewReplacer("0", "#", "1", "#", "2", "#", "3", "#", "4", "#", "5", "#", "6", "#", "7", "#", "8", "#", "9", "#")

func (b *book) behind(lag time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lag = max(b.lag, lag)
}

func (b *book) fault() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults++
}

package main

import (
	"math"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// Moments are durations since the process began, on the monotonic clock. All nodes live in one process and share it.
var began = time.Now()

func clock() time.Duration { return time.Since(began) }

const never = time.Duration(math.MaxInt64)

// Numbers of those that read or write and are no node.
const (
	table    = -1 // the harness itself, when it looks at the rows
	somebody = -2 // who changes a watched table
	keyMover = -3 // who moves keys between shards
)

// value is what every node stores: it says of itself which write it is.
type value struct {
	Key    string
	Writer int // the node
	N      int // the number of the write in its key's history
	Pad    string
}

// padding differs from write to write, so that a value put together from two would show.
func padding(n int) string { return letters[n%64:][:160] }

var letters = func() string {
	b := make([]byte, 256)
	for i := range b {
		b[i] = 'A' + byte(i*i%57)
	}
	return string(b)
}()

// history is everything that was ever written to one key. Many nodes may write at once, and nobody but the database knows
// then which of two came last. Two things are certain:
//
//	a:  begun ------- acked
//	b:                        begun ------ acked            b is newer than a: a is gone when b is acknowledged
//	c:        begun --------------------- acked             of c, nothing is known against either
//	                                              [ row: c ]   a look at the table: now b is gone too, since it is not there
type history struct {
	name   string
	kind   kind
	team   int     // of a grouped key
	source *source // not nil: values come from loaders, and what is written is the source

	mu     sync.Mutex
	writes []write // by number
	acks   []ack   // in the order of time
	looks  []look  // likewise
	open   []int   // not acknowledged: under way, or failed, which means that they may yet come to pass
}

// source is where the loaders of a key find its value: the number of the write that is current.
type source struct{ current atomic.Int64 }

type write struct {
	node         int
	begun, acked time.Duration // acked is never until it is
	gone         bool          // it was a Delete
	inTx         bool          // it is of a transaction,
	from         time.Duration // whose COMMIT began then; never until it does, and if it is rolled back
	void         bool          // it was not done: SetIfAbsent found a value
	ttl          time.Duration // 0: does not expire
	expires      time.Duration // at the latest; never until it is known
	loads        int           // loader runs that may still store it
	loaded       bool          // a loader has returned it
}

type ack struct {
	at     time.Duration
	newest time.Duration // the latest begin of all writes acknowledged by then
	n      int
}

// look is what the table was seen to hold.
type look struct {
	from, to time.Duration
	n        int
}

// begin notes that node begins a write, and returns its number.
func (h *history) begin(node int, gone bool, ttl time.Duration) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.writes)
	h.writes = append(h.writes, write{node: node, begun: clock(), acked: never, gone: gone, ttl: ttl, expires: never})
	h.open = append(h.open, n)
	return n
}

// prepare notes what a transaction writes whose snapshot is from begun on, and returns its number. start is called before the
// COMMIT. A removal begins with the COMMIT: what was acknowledged before has not seen it. A value begins with its snapshot:
//
//	transaction: snapshot      a group is removed, acknowledged
//	             Set, COMMIT                                       the value has not seen the removal and is dead
func (h *history) prepare(node int, gone bool, begun time.Duration) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writes = append(h.writes, write{node: node, begun: begun, acked: never, gone: gone, expires: never, inTx: true, from: never})
	return len(h.writes) - 1
}

// start notes that a transaction is about to commit.
func (h *history) start(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := &h.writes[n]
	if w.from = clock(); w.gone {
		w.begun = w.from
	}
	h.open = append(h.open, n)
}

// undone notes that a write was answered, and not done.
func (h *history) undone(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writes[n].void = true
	h.open = slices.DeleteFunc(h.open, func(o int) bool { return o == n })
}

// done notes that a write was acknowledged, and returns when it began.
func (h *history) done(n int) (begun time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.doneAt(n, clock())
}

func (h *history) doneAt(n int, at time.Duration) time.Duration {
	w := &h.writes[n]
	w.acked = at
	if w.ttl > 0 && h.source == nil {
		w.expires = at + w.ttl
	}
	newest := w.begun
	if len(h.acks) > 0 {
		newest = max(newest, h.acks[len(h.acks)-1].newest)
	}
	h.acks = append(h.acks, ack{at, newest, n})
	h.open = slices.DeleteFunc(h.open, func(o int) bool { return o == n })
	return w.begun
}

// update changes the source, and returns the number of that write. The caller deletes the key and calls done.
func (h *history) update(node int, ttl time.Duration) int {
	n := h.begin(node, false, ttl)
	h.source.current.Store(int64(n))
	return n
}

// load is what a loader does first: look at the source.
func (h *history) load() value {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := int(h.source.current.Load())
	w := &h.writes[n]
	w.loads++
	w.loaded, w.expires = true, never
	return h.value(n)
}

// loadedAs notes that a loader has found write n in its source.
func (h *history) loadedAs(n int) value {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writes[n].loaded = true
	return h.value(n)
}

// lookUp is what the loader of a resilient key does: it returns what the source has, and whether that is nothing.
func (h *history) lookUp() (v value, gone bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := int(h.source.current.Load())
	h.writes[n].loaded = true
	return h.value(n), h.writes[n].gone
}

// stored notes that the call which ran the loader has returned: what it loaded is stored by now or never will be.
func (h *history) stored(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := &h.writes[n]
	if w.loads--; w.loads == 0 && w.ttl > 0 {
		w.expires = clock() + w.ttl
	}
}

// valueOf returns the value of a write.
func (h *history) valueOf(n int) value {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.value(n)
}

func (h *history) value(n int) value { return value{h.name, h.writes[n].node, n, padding(n)} }

// written says whether v is a value of this key that somebody had begun to write by then.
func (h *history) written(v value, by time.Duration) bool {
	if v.N < 0 || v.N >= len(h.writes) || v != h.value(v.N) {
		return false
	}
	w := h.writes[v.N]
	return !w.gone && !w.void && max(w.begun, w.from) <= by && (h.source == nil || w.loaded)
}

// saw notes that the row was that of write n at some moment between the two.
func (h *history) saw(n int, from, to time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.looks = append(h.looks, look{from, to, n})
}

// newestBy is the latest begin of the writes that were acknowledged before t: whatever was acknowledged before that
// begin was overwritten by t for certain. 0 if there are none.
func (h *history) newestBy(t time.Duration) time.Duration {
	i := sort.Search(len(h.acks), func(i int) bool { return h.acks[i].at >= t })
	if i == 0 {
		return 0
	}
	return h.acks[i-1].newest
}

// missedBy is the begin of the last look before t, if the row was not that of write n then: if n had been acknowledged,
// it was overwritten. 0 if it was, or if nobody looked.
func (h *history) missedBy(n int, t time.Duration) time.Duration {
	i := sort.Search(len(h.looks), func(i int) bool { return h.looks[i].to >= t })
	if i == 0 || h.looks[i-1].n == n {
		return 0
	}
	return h.looks[i-1].from
}

// overwritten is the moment by which a write that was acknowledged at acked was overwritten for certain, or never.
func (h *history) overwritten(acked time.Duration) time.Duration {
	i := sort.Search(len(h.acks), func(i int) bool { return h.acks[i].newest > acked })
	if i == len(h.acks) {
		return never
	}
	return h.acks[i].at
}

// absence looks for what explains that there was nothing: a Delete or a value that had expired, begun by the end of the
// read and not surely overwritten (acknowledged before floor). first is the earliest begin of those that do.
func (h *history) absence(floor, end time.Duration) (first time.Duration, explained bool) {
	if floor == 0 {
		return 0, true // nobody had to see any write
	}
	first = never
	look := func(n int) {
		w := h.writes[n]
		if w.begun <= end && (w.gone || w.ttl > 0 && w.begun+w.ttl <= end) {
			first = min(first, w.begun)
		}
	}
	for i := sort.Search(len(h.acks), func(i int) bool { return h.acks[i].at >= floor }); i < len(h.acks); i++ {
		look(h.acks[i].n)
	}
	for _, n := range h.open {
		look(n)
	}
	return first, first != never
}

package main

import (
	"encoding/json"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Moments are durations since the process began, on the monotonic clock.
var began = time.Now()

func clock() time.Duration { return time.Since(began) }

const never = time.Duration(math.MaxInt64)

// value is what is stored under a key: it says which write it is of.
type value struct {
	Key string
	N   int
	Pad string
}

// encoded is v as a cache with codec.JSON stores it.
func (v value) encoded() []byte {
	data, _ := json.Marshal(v) // it has nothing that could fail
	return data
}

// kind says how a key is used.
type kind int

const (
	hot     kind = iota // written many times a second
	cold                // written every few seconds, so that nothing hides what was not published
	sourced             // loaded by GetOrSet; its writer changes the source and then deletes the key
)

// history is what was done to one key. It has one writer, which numbers its writes and begins none before the last has
// ended. So of two acknowledged writes the one with the higher number is newer:
//
//	0:  begun --- acked
//	1:                   begun --- acked                   0 is gone when 1 is acknowledged
//	2:                                    begun --- error  may come to pass at any time from here on, also over 3
//	3:                                                     begun --- acked
type history struct {
	name  string
	kind  kind
	owner *node // whose writer it has

	writing sync.Mutex   // held by who writes
	current atomic.Int64 // of a sourced key: what its source holds
	loads   atomic.Int64

	mu     sync.Mutex
	writes []write
	wipes  []wipe
}

type write struct {
	gone  bool // it leaves nothing under the key
	begun time.Duration
	acked time.Duration // never: it failed or is under way
	there time.Duration // of one that is not acknowledged: somebody has read it by then, so it has come to pass; 0: nobody has
}

// wipe is a moment at which all keys may have gone: a Clear, a TRUNCATE, a crash of the server.
// done is never if it failed or is under way.
type wipe struct{ begun, done time.Duration }

// begin notes that a write begins and returns its number. Of a sourced key it is a change of the source.
func (h *history) begin(gone bool) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writes = append(h.writes, write{gone: gone, begun: clock(), acked: never})
	n := len(h.writes) - 1
	if h.kind == sourced {
		h.current.Store(int64(n))
	}
	return n
}

// done notes that a write was acknowledged.
func (h *history) done(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writes[n].acked = clock()
}

// wipe notes that a wipe begins. The function that it returns is called with whether it was one; until then it is not known.
func (h *history) wipe() (end func(happened bool)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := len(h.wipes)
	h.wipes = append(h.wipes, wipe{clock(), never})
	return func(happened bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.wipes[i].done = clock(); !happened {
			h.wipes[i].begun = never
		}
	}
}

func (h *history) value(n int) value { return value{Key: h.name, N: n, Pad: padding[n%64:][:100]} }

var padding = func() string {
	b := make([]byte, 256)
	for i := range b {
		b[i] = 'A' + byte(i*i%57)
	}
	return string(b)
}()

// replaced is the moment by which write n was gone for certain, or never.
func (h *history) replaced(n int) time.Duration {
	w, since := h.writes[n], time.Duration(0) // what began after since is newer than n
	switch {
	case h.kind == sourced: // it is stored by a loader, at any time until the next acknowledged Delete
	case w.acked != never:
		since = w.acked
	case w.there != 0:
		since = w.there
	default:
		return never // it may come to pass now
	}
	at := never
	for _, later := range h.writes[n+1:] {
		if later.begun < since {
			continue
		}
		if later.there != 0 && h.kind != sourced {
			at = min(at, later.there)
		}
		if later.acked != never {
			at = min(at, later.acked)
			break // those behind it are later still, or as good as this one
		}
	}
	for _, x := range h.wipes {
		if h.kind != sourced && !w.gone && x.begun >= since && x.begun != never { // a source keeps what it holds, and may be loaded again
			at = min(at, x.done)
		}
	}
	return at
}

// appeared notes that write n has been read.
func (h *history) appeared(n int) {
	if w := &h.writes[n]; w.acked == never && w.there == 0 {
		w.there = clock()
	}
}

// newest is the highest number of the writes that were acknowledged before t, or -1.
func (h *history) newest(t time.Duration) int {
	for n := len(h.writes) - 1; n >= 0; n-- {
		if h.writes[n].acked < t {
			return n
		}
	}
	return -1
}

// absence says whether there may have been nothing in a read that had to know of write floor, and which was the earliest
// write that explains it: -1 if it is not known. since is the moment by which there was something again for certain.
func (h *history) absence(floor int, end time.Duration) (ok bool, earliest int, since time.Duration) {
	if floor < 0 || h.kind == sourced {
		return true, -1, never
	}
	earliest, since = math.MaxInt, never // of a key that was never written there is no time since
	for n, w := range h.writes {
		if !w.gone || w.begun > end {
			continue
		}
		if w.acked == never {
			return true, -1, never
		}
		if n >= floor {
			earliest, since = min(earliest, n), h.replaced(n)
		}
	}
	for _, x := range h.wipes {
		if x.begun <= end && x.done >= h.writes[floor].begun {
			return true, -1, never
		}
	}
	return earliest != math.MaxInt, earliest, since
}

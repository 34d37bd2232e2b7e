package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
	"time"
)

// Moments are durations since the process began, on the monotonic clock: all nodes live in one process and share it.
var began = time.Now()

func clock() time.Duration { return time.Since(began) }

// A stamp is how every value begins: which write it is, and when that began.
const stampBytes = 16

type stamp struct {
	writer, n uint32
	at        time.Duration
}

var padding = strings.Repeat("The quick brown fox jumps over the lazy dog, and 64 characters it is. ", 1024)

// value makes the value of a write, of size bytes.
func (s stamp) value(size int) string {
	b := make([]byte, size)
	binary.BigEndian.PutUint32(b, s.writer)
	binary.BigEndian.PutUint32(b[4:], s.n)
	binary.BigEndian.PutUint64(b[8:], uint64(s.at))
	for at := stampBytes; at < size; {
		at += copy(b[at:], padding)
	}
	return string(b)
}

var errNotAValue = errors.New("a value that nobody wrote")

func readStamp(value string) (stamp, error) {
	if len(value) < stampBytes {
		return stamp{}, fmt.Errorf("%w: %q", errNotAValue, value)
	}
	b := []byte(value[:stampBytes])
	return stamp{
		writer: binary.BigEndian.Uint32(b), n: binary.BigEndian.Uint32(b[4:]), at: time.Duration(binary.BigEndian.Uint64(b[8:])),
	}, nil
}

const never = time.Duration(math.MaxInt64)

// write is one acknowledged write, as its writer saw it.
type write struct {
	key          int
	begun, acked time.Duration
}

// read is one read that found a value.
type read struct {
	key int
	at  time.Duration // when it began
	got stamp
}

// history judges how old the values were that reads found. Of two writes at once nobody but the server knows which came
// last, but a write that was acknowledged before another began was surely before it. So a value is known to be replaced
// as soon as a write is acknowledged that began after the value's own write was acknowledged:
//
//	a:  begun ------- acked
//	b:                        begun ------ acked               here a is replaced
//	read:                                          begins ...  if it finds a, its staleness is the time since b's ack
//
// Nothing is judged while nodes work: they only note times.
type history struct {
	writes map[uint32][]write // by writer, each in the order of the numbers
	keys   []keyHistory
}

type keyHistory struct {
	writes []write         // by begin
	first  []time.Duration // first[i]: the earliest ack of writes[i:]
}

func newHistory(keys int) *history {
	return &history{writes: map[uint32][]write{}, keys: make([]keyHistory, keys)}
}

// next is the number of writer's next write.
func (h *history) next(writer uint32) uint32 { return uint32(len(h.writes[writer])) }

// add notes the next writes of writer.
func (h *history) add(writer uint32, ws []write) {
	h.writes[writer] = append(h.writes[writer], ws...)
	for _, w := range ws {
		k := &h.keys[w.key]
		k.writes, k.first = append(k.writes, w), nil
	}
}

// replaced is when w was replaced for certain, or never.
func (h *history) replaced(w write) time.Duration {
	k := &h.keys[w.key]
	if k.first == nil {
		slices.SortFunc(k.writes, func(a, b write) int { return int(a.begun - b.begun) })
		k.first = make([]time.Duration, len(k.writes)+1)
		k.first[len(k.writes)] = never
		for i := len(k.writes) - 1; i >= 0; i-- {
			k.first[i] = min(k.writes[i].acked, k.first[i+1])
		}
	}
	later := sort.Search(len(k.writes), func(i int) bool { return k.writes[i].begun > w.acked })
	return k.first[later]
}

// staleness of a read: how long before it began the value that it found had been replaced; 0 if it had not.
func (h *history) staleness(r read) (time.Duration, error) {
	ws := h.writes[r.got.writer]
	if int(r.got.n) >= len(ws) || ws[r.got.n].key != r.key {
		return 0, fmt.Errorf("%w under key %d: write %d of writer %d", errNotAValue, r.key, r.got.n, r.got.writer)
	}
	return max(0, r.at-h.replaced(ws[r.got.n])), nil
}

// ages are the staleness of many reads: of all, and of those alone that were behind at all.
type ages struct{ all, behind histogram }

func (a *ages) judge(h *history, reads []read) error {
	for _, r := range reads {
		d, err := h.staleness(r)
		if err != nil {
			return err
		}
		a.all.add(d)
		if d > 0 {
			a.behind.add(d)
		}
	}
	return nil
}

func (a *ages) metrics() metrics {
	if a.all.n == 0 {
		return metrics{}
	}
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return metrics{
		"stale.share":         float64(a.behind.n) / float64(a.all.n),
		"stale.p99_ms":        ms(a.all.quantile(.99)),
		"stale.behind_p99_ms": ms(a.behind.quantile(.99)),
		"stale.max_ms":        ms(a.all.max),
	}
}

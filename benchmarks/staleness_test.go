package main

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestStamp(t *testing.T) {
	t.Parallel()
	want := stamp{writer: 15, n: 1 << 20, at: 123456789}
	for _, size := range []int{stampBytes, 256, 100_000} {
		v := want.value(size)
		got, err := readStamp(v)
		if len(v) != size || got != want || err != nil {
			t.Errorf("size %d: got %+v, %v in %d bytes", size, got, err, len(v))
		}
	}
	if _, err := readStamp("too short"); !errors.Is(err, errNotAValue) {
		t.Errorf("got %v", err)
	}
}

// TestStaleness reads one key that two writers write:
//
//	writer 0:   10 --- 20                 50 --- 60
//	writer 1:               30 ------------------------ 70
//	                                                              90 --- 100
func TestStaleness(t *testing.T) {
	t.Parallel()
	h := newHistory(2)
	h.add(0, []write{{1, 10, 20}, {1, 50, 60}})
	h.add(1, []write{{1, 30, 70}})
	if h.next(0) != 2 || h.next(1) != 1 || h.next(2) != 0 {
		t.Errorf("next numbers are %d, %d, %d", h.next(0), h.next(1), h.next(2))
	}
	check := func(writer, n uint32, at, want time.Duration) {
		t.Helper()
		if got, err := h.staleness(read{1, at, stamp{writer: writer, n: n}}); got != want || err != nil {
			t.Errorf("write %d of writer %d read at %d: got %d, %v, want %d", n, writer, at, got, err, want)
		}
	}
	check(0, 0, 15, 0)  // not even acknowledged
	check(0, 0, 60, 0)  // replaced at this moment
	check(0, 0, 75, 15) // since the first ack of a write begun after its own ack, not since the last
	check(0, 1, 75, 0)  // at the same time as writer 1's: nobody knows which is newer
	check(1, 0, 75, 0)
	h.add(1, []write{{1, 90, 100}})
	check(0, 1, 101, 1)
	check(1, 0, 150, 50)
	check(1, 1, 150, 0)

	for _, got := range []stamp{{writer: 1, n: 2}, {writer: 7}} {
		if _, err := h.staleness(read{1, 200, got}); !errors.Is(err, errNotAValue) {
			t.Errorf("%+v: got %v", got, err)
		}
	}
	if _, err := h.staleness(read{0, 200, stamp{}}); !errors.Is(err, errNotAValue) || !strings.Contains(err.Error(), "key 0") {
		t.Errorf("the value of another key: got %v", err)
	}

	var a ages
	if err := a.judge(h, []read{{1, 150, stamp{writer: 1, n: 1}}, {1, 150, stamp{writer: 1}}}); err != nil {
		t.Fatal(err)
	}
	if a.all.n != 2 || a.behind.n != 1 || a.behind.max != 50 {
		t.Errorf("judged %d reads, %d behind, by %d", a.all.n, a.behind.n, a.behind.max)
	}
}

// The index gives what the definition says, word by word.
func TestStalenessIsItsDefinition(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		h := newHistory(3)
		var all []write
		for range 2 { // in two rounds, as soak adds them
			for writer := range uint32(3) {
				var ws []write
				at := time.Duration(r.IntN(20))
				for range r.IntN(12) {
					begun := at + time.Duration(r.IntN(10))
					at = begun + time.Duration(r.IntN(20))
					ws = append(ws, write{r.IntN(3), begun, at})
				}
				h.add(writer, ws)
				all = append(all, ws...)
			}
			for writer, ws := range h.writes {
				for n, w := range ws {
					want := never
					for _, o := range all {
						if o.key == w.key && o.begun > w.acked {
							want = min(want, o.acked)
						}
					}
					if got := h.replaced(w); got != want {
						t.Fatalf("write %d of %d, %+v: replaced at %d, want %d, in %+v", n, writer, w, got, want, all)
					}
				}
			}
		}
	}
}

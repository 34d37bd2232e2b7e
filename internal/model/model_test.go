package model

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// jugs is the riddle of the two jugs, of 3 and 5 litres: measure 4 litres with them.
type jugs struct {
	forbidden int8 // litres in the large one that are called wrong
}

type litres struct{ small, large int8 }

func (j jugs) Start() litres { return litres{} }

func (j jugs) Next(s *litres, emit func(string, litres)) {
	pour := min(s.small, 5-s.large)
	back := min(3-s.small, s.large)
	for _, step := range []struct {
		name string
		next litres
	}{
		{"fill small", litres{3, s.large}},
		{"fill large", litres{s.small, 5}},
		{"empty small", litres{0, s.large}},
		{"empty large", litres{s.small, 0}},
		{"pour small into large", litres{s.small - pour, s.large + pour}},
		{"pour large into small", litres{s.small + back, s.large - back}},
	} {
		if step.next != *s {
			emit(step.name, step.next)
		}
	}
}

func (j jugs) Check(s *litres) string {
	if s.large == j.forbidden {
		return "measured it"
	}
	return ""
}

func (j jugs) CheckEnd(*litres) string { return "the water is never used up" }

func TestExploreFindsAShortestWay(t *testing.T) {
	t.Parallel()

	r := Explore(jugs{forbidden: 4}, 0)
	wants := []string{
		"fill large", "pour large into small", "empty small",
		"pour large into small", "fill large", "pour large into small",
	}
	if r.Wrong != "measured it" || r.Capped {
		t.Errorf("Explore returned %+v, want 4 litres to be found", r)
	}
	if diff := cmp.Diff(wants, r.Trace); diff != "" {
		t.Errorf("the way there (-want +got):\n%s", diff)
	}
	if got := r.Counterexample(); got != "measured it <- "+strings.Join(wants, ", ") {
		t.Errorf("Counterexample returned %q", got)
	}
}

func TestExploreSeesEveryState(t *testing.T) {
	t.Parallel()

	// One jug is full or empty in every state that can be reached: 2*6 + 2*4 - 4 of them.
	r := Explore(jugs{forbidden: -1}, 0)
	if diff := cmp.Diff(Result{States: 16, Steps: r.Steps, Depth: 7}, r); diff != "" {
		t.Errorf("Explore (-want +got):\n%s", diff)
	}
}

func TestExploreStopsAtTheLimit(t *testing.T) {
	t.Parallel()

	r := Explore(jugs{forbidden: -1}, 5)
	if r.States != 5 || !r.Capped || r.Wrong != "" {
		t.Errorf("Explore with a limit of 5 returned %+v", r)
	}
}

func TestExploreChecksTheStart(t *testing.T) {
	t.Parallel()

	if r := Explore(jugs{forbidden: 0}, 0); r.Wrong == "" || r.States != 0 || len(r.Trace) != 0 {
		t.Errorf("Explore from a start that is wrong returned %+v", r)
	}
}

// countdown ends at zero, from where nothing happens.
type countdown int8

func (c countdown) Start() int8         { return int8(c) }
func (countdown) Check(*int8) string    { return "" }
func (countdown) CheckEnd(*int8) string { return "over" }
func (countdown) Next(s *int8, emit func(string, int8)) {
	if *s > 0 {
		emit("down", *s-1)
	}
}

func TestExploreChecksTheEnd(t *testing.T) {
	t.Parallel()

	r := Explore(countdown(2), 0)
	if r.Wrong != "over" || !slices.Equal(r.Trace, []string{"down", "down", "(the end)"}) {
		t.Errorf("Explore returned %+v, want the end to be wrong", r)
	}
}

func TestSet(t *testing.T) {
	t.Parallel()

	var s set
	const n = 100_000
	hash := func(i uint64) uint64 { return i * 0x9e3779b97f4a7c15 } // hash(0) is 0, which the table uses for free
	for _, wants := range []bool{true, false} {                     // then all are there already
		for i := range uint64(n) {
			if added := s.add(hash(i)); added != wants {
				t.Fatalf("add of hash %d returned %v, want %v", i, added, wants)
			}
		}
	}
	if s.n != n {
		t.Errorf("the set has %d hashes, want %d", s.n, n)
	}
}

func TestQueue(t *testing.T) {
	t.Parallel()

	var q queue[int]
	in, out := 0, 0
	for range 5 {
		for range 3 * blockSize / 2 {
			q.push(in)
			in++
		}
		for range blockSize {
			if got := q.pop(); got != out {
				t.Fatalf("pop returned %d, want %d", got, out)
			}
			out++
		}
		if q.len() != in-out {
			t.Fatalf("the queue has %d, want %d", q.len(), in-out)
		}
	}
	for q.len() > 0 {
		if got := q.pop(); got != out {
			t.Fatalf("pop returned %d, want %d", got, out)
		}
		out++
	}
	if in != out {
		t.Errorf("%d went in and %d came out", in, out)
	}
}

package model

import "testing"

// Holds explores a system and fails the test where something goes wrong. limit is as in Explore. states is how many states there
// are, which is compared where all were explored, so that a change of the model is noticed; 0 is not compared.
func Holds[S comparable](t *testing.T, system System[S], limit, states int) {
	t.Helper()

	r := Explore(system, limit)
	t.Logf("%d states, %d steps, depth %d, capped: %v", r.States, r.Steps, r.Depth, r.Capped)
	switch {
	case r.Wrong != "":
		t.Error(r.Counterexample())
	case !r.Capped && states > 0 && r.States != states:
		t.Errorf("there are %d states, want %d", r.States, states)
	}
}

// Breaks explores systems, which differ from the algorithm in one way, one after the other, and fails the test unless something
// goes wrong in one of them. says describes the difference, for the messages; limit is as in Explore.
func Breaks[S comparable, A System[S]](t *testing.T, says string, limit int, systems ...A) {
	t.Helper()

	for _, system := range systems {
		if r := Explore(system, limit); r.Wrong != "" {
			t.Logf("%d states; %s: %s", r.States, says, r.Counterexample())
			return
		}
	}
	t.Errorf("nothing goes wrong although %s", says)
}

package immediate

import (
	"runtime/debug"
	"testing"

	"go.uber.org/goleak"

	"github.com/pgcache/go/internal/model"
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(30) // nearly all of the heap is tables of numbers: it is cheap to collect, and large
	goleak.VerifyTestMain(m)
}

func TestAlgorithm(t *testing.T) {
	t.Parallel()

	effort := model.EffortOf(t)
	for _, tt := range []struct {
		name   string
		size   size
		states int // another number means that the model has changed
		effort model.Effort
	}{
		{"narrow", narrow, 212_424, model.Normal},
		{"wide", wide, 4_681_971, model.Normal},
		{"contention", contention, 5_434_952, model.Normal},
		{"widest", widest, 26_240_043, model.Full},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if effort == model.Normal && tt.effort == model.Full {
				t.Skip("this size takes PGCACHE_MODEL=full")
			}
			r := model.Explore(algorithm{tt.size, none}, effort.Limit())
			t.Logf("%d states, %d steps, depth %d", r.States, r.Steps, r.Depth)
			if r.Wrong != "" {
				t.Error(r.Counterexample())
			} else if !r.Capped && r.States != tt.states {
				t.Errorf("there are %d states, want %d", r.States, tt.states)
			}
		})
	}
}

// TestVariants explores all of a variant where PGCACHE_MODEL=full, else a beginning.
func TestVariants(t *testing.T) {
	t.Parallel()

	effort := model.EffortOf(t)
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			limit := model.Quick.Limit()
			if effort == model.Full {
				limit = 0
			}
			r := model.Explore(algorithm{wide, v.change}, limit)
			t.Logf("%d states, %d steps, depth %d", r.States, r.Steps, r.Depth)
			if r.Wrong != "" {
				t.Errorf("although it should not matter that %s: %s", v.says, r.Counterexample())
			}
		})
	}
}

// TestEveryRuleIsNeeded: without it, the walk must find what goes wrong.
func TestEveryRuleIsNeeded(t *testing.T) {
	t.Parallel()

	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			r := model.Explore(algorithm{m.size, m.change}, 0)
			if r.Wrong == "" {
				t.Fatalf("nothing goes wrong in %d states although %s", r.States, m.says)
			}
			t.Logf("%d states; %s: %s", r.States, m.says, r.Counterexample())
		})
	}
}

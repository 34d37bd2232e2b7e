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
			model.Holds(t, algorithm{tt.size, none}, effort.Limit(), tt.states)
		})
	}
}

// TestVariants explores every state of each variant with PGCACHE_MODEL=full, else the first ones.
func TestVariants(t *testing.T) {
	t.Parallel()

	effort := model.EffortOf(t)
	for _, v := range variants {
		t.Run(v.says, func(t *testing.T) {
			t.Parallel()
			limit := model.Quick.Limit()
			if effort == model.Full {
				limit = 0
			}
			model.Holds(t, algorithm{wide, v.change}, limit, 0)
		})
	}
}

// TestEveryRuleIsNeeded takes one rule away at a time, and expects the walk to find what goes wrong without it.
func TestEveryRuleIsNeeded(t *testing.T) {
	t.Parallel()

	for _, m := range mutants {
		t.Run(m.says, func(t *testing.T) {
			t.Parallel()
			model.Breaks(t, m.says, 0, algorithm{m.size, m.change})
		})
	}
}

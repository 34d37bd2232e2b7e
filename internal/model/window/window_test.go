package window

import (
	"fmt"
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
		name     string
		scenario scenario
		states   int // another number means that the model has changed
		effort   model.Effort
	}{
		{"gap", gap, 3_172_334, model.Normal},
		{"plain", plain, 735_317, model.Normal},
		{"contention", contention, 2_170_315, model.Normal},
		{"local now", localNow, 753_149, model.Normal},
		{"join", join, 647_659, model.Normal},
		{"stuck", stuck, 2_663_379, model.Normal},
		{"never", never, 2_144_784, model.Normal},
		{"never, of both nodes", neverOwn, 605_461, model.Normal},
		{"two remotes", twoRemotes, 12_796_382, model.Full},
		{"two gets", twoGets, 26_358_156, model.Full},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if effort == model.Normal && tt.effort == model.Full {
				t.Skip("this scenario takes PGCACHE_MODEL=full")
			}
			model.Holds(t, algorithm{tt.scenario, none}, effort.Limit(), tt.states)
		})
	}
}

// TestVariants explores every state of each variant with PGCACHE_MODEL=full, else the first ones.
func TestVariants(t *testing.T) {
	t.Parallel()

	effort := model.EffortOf(t)
	for _, v := range variants {
		for i, where := range v.where {
			t.Run(fmt.Sprint(v.says, " ", i), func(t *testing.T) {
				t.Parallel()
				limit := model.Quick.Limit()
				if effort == model.Full {
					limit = 0
				}
				model.Holds(t, algorithm{where, v.change}, limit, 0)
			})
		}
	}
}

// TestEveryRuleIsNeeded takes one rule away at a time, and expects the walk to find what goes wrong without it.
func TestEveryRuleIsNeeded(t *testing.T) {
	t.Parallel()

	for _, m := range mutants {
		t.Run(m.says, func(t *testing.T) {
			t.Parallel()
			model.Breaks(t, m.says, 0, algorithm{m.where, m.change})
		})
	}
}

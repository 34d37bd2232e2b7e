package shards

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/pgcache/go/internal/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAlgorithm(t *testing.T) {
	t.Parallel()
	effort := model.EffortOf(t)
	for name, a := range map[string]algorithm{
		"a node that reads":                   {moves: 1, loads: 1, nodes: 1},
		"two nodes that read, and crashes":    {moves: 1, loads: 1, nodes: 2, crashes: true},
		"two nodes that read, there and back": {moves: 2, loads: 2, nodes: 2, crashes: true},
		"a node that loads, there and back":   {moves: 2, loads: 1, nodes: 1},
		"a row is left from before":           {moves: 1, nodes: 1, left: row},
		"a load is left from before":          {moves: 1, nodes: 1, left: load},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limit := effort.Limit()
			switch {
			case effort == model.Full:
				limit = 30_000_000
			case limit == 0:
				limit = 600_000
			}
			model.Holds(t, a, limit, 0)
		})
	}
}

// TestEveryRuleIsNeeded takes one rule away at a time, and expects the walk to find what goes wrong without it.
func TestEveryRuleIsNeeded(t *testing.T) {
	t.Parallel()
	for missing, says := range map[rule]string{
		noWait:     "Move does not wait",
		noMoving:   "Move goes from one place to the other in one step",
		noAsk:      "a write does not ask whether its epoch has ended",
		keepsLoad:  "a load returns what it has, also where its epoch has ended",
		keepsGet:   "a Get returns what it has, also where its epoch has ended",
		asksOnce:   "a load does not ask again when it has looked",
		noLease:    "leases do not end",
		oldOnly:    "while the key moves a write goes to the old place only",
		newOnly:    "while the key moves a write goes to the new place only",
		readsOld:   "while the key moves nodes read the old place",
		readsNew:   "while the key moves nodes read the new place",
		noPurge:    "the new place keeps what it had of the key",
		noFence:    "loads that have begun can still store",
		lateFence:  "the rows go before the loads are fenced",
		noTomb:     "a delete leaves no tombstone",
		someServer: "a step is not recorded everywhere",
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			ways := []algorithm{
				{missing: missing, moves: 1, nodes: 1, left: row},
				{missing: missing, moves: 1, nodes: 1, left: load},
				{missing: missing, moves: 1, loads: 1, nodes: 1},
			}
			limit := 3_000_000
			if missing == asksOnce { // it takes the way there and back
				ways, limit = []algorithm{{missing: missing, moves: 2, loads: 1, nodes: 1}}, 6_000_000
			}
			model.Breaks(t, says, limit, ways...)
		})
	}
}

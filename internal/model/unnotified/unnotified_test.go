package unnotified

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/pgcache/go/internal/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAlgorithm(t *testing.T) {
	t.Parallel()
	model.Holds(t, algorithm{}, 0, 0)
}

// TestEveryRuleIsNeeded takes one rule away at a time, and expects the walk to find what goes wrong without it.
func TestEveryRuleIsNeeded(t *testing.T) {
	t.Parallel()
	for missing, says := range map[rule]string{
		fromAnswer: "the age counts from the answer",
		unknown:    "what is not acknowledged is dropped",
		asOld:      "what is as old as the oldest change is dropped",
		neverFlush: "the log is left to others",
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			model.Breaks(t, says, 0, algorithm{missing: missing})
		})
	}
}

package stretch

import (
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"github.com/pgcache/go/internal/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAlgorithm(t *testing.T) {
	t.Parallel()
	for _, both := range []bool{false, true} {
		t.Run(fmt.Sprintf("both=%v", both), func(t *testing.T) {
			t.Parallel()
			model.Holds(t, algorithm{both: both}, 0, 0)
		})
	}
}

// TestEveryRuleIsNeeded takes one rule away at a time, and expects the walk to find what goes wrong without it.
func TestEveryRuleIsNeeded(t *testing.T) {
	t.Parallel()
	for missing, says := range map[rule]string{
		byConfigured: "silence is judged by the configured window",
		saysLast:     "a message says the window before it",
		foreverLed:   "a silent leader leads for ever",
		noStepDown:   "nobody steps down",
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			model.Breaks(t, says, 0, algorithm{missing: missing}, algorithm{missing: missing, both: true})
		})
	}
}

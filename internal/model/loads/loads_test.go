package loads

import (
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"github.com/pgcache/go/internal/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAlgorithm(t *testing.T) {
	t.Parallel()
	for _, absent := range []bool{false, true} {
		t.Run(fmt.Sprintf("absent=%v", absent), func(t *testing.T) {
			t.Parallel()
			model.Holds(t, algorithm{absent: absent}, 0, 0)
		})
	}
}

// TestEveryRuleIsNeeded takes one rule away at a time, and expects the walk to find what goes wrong without it.
func TestEveryRuleIsNeeded(t *testing.T) {
	t.Parallel()
	for missing, says := range map[rule]string{
		noVersion:       "the store does not compare the version",
		noTombstone:     "Delete leaves no tombstone",
		noHandTombstone: "DELETE by hand leaves no tombstone",
		noHandVersion:   "UPDATE by hand keeps the version",
		noTurn:          "Clear does not turn the incarnation",
		noTruncateTurn:  "TRUNCATE does not turn the incarnation",
		noCrashTurn:     "a crash leaves the incarnation",
		noWait:          "Clear does not wait for the statements under way",
		noLimit:         "Clear removes what was written after the turn, too",
		noTime:          "the store does not look at the time",
		oldSnapshot:     "the store judges by an old snapshot",
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			model.Breaks(t, says, 0, algorithm{missing: missing}, algorithm{missing: missing, absent: true})
		})
	}
}

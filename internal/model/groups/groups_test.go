package groups

import (
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"github.com/pgcache/go/internal/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAlgorithm(t *testing.T) {
	t.Parallel()
	for _, untagged := range []bool{false, true} {
		t.Run(fmt.Sprintf("untagged=%v", untagged), func(t *testing.T) {
			t.Parallel()
			model.Holds(t, algorithm{untagged: untagged}, 0, 0)
		})
	}
}

// TestEveryRuleIsNeeded takes one rule away at a time, and expects the walk to find what goes wrong without it.
func TestEveryRuleIsNeeded(t *testing.T) {
	t.Parallel()
	for missing, says := range map[rule]string{
		noSeen:              "a row does not note what its statement had seen",
		seenAtCommit:        "a row notes what is there at its commit",
		ownUnseen:           "a transaction does not see its own removal",
		countsAtOnce:        "a removal counts before its commit",
		rollbackLeaves:      "a rollback leaves the record",
		noOvertaken:         "a load does not ask for records",
		newGroupsAlone:      "a load does not ask for records of the group of the row that it saw",
		groupsOfTheRow:      "a load asks for those of the row that is there when it stores",
		replaceUnseen:       "a record is replaced by one that has not seen it",
		retireDead:          "a record is retired beside a dead row",
		retireUnderSnapshot: "a record is retired under a snapshot",
		retireUnderLoad:     "a record is retired under a load",
		burySoon:            "a dead row goes under a load",
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			model.Breaks(t, says, 0, algorithm{missing: missing}, algorithm{missing: missing, untagged: true})
		})
	}
}

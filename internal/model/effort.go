package model

import (
	"os"
	"testing"
)

// Effort is how much the tests explore.
type Effort int

const (
	Quick  Effort = iota // the first states of each configuration
	Normal               // every state of the configurations that take seconds; of shards, up to a limit
	Full                 // every state of every configuration; of shards, up to a higher limit
)

// quickLimit is the number of states that Quick looks at in a configuration.
const quickLimit = 50_000

// EffortOf returns what the flags and the environment variable PGCACHE_MODEL ask for.
func EffortOf(t *testing.T) Effort {
	t.Helper()

	switch v := os.Getenv("PGCACHE_MODEL"); {
	case v == "full":
		return Full
	case v != "":
		t.Fatalf("PGCACHE_MODEL is %q, want full or nothing", v)
	case testing.Short() || underRace:
		return Quick
	}
	return Normal
}

// Limit returns the number of states to explore, 0 for all of them.
func (e Effort) Limit() int {
	if e == Quick {
		return quickLimit
	}
	return 0
}

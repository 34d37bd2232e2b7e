package drivertest

import (
	"errors"
	"testing"

	"github.com/pgcache/go/pgcache"
)

// migrateTwice: before the first time an error says what is missing, and the second time changes nothing.
func migrateTwice(t *testing.T, b *bundle) {
	ctx := t.Context()
	n := b.start(nil)
	if err := n.Ready(ctx); !errors.Is(err, pgcache.ErrNotMigrated) {
		t.Errorf("Ready returns %v, want ErrNotMigrated", err)
	}
	state, err := n.MigrationState(ctx)
	if must(t, err); state.Have != 0 || len(state.Pending) == 0 || len(state.Pending) != state.Want {
		t.Errorf("before: %+v", state)
	}
	must(t, n.Migrate(ctx))
	must(t, n.Set(ctx, "k", []byte("v")))
	must(t, n.Migrate(ctx))
	b.node(nil).want(t, "k", []byte("v"))
	if state, err = n.MigrationState(ctx); err != nil || state.Have != state.Want || len(state.Pending) != 0 {
		t.Errorf("after: %+v, %v", state, err)
	}
	n.ready(t)
}

// tablesDropped while everything runs, with statements prepared: an error says so, and Migrate mends it.
func tablesDropped(t *testing.T, b *bundle) {
	n := b.node(nil)
	for range 2 {
		for _, c := range calls {
			must(t, c.run(t.Context(), n))
			must(t, c.run(t.Context(), n))
		}
		must(t, b.drop(t.Context()))
		for _, c := range calls {
			if c.op == "get" || c.op == "get or set" || c.op == "get many" || c.op == "get or set many" {
				continue // may be answered from memory: dropping tables publishes nothing
			}
			c.wantError(t, c.run(t.Context(), n), pgcache.ErrNotMigrated)
		}
		for _, c := range calls { // now also those: a failed write leaves nothing in memory
			c.wantError(t, c.run(t.Context(), n), pgcache.ErrNotMigrated)
		}
		must(t, n.Migrate(t.Context()))
	}
	for _, c := range calls {
		must(t, c.run(t.Context(), n))
	}
}

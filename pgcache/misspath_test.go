package pgcache_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// TestMissPath: a lone miss is four statements, of which its caller waits for three.
func TestMissPath(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		guard  pgcache.Guard
		before []string // the caller has its value
		after  []string
	}{
		{"AdvisoryLock", pgcache.AdvisoryLock(), []string{"GetEntry", "LockAndLook", "StoreLoaded"}, []string{"Unlocks"}},
		{"Lease", pgcache.Lease(), []string{"GetEntry", "LeaseAndLook", "StoreLoaded"}, nil},
		{"NoGuard", pgcache.NoGuard(), []string{"GetEntry", "Look", "StoreLoaded"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			db, wire := openWire(t, "pgx", testdb.DSN(t))
			c := cl.on(db, func(o *pgcache.Options) { o.Guard, o.CleanupInterval = test.guard, -1 })
			load := func(key string) {
				t.Helper()
				var v int
				if err := c.GetOrSet(t.Context(), key, &v, func(context.Context) (any, error) { return 7, nil }); err != nil || v != 7 {
					t.Fatal(v, err)
				}
			}
			load("first") // connects and sets up the session
			settled := func() bool { return len(test.after) == 0 || wire.count(named("Unlocks")) > 0 }
			eventually(t, "the first is over", settled)
			wire.forget()
			unlocking := wire.before(named("Unlocks"))
			load("k")
			if got := wire.statements(); !cmp.Equal(got[:min(3, len(got))], test.before) {
				t.Errorf("sent %q before the caller had its value, want %q", got, test.before)
			}
			if test.after != nil {
				unlocking.wait(t)
			}
			unlocking.release()
			eventually(t, "it is over", settled)
			cl.noLocks()
			if got, want := wire.statements(), append(test.before, test.after...); !cmp.Equal(got, want) {
				t.Errorf("sent %q, want %q", got, want)
			}
		})
	}
}

// TestManyKeysFewLocks: a call for very many keys neither fills the server's lock table nor waits for anything.
func TestManyKeysFewLocks(t *testing.T) {
	t.Parallel()
	for _, n := range []int{15_000, 40_000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			c := pgcache.For[int](cl.on(testdb.DB(t), nil))
			keys := make([]string, n)
			for i := range keys {
				keys[i] = fmt.Sprint("key ", i)
			}
			m, err := c.GetOrSetMany(t.Context(), keys, func(_ context.Context, missing []string) (map[string]int, error) {
				if locks := cl.locks(); locks != 1 {
					t.Errorf("%d locks", locks)
				}
				other := testdb.DB(t) // a new connection, and a statement that locks
				if _, err := other.ExecContext(t.Context(), "SELECT count(*) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"); err != nil {
					t.Error(err)
				}
				m := make(map[string]int, len(missing))
				for i, k := range missing {
					m[k] = i
				}
				return m, nil
			})
			if err != nil || len(m) != n {
				t.Error(len(m), err)
			}
			cl.noLocks()
		})
	}
}

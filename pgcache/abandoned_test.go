package pgcache_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// TestAbandonedReads: reads that wait for a lock give their connections back when all callers have given up, those that callers shared too.
func TestAbandonedReads(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		db := testdb.Open(t, driver, testdb.DSN(t))
		c := cl.on(db, func(o *pgcache.Options) { o.Timeout = 10 * time.Minute })
		eventually(t, "the pool is at rest", func() bool { return db.Stats().InUse == 0 })
		tx, err := cl.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(t.Context(), "LOCK TABLE "+cl.table()+" IN ACCESS EXCLUSIVE MODE"); err != nil {
			t.Fatal(err)
		}
		ctx, giveUp := context.WithCancel(t.Context())
		defer giveUp()
		var callers sync.WaitGroup
		for i := range 40 {
			callers.Go(func() {
				var n int
				if _, err := c.Get(ctx, fmt.Sprint("k", i), &n); err == nil {
					t.Error("a Get was answered while the table is locked")
				}
			})
		}
		eventually(t, "a statement that callers share waits for the lock", func() bool {
			return cl.count(`SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND l.relation = $1::regclass
				AND a.query LIKE '%GetEntries %'`, cl.table()) > 0
		})
		giveUp()
		callers.Wait()
		eventually(t, "the connections are given back", func() bool { return db.Stats().InUse == 0 })
	})
}

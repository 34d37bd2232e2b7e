package pgcache_test

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"testing"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/localcache"
	"github.com/pgcache/go/pgcache"
)

// The Python library's cleanup picked expired keys and then deleted rows of these keys: one that had been set again meanwhile too.
func TestCleanupOfARowThatWasSetAgain(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.CleanupInterval = -1 })
	for round := range 20 {
		key := strconv.Itoa(round)
		set(t, c, key, 1)
		cl.expire("key = '" + key + "'")

		tx, err := cl.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		var pid int
		if err := tx.QueryRowContext(t.Context(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(t.Context(), "UPDATE "+cl.table()+" SET version = $1, expires_at = clock_timestamp() + interval '1 hour' WHERE key = $2", round+1, key); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			n, err := c.Cleanup(context.WithoutCancel(t.Context()))
			if n != 0 {
				err = fmt.Errorf("%d rows removed", n)
			}
			done <- err
		}()
		// Either it is done, or it waits for the row.
		eventually(t, "Cleanup meets the row", func() bool {
			return len(done) == 1 || cl.count("SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))", pid) == 1
		})
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		want(t, c, key, 1)
	}
}

// The Python library notified of every row, new ones and the ones that its cleanup removed too.
func TestNobodyNeedsToKnow(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	cl.opts.CleanupInterval = -1
	c := cl.node(nil)
	typed := pgcache.For[int](c)
	recorder := cl.record()
	set(t, c, "new", 1)
	if err := typed.SetMany(t.Context(), map[string]int{"new1": 1, "new2": 2}); err != nil {
		t.Fatal(err)
	}
	if err := c.GetOrSet(t.Context(), "loaded", new(int), func(context.Context) (any, error) { return 1, nil }); err != nil {
		t.Fatal(err)
	}
	cl.expire("true")
	if n, err := c.Cleanup(t.Context()); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	if received := recorder.received(); len(received) != 0 {
		t.Errorf("%q", received)
	}
}

// When full, it evicted another entry even where it overwrote one, and looked at all of them to choose.
func TestOverwritingEvictsNobody(t *testing.T) {
	t.Parallel()
	const entries = 16
	cl := newCluster(t)
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) {
		o.Local, o.Listener = localcache.New(localcache.Options{MaxEntries: entries}), calm(pgxdriver.DialDSN(testdb.DSN(t)))
	})
	for i := range entries {
		set(t, c, strconv.Itoa(i), i)
	}
	inMemory := func() (n int) {
		for i := range entries {
			before := c.Stats().LocalHits
			want(t, c, strconv.Itoa(i), i)
			n += int(c.Stats().LocalHits - before)
		}
		return n
	}
	inMemory()
	before := inMemory()
	for range 50 {
		set(t, c, "0", 0)
	}
	if after := inMemory(); after < before || before < entries/2 {
		t.Errorf("%d entries in memory before, %d after", before, after)
	}
}

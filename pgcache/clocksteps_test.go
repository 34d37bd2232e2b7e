package pgcache_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/pgcache/go/pgcache"
)

// What the tables say of times is from before the database's clock was set back by a day: nothing waits until the day is over.

func TestClockSetBack_Janitor(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.CleanupInterval = -1 })
	set(t, c, "k", 1)
	cl.expire("key = 'k'")
	cl.exec("UPDATE " + cl.object("cache_state") + ` SET swept_at = clock_timestamp() + interval '1 day', next_at = clock_timestamp() + interval '1 day',
		next_before = '1'`)
	before := cl.count("SELECT ended_before::text::bigint FROM " + cl.object("cache_state"))
	cl.node(func(_ *sql.DB, o *pgcache.Options) { o.CleanupInterval = 50 * time.Millisecond })
	eventually(t, "the expired row is removed", func() bool { return cl.count("SELECT count(*) FROM "+cl.table()) == 0 })
	if cl.count("SELECT count(*) FROM "+cl.object("cache_state")+" WHERE next_at <= clock_timestamp() AND next_before::text::bigint > 1") != 1 { // how many have ended depends on other tests
		t.Error("which transactions have ended is not noted any more")
	}
	// How long ago next_before was noted is not known.
	if after := cl.count("SELECT ended_before::text::bigint FROM " + cl.object("cache_state")); after != before {
		t.Errorf("ended_before went from %d to %d", before, after)
	}
}

func TestClockSetBack_Clear(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	for _, key := range []string{"a", "b"} {
		set(t, c, key, 1)
	}
	cl.exec("UPDATE " + cl.table() + " SET written_at = clock_timestamp() + interval '1 day', version = version + 1, stamp = version + 1")
	reader := begin(t, cl.db, sql.LevelReadCommitted) // so that the table can't be truncated
	if _, err := reader.Exec("SELECT FROM " + cl.table()); err != nil {
		t.Fatal(err)
	}
	if err := c.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantNone(t, c, "a")
	wantNone(t, c, "b")
}

func TestClockSetBack_Flush(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.node(nil)
	set(t, a, "k", 1)
	cl.exec("INSERT INTO " + cl.object("cache_changes") + " (key, version, logged_at) VALUES ('k', 0, clock_timestamp() + interval '1 day')")
	eventually(t, "a pulse publishes a change that nobody publishes", func() bool {
		return cl.count("SELECT count(*) FROM "+cl.object("cache_changes")) == 0
	})
	// The node that flushes for watched tables is gone.
	cl.exec("UPDATE " + cl.object("cache_state") + " SET flusher = 1, flusher_lease = clock_timestamp() + interval '1 day'")
	cl.exec("INSERT INTO " + cl.object("cache_watches") + " (id, watched, keys, tags, most, columns) VALUES ('00000000', 'x', '{k}', '{}', 1, '{}')")
	eventually(t, "another takes its place", func() bool {
		return cl.count("SELECT count(*) FROM "+cl.object("cache_state")+" WHERE flusher <> 1 AND flusher_lease < clock_timestamp() + interval '1 minute'") == 1
	})
}

package pgcache_test

import (
	"errors"
	"testing"
)

// TestManyKeysOfOneNamespace: where too many keys of a namespace change at once, what is in memory of others stays there.
func TestManyKeysOfOneNamespace(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)
	set(t, a, "user:1", 1)
	set(t, a, "product:1", 2)
	inTime(t, func() error { // where a busy machine keeps a pulse waiting nothing is answered from memory
		warm(t, b, "user:1", 1)
		warm(t, b, "product:1", 2)
		received := b.Stats().Invalidations
		// Older than a second, so that the next pulse flushes it.
		cl.exec("INSERT INTO " + cl.object("cache_changes") + ` (key, version, logged_at)
			SELECT 'product:' || k, k, clock_timestamp() - interval '2 seconds' FROM generate_series(1, 5000) k`)
		eventually(t, "the flush has come", func() bool {
			return cl.count("SELECT count(*) FROM "+cl.object("cache_changes")) == 0 && b.Stats().Invalidations > received
		})
		eventually(t, "nothing of the namespace is in memory", func() bool {
			before := b.Stats().RemoteHits
			want(t, b, "product:1", 2)
			return b.Stats().RemoteHits > before
		})
		before := b.Stats()
		want(t, b, "user:1", 1)
		if after := b.Stats(); after.LocalHits != before.LocalHits+1 {
			return errors.New("another namespace's entry is not in memory any more")
		}
		return nil
	})
}

package pgcache_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/pgcache/go/pgcache"
)

// restored makes the tables look as if a dump had brought them from another server, which has had many more transactions.
func (cl *cluster) restored() {
	cl.t.Helper()
	cl.exec("UPDATE " + cl.object("cache_groups") + " SET xid = (xid::text::bigint + 1000000)::text::xid8, after = '1000000000:1000000000:'")
	cl.exec("UPDATE " + cl.object("cache_state") + ` SET noted_on = noted_on + 1, next_at = '-infinity', ended_before = '1000000000', next_before = '1000000000',
		retire_before = '1000000000', retire_after = NULL`)
}

// retire starts a node whose janitor goes on until it has removed all records of removed groups.
func (cl *cluster) retire() {
	cl.t.Helper()
	cl.node(func(_ *sql.DB, o *pgcache.Options) { o.CleanupInterval = 50 * time.Millisecond })
	eventually(cl.t, "the records are retired", func() bool {
		cl.horizon()
		return cl.count("SELECT count(*) FROM "+cl.object("cache_groups")) == 0
	})
}

// loadsOnce loads each key as 2, with the tag g, and finds it stored from then on.
func loadsOnce(t *testing.T, c *pgcache.Cache, keys ...string) {
	t.Helper()
	view := pgcache.For[int](c, pgcache.Tags("g"))
	for _, key := range keys {
		loads := 0
		for range 3 {
			if _, err := view.GetOrSet(t.Context(), key, func(context.Context) (int, error) { loads++; return 2, nil }); err != nil {
				t.Fatal(err)
			}
		}
		if loads != 1 {
			t.Errorf("%q was loaded %d times", key, loads)
		}
	}
}

// TestRestored_Loads: what groups had been removed on the server of a dump does not keep loads from storing.
func TestRestored_Loads(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.CleanupInterval = -1 })
	set(t, c, "dead", 1, pgcache.Tags("g"))
	deleteTags(t, c, "g")
	deletePrefix(t, c, "p")
	cl.restored()
	if _, err := c.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantNone(t, c, "dead")
	loadsOnce(t, c, "dead", "pure")
	// The records go as any others.
	cl.retire()
	want(t, c, "dead", 2)
}

// TestRestored_DataOnly: a dump without the tables leaves the cache_state that is there, so that nothing but its records says that they are
// from another server.
func TestRestored_DataOnly(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.CleanupInterval = -1 })
	cl.exec("INSERT INTO " + cl.object("cache_groups") + ` (kind, name, xid, after) SELECT r.kind, r.name, '1000000000', '1000000000:1000000000:'
		FROM (VALUES ('t', 'g'), ('p', 'user:')) AS r (kind, name)`)
	if _, err := c.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	loadsOnce(t, c, "tagged", "user:1")
	cl.retire()
	want(t, c, "tagged", 2)
}

// TestRestored_Fences: what the janitor removes is judged by transactions of this server alone. A load that is under way stores
// nothing over a later removal of its group, nor over a Delete whose transaction took long.
func TestRestored_Fences(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.CleanupInterval = -1 })
	cl.restored()
	view := pgcache.For[int](c, pgcache.Tags("g"))
	goOn := make(chan struct{})
	load := func(key string) (result func() error) {
		t.Helper()
		began := make(chan struct{})
		result = async(t, func() error {
			_, err := view.GetOrSet(t.Context(), key, func(context.Context) (int, error) { close(began); <-goOn; return 1, nil })
			return err
		})
		<-began
		return result
	}
	tx := begin(t, cl.db, sql.LevelReadCommitted)
	if _, err := tx.Exec("SELECT " + cl.object("cache_delete") + "('deleted')"); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("UPDATE " + cl.table() + " SET expires_at = clock_timestamp() - interval '1 hour', version = version + 1, stamp = version + 1"); err != nil {
		t.Fatal(err)
	}
	removed, deleted := load("removed"), load("deleted")
	commit(t, tx)
	deleteTags(t, c, "g")
	cl.node(func(_ *sql.DB, o *pgcache.Options) { o.CleanupInterval = 50 * time.Millisecond })
	cl.sweeps(5)
	close(goOn)
	for _, result := range []func() error{removed, deleted} {
		if err := result(); err != nil {
			t.Error(err)
		}
	}
	wantNone(t, c, "removed")
	wantNone(t, c, "deleted")
}

// TestP1_RestoredSequences: whatever a restore, a failover or somebody sets the sequences of the tables to, a removal of a group is
// not taken for one before it, which entries have seen.
func TestP1_RestoredSequences(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)
	for _, remove := range []struct {
		what string
		by   func(c *pgcache.Cache) error
	}{
		{"tag", func(c *pgcache.Cache) error { return c.DeleteTags(t.Context(), "g") }},
		{"prefix", func(c *pgcache.Cache) error { return c.DeletePrefix(t.Context(), "user:") }},
	} {
		set(t, a, "user:1", 1, pgcache.Tags("g"))
		if err := remove.by(a); err != nil {
			t.Fatal(err)
		}
		set(t, a, "user:1", 2, pgcache.Tags("g"))
		warm(t, a, "user:1", 2)
		warm(t, b, "user:1", 2)
		cl.exec(`SELECT setval(d.objid::regclass, 1, false) FROM pg_depend d JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S'
			WHERE d.refobjid = $1::text::regclass`, cl.object("cache_groups"))
		if err := remove.by(b); err != nil {
			t.Fatal(err)
		}
		wantNone(t, b, "user:1")
		eventually(t, "the "+remove.what+" is gone elsewhere", func() bool {
			_, found := get[int](t, a, "user:1")
			return !found
		})
	}
}

// TestRestored_Snapshots: a record that came with a dump, of a transaction that this server has had too but with a snapshot that it has
// yet to reach, does not replace the removals that come meanwhile.
func TestRestored_Snapshots(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.CleanupInterval = -1 })
	cl.exec("INSERT INTO " + cl.object("cache_groups") + ` (kind, name, xid, after)
		SELECT 't', 'g', '3', format('%1$s:%1$s:', pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 2000)::pg_snapshot`)
	if _, err := c.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	set(t, c, "k", 1, pgcache.Tags("g"))
	cl.exec("INSERT INTO " + cl.object("cache_groups") + " (kind, name) VALUES ('t', 'g')") // as a watched table does
	cl.exec("DO $$ BEGIN FOR i IN 1..2000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
	cl.exec("SELECT " + cl.object("cache_compact") + "('{tg}')") // as a flush does
	wantNone(t, cl.node(nil), "k")
}

package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// TestGroups_Conditional: what SetIfAbsent and Update leave in memory goes with its tags, as what Set leaves does.
func TestGroups_Conditional(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, _ *cluster, _ *sql.DB, a, b *pgcache.Cache) {
		view := pgcache.For[int](a, pgcache.Tags("g"))
		set(t, a, "live", 1)
		for key, write := range map[string]func(key string) error{
			"absent": func(key string) error { _, err := view.SetIfAbsent(t.Context(), key, 1); return err },
			"update": func(key string) error {
				_, err := view.Update(t.Context(), key, func(int, bool) (int, error) { return 1, nil })
				return err
			},
			"replace": func(key string) error {
				set(t, a, key, 0)
				_, err := view.Update(t.Context(), key, func(int, bool) (int, error) { return 1, nil })
				return err
			},
		} {
			inTime(t, func() error { // where a busy machine keeps a pulse waiting nothing is answered from memory
				key += "'" // a new one
				warm(t, a, "live", 1)
				if err := write(key); err != nil {
					t.Fatal(key, err)
				}
				before := a.Stats().LocalHits
				if v, _, err := view.Get(t.Context(), key); v != 1 || err != nil || a.Stats().LocalHits == before {
					return fmt.Errorf("%s: %d is not in memory (%w)", key, v, err)
				}
				return nil
			})
			deleteTags(t, b, "g")
			eventually(t, key+" is gone on the node that wrote it", func() bool {
				_, found, err := view.Get(t.Context(), key)
				return !found && err == nil
			})
		}
	})
}

// TestGroups_NewerThanTheStatement: a write that depends on the row judges it by records of now: those of its own snapshot may have
// been replaced since by others, which the row has seen.
func TestGroups_NewerThanTheStatement(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	for name, write := range map[string]func(key string) error{
		"SetIfAbsent": func(key string) error {
			stored, err := c.SetIfAbsent(t.Context(), key, 100, pgcache.Tags("g"))
			if stored {
				err = errors.Join(err, errors.New("it was stored over a live value"))
			}
			return err
		},
		"Increment": func(key string) error {
			n, err := c.Increment(t.Context(), key, 1, pgcache.Tags("g"))
			if n != 8 {
				err = errors.Join(err, fmt.Errorf("the counter is %d, not 8", n))
			}
			return err
		},
		"Touch": func(key string) error {
			found, err := c.Touch(t.Context(), key, time.Hour)
			if !found {
				err = errors.Join(err, errors.New("it was not found"))
			}
			return err
		},
		"by hand": func(key string) error {
			_, err := cl.db.ExecContext(t.Context(), "UPDATE "+cl.table()+" SET expires_at = now() + interval '1 hour' WHERE key = $1", key)
			return err
		},
	} {
		set(t, c, name, 1, pgcache.Tags("g"))
		deleteTags(t, c, "g")
		set(t, c, name, 7, pgcache.Tags("g")) // it has seen that record
		tx := begin(t, cl.db, sql.LevelReadCommitted)
		if err := errors.Join(c.WithTx(tx).DeleteTags(t.Context(), "g"), c.WithTx(tx).Set(t.Context(), name, 7, pgcache.Tags("g"))); err != nil {
			t.Fatal(err)
		}
		done := async(t, func() error { return write(name) })
		cl.waiting(1)
		commit(t, tx)
		if err := done(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if v, found := get[int](t, c, name); !found || v < 7 || v > 8 {
			t.Errorf("%s left %d (found: %v)", name, v, found)
		}
	}

	// Of a removal that is committed while the write waits, the row that it stores must not be older.
	set(t, c, "held", 1, pgcache.Tags("g"))
	tx := begin(t, cl.db, sql.LevelReadCommitted)
	if _, err := tx.Exec("SELECT FROM " + cl.table() + " WHERE key = 'held' FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	done := async(t, func() error {
		stored, err := c.SetIfAbsent(t.Context(), "held", 2, pgcache.Tags("g"))
		if !stored {
			err = errors.Join(err, errors.New("it was not stored"))
		}
		return err
	})
	cl.waiting(1)
	deleteTags(t, c, "g")
	commit(t, tx)
	if err := done(); err != nil {
		t.Error(err)
	}
	want(t, c, "held", 2)
}

// waiting waits until n sessions wait for a row.
func (cl *cluster) waiting(n int) {
	cl.t.Helper()
	eventually(cl.t, "a statement waits for the row", func() bool {
		return cl.count(`SELECT count(*) FROM pg_stat_activity a WHERE a.wait_event_type = 'Lock' AND a.query LIKE '%' || $1 || '%'`, cl.opts.Schema) >= n
	})
}

// TestGroups_RetireBesideOpenTransaction: a record stays while a transaction is open that has written without having seen it, also
// one that is younger than the removal.
func TestGroups_RetireBesideOpenTransaction(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.CleanupInterval = 50 * time.Millisecond })
	older, younger := begin(t, cl.db, sql.LevelReadCommitted), begin(t, cl.db, sql.LevelReadCommitted)
	if err := c.WithTx(older).DeleteTags(t.Context(), "g"); err != nil {
		t.Fatal(err)
	}
	if err := c.WithTx(younger).Set(t.Context(), "k", 1, pgcache.Tags("g")); err != nil {
		t.Fatal(err)
	}
	commit(t, older)
	for range 4 {
		cl.horizon()
	}
	cl.sweeps(3)
	commit(t, younger)
	wantNone(t, c, "k")
	set(t, c, "k", 2, pgcache.Tags("g"))
	eventually(t, "then it goes", func() bool {
		cl.horizon()
		return cl.count("SELECT count(*) FROM "+cl.object("cache_groups")) == 0
	})
	want(t, c, "k", 2)
}

// horizon lets the janitor note twice which transactions have ended, as if five minutes had gone by each time.
func (cl *cluster) horizon() {
	cl.t.Helper()
	for range 2 {
		cl.exec("UPDATE " + cl.object("cache_state") + " SET next_at = '-infinity'")
		eventually(cl.t, "the janitor has noted which transactions have ended", func() bool {
			return cl.count("SELECT count(*) FROM "+cl.object("cache_state")+" WHERE next_at > '-infinity'") == 1
		})
	}
}

// sweeps waits until the janitor has begun n times more.
func (cl *cluster) sweeps(n int) {
	cl.t.Helper()
	for range n {
		cl.exec("UPDATE " + cl.object("cache_state") + " SET swept_at = '-infinity'")
		eventually(cl.t, "the janitor has begun", func() bool {
			return cl.count("SELECT count(*) FROM "+cl.object("cache_state")+" WHERE swept_at > '-infinity'") == 1
		})
	}
}

// TestGroups_ChangedByHand: whoever moves a row to other groups by hand brings no dead value back, and kills no live one.
func TestGroups_ChangedByHand(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	set(t, c, "dead", 1, pgcache.Tags("g"))
	set(t, c, "dead:2", 1)
	deleteTags(t, c, "g", "h")
	deletePrefix(t, c, "dead:")
	set(t, c, "live", 1, pgcache.Tags("i"))
	for _, change := range []string{
		"tags = NULL WHERE key = 'dead'", "key = 'other' WHERE key = 'dead:2'", "tags = '{h}' WHERE key = 'live'", "key = 'dead:3' WHERE key = 'live'",
	} {
		cl.exec("UPDATE " + cl.table() + " SET " + change)
	}
	wantNone(t, c, "dead")
	wantNone(t, c, "other")
	want(t, c, "dead:3", 1)
	deleteTags(t, c, "h")
	wantNone(t, c, "dead:3")
	for _, bad := range []string{
		"INSERT INTO " + cl.table() + " (key, value, tags) VALUES ('k', '1', '{{a,b},{c,d}}')",
		"SELECT " + cl.object("cache_set") + "('k', '1', tags => '{{a,b}}')",
		"SELECT " + cl.object("cache_set") + "('k', '1', tags => '{NULL}')",
		"SELECT " + cl.object("cache_delete_tags") + "('{{a,b},{c,\"\"}}')",
		"SELECT " + cl.object("cache_delete_tags") + "('[0:1]={\"\",b}')",
	} {
		if _, err := cl.db.ExecContext(t.Context(), bad); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

// TestGroups_SetTags: what a loader says of groups is checked like the option.
func TestGroups_SetTags(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	view := pgcache.For[int](c, pgcache.Tags("of the view"))
	fetch := func(key string, tags ...string) error {
		_, err := view.Fetch(t.Context(), key, func(_ context.Context, l *pgcache.Load[int]) (int, error) {
			l.SetTags(tags...)
			l.SetTTL(time.Minute)
			return 1, nil
		})
		return err
	}
	many := make([]string, pgcache.MaxTags+1)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	for name, tags := range map[string][]string{
		"empty": {"a", ""}, "long": {strings.Repeat("t", pgcache.MaxTagBytes+1)}, "NUL": {"a\x00"}, "not UTF-8": {"\xff"}, "many": many,
	} {
		wantErr(t, fetch("bad", tags...), pgcache.ErrInvalidTag)
		if _, found := get[int](t, c, "bad"); found {
			t.Error(name, "was stored")
		}
	}
	for key, tags := range map[string][]string{"none": {}, "one": {"NULL", "NULL"}} {
		if err := fetch(key, tags...); err != nil {
			t.Error(key, err)
		}
	}
	deleteTags(t, c, "of the view")
	want(t, c, "none", 1)
	want(t, c, "one", 1)
	deleteTags(t, c, "NULL")
	want(t, c, "none", 1)
	wantNone(t, c, "one")
}

// TestGroups_Savepoint: a removal that is rolled back to a savepoint has not been, whatever becomes of the transaction.
func TestGroups_Savepoint(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c, other := cl.node(nil), cl.node(nil)
	set(t, c, "k", 1, pgcache.Tags("g"))
	set(t, c, "l", 1, pgcache.Tags("h"))
	deleteTags(t, c, "old") // so that there is a record
	tx := begin(t, cl.db, sql.LevelDefault)
	exec := func(query string) {
		t.Helper()
		if _, err := tx.Exec(query); err != nil {
			t.Fatal(err)
		}
	}
	view := pgcache.For[int](c, pgcache.Tags("g")).WithTx(tx)
	exec("SAVEPOINT s")
	if err := errors.Join(view.DeleteTags(t.Context(), "g"), view.DeletePrefix(t.Context(), "k"), view.Set(t.Context(), "m", 1)); err != nil {
		t.Fatal(err)
	}
	exec("ROLLBACK TO SAVEPOINT s")
	if err := errors.Join(view.Set(t.Context(), "n", 1), view.DeleteTags(t.Context(), "h"), view.Set(t.Context(), "o", 1)); err != nil {
		t.Fatal(err)
	}
	exec("SAVEPOINT s2")
	if err := view.DeletePrefix(t.Context(), "o"); err != nil {
		t.Fatal(err)
	}
	exec("RELEASE SAVEPOINT s2")
	commit(t, tx)
	for _, c := range []*pgcache.Cache{c, other} {
		eventually(t, "the commit is known", func() bool { _, found := get[int](t, c, "l"); return !found })
		want(t, c, "k", 1)
		want(t, c, "n", 1)
		wantNone(t, c, "m")
		wantNone(t, c, "o")
	}
	warm(t, c, "k", 1)
}

// TestGroups_UntaggedCostsNothing: what has no tags is read and written by the same statements after a removal as before, and a hit in
// memory allocates as little.
func TestGroups_UntaggedCostsNothing(t *testing.T) { //nolint:paralleltest // allocations are counted
	cl := newCluster(t)
	c, w := cl.wired(func(o *pgcache.Options) { o.InvalidationWindow = pgcache.Immediate })
	ctx := t.Context()
	view := pgcache.For[int](c, pgcache.Namespace("plain"))
	key := 0
	sent := func() (names string, allocs float64) {
		t.Helper()
		key++
		k := fmt.Sprint(key)
		eventually(t, "nothing else is sent", func() bool {
			w.forget()
			_, err := view.GetMany(ctx, []string{k, "none"})
			err = errors.Join(err, view.Set(ctx, k, 1))
			_, _, errGet := view.Get(ctx, "none")
			names = strings.Join(w.statements(), " ")
			return errors.Join(err, errGet) == nil && len(w.statements()) == 3
		})
		warm(t, c, "plain:"+k, 1)
		allocs = math.Inf(1) // the least of some: a pulse or a heartbeat allocates meanwhile
		for range 10 {
			allocs = min(allocs, testing.AllocsPerRun(50, func() { _, _, _ = view.Get(ctx, k) }))
		}
		return names, allocs
	}
	before, allocs := sent()
	set(t, c, "tagged", 1, pgcache.Tags("g"))
	deleteTags(t, c, "g")
	deletePrefix(t, c, "other")
	after, allocsAfter := sent()
	if before != after || allocs != allocsAfter {
		t.Errorf("%s (%v allocations), then %s (%v)", before, allocs, after, allocsAfter)
	}
}

// TestGroups_OneRecordAGroup: of a group that is removed again and again one record stays, also where sessions are of a stricter
// isolation level by themselves: every row that is written notes all records of its groups.
func TestGroups_OneRecordAGroup(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"read committed", "repeatable read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			c := cl.on(testdb.Open(t, "pgx", testdb.WithParam(testdb.DSN(t), "default_transaction_isolation", level)), nil)
			for range 20 {
				deleteTags(t, c, "g", "h")
				deletePrefix(t, c, "p")
			}
			if n := cl.count("SELECT count(*) FROM " + cl.object("cache_groups")); n != 3 {
				t.Errorf("%d records of 3 groups", n)
			}
		})
	}
}

package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/pgcache"
)

// TestGroups: what is removed is gone on this node when the call returns, on another soon, and nothing else goes.
func TestGroups(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, _ *cluster, _ *sql.DB, a, b *pgcache.Cache) {
		gone := func(key string) {
			t.Helper()
			wantNone(t, a, key)
			eventually(t, key+" is gone on the other node", func() bool {
				_, found := get[int](t, b, key)
				return !found
			})
		}
		users := pgcache.For[int](a, pgcache.Namespace("user"), pgcache.Tags("people"))
		if err := users.Set(t.Context(), "1", 1, pgcache.Tags("org:7", "people")); err != nil {
			t.Fatal(err)
		}
		if err := users.SetMany(t.Context(), map[string]int{"2": 2, "%": 3, "_x": 4}); err != nil {
			t.Fatal(err)
		}
		set(t, a, "plain", 5)
		set(t, a, "other", 6, pgcache.Tags(`o"r\g,{}:7`))
		all := map[string]int{"user:1": 1, "user:2": 2, "user:%": 3, "user:_x": 4, "plain": 5, "other": 6}
		for key, v := range all {
			warm(t, a, key, v)
			warm(t, b, key, v)
		}
		deleteTags(t, a, "org:7", "none")
		gone("user:1")
		deletePrefix(t, a, "user:%")
		gone("user:%")
		deletePrefix(t, a, "user:_")
		gone("user:_x")
		want(t, b, "user:2", 2)
		deleteTags(t, a, `o"r\g,{}:7`)
		gone("other")
		if err := users.Clear(t.Context()); err != nil {
			t.Fatal(err)
		}
		gone("user:2")
		want(t, b, "plain", 5)

		// What is stored afterwards lives, and an entry without its tag is no member any more.
		if err := users.Set(t.Context(), "1", 7); err != nil {
			t.Fatal(err)
		}
		set(t, a, "was", 1, pgcache.Tags("people"))
		set(t, a, "was", 2)
		deleteTags(t, b, "people")
		gone("user:1")
		want(t, a, "was", 2)
		want(t, b, "was", 2)
	})
}

// TestGroups_InTransaction: a removal counts with its commit, for what had not seen it; a rollback leaves no trace.
func TestGroups_InTransaction(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, _ *cluster, db *sql.DB, a, b *pgcache.Cache) {
		for _, test := range []struct {
			name   string
			remove func(tx *pgcache.Tx) error
		}{
			{"tags", func(tx *pgcache.Tx) error { return tx.DeleteTags(t.Context(), "g") }},
			{"prefix", func(tx *pgcache.Tx) error { return tx.DeletePrefix(t.Context(), "g:") }},
		} {
			for _, level := range []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable} {
				set(t, a, "g:old", 1, pgcache.Tags("g"))
				warm(t, a, "g:old", 1)
				tx := begin(t, db, level)
				c := a.WithTx(tx)
				if err := errors.Join(c.Set(t.Context(), "g:before", 1, pgcache.Tags("g")), test.remove(c), c.Set(t.Context(), "g:after", 1, pgcache.Tags("g"))); err != nil {
					t.Fatal(test.name, level, err)
				}
				want(t, a, "g:old", 1) // from the database
				want(t, b, "g:old", 1)
				set(t, b, "g:meanwhile", 1, pgcache.Tags("g")) // it has not seen the removal
				want(t, b, "g:meanwhile", 1)
				commit(t, tx)
				for _, key := range []string{"g:old", "g:before", "g:meanwhile"} {
					wantNone(t, a, key)
				}
				want(t, a, "g:after", 1)
				eventually(t, "the other node knows", func() bool {
					_, old := get[int](t, b, "g:old")
					_, meanwhile := get[int](t, b, "g:meanwhile")
					return !old && !meanwhile
				})

				tx = begin(t, db, level)
				if err := test.remove(a.WithTx(tx)); err != nil {
					t.Fatal(err)
				}
				if err := tx.Rollback(); err != nil {
					t.Fatal(err)
				}
				want(t, a, "g:after", 1)
				warm(t, a, "g:after", 1)
				deleteTags(t, a, "g")
			}
		}
	})
}

// TestGroups_Overtaken: whatever a removal overtakes is not kept: a read with its reply on the way, a load whose loader runs, and one
// that is being stored.
func TestGroups_Overtaken(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]func(t *testing.T, c *pgcache.Cache){
		"tags":   func(t *testing.T, c *pgcache.Cache) { t.Helper(); deleteTags(t, c, "g") },
		"prefix": func(t *testing.T, c *pgcache.Cache) { t.Helper(); deletePrefix(t, c, "k") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			forWindows(t, func(t *testing.T, cl *cluster) {
				other := cl.node(nil)
				c, w := cl.wired(nil)
				sees := func() { // c has applied what other has published
					t.Helper()
					set(t, other, "mark", 1)
					warm(t, c, "mark", 1)
					del(t, other, "mark")
					eventually(t, "the node has caught up", func() bool { _, found := get[int](t, c, "mark"); return !found })
				}
				load := func(key string, f func() int) error {
					return c.GetOrSet(t.Context(), key, new(int), func(context.Context) (any, error) { return f(), nil }, pgcache.Tags("g"))
				}
				// A read whose reply is on its way.
				set(t, other, "k", 1, pgcache.Tags("g"))
				held := w.after(named("GetEntry"))
				read := async(t, func() int { v, _ := get[int](t, c, "k"); return v })
				held.wait(t)
				w.mu.Lock()
				w.stops = nil
				w.mu.Unlock()
				remove(t, other)
				sees()
				held.release()
				if v := read(); v != 1 {
					t.Errorf("the read returned %d", v)
				}
				wantNone(t, c, "k")

				// A loader that runs, which has read what was there before.
				err := load("k", func() int { remove(t, other); return 1 })
				if err != nil {
					t.Fatal(err)
				}
				wantNone(t, c, "k")
				wantNone(t, other, "k")
				// Where a removal was known before the loader began, the load stores.
				eventually(t, "it is stored", func() bool { // once more where a server that stalls keeps the fence from being had
					if err := load("k", func() int { return 2 }); err != nil {
						t.Fatal(err)
					}
					v, found := get[int](t, other, "k")
					return found && v == 2
				})

				// A Set whose reply is on its way.
				held = w.after(named("PutEntr"))
				write := async(t, func() error { return c.Set(t.Context(), "k", 3, pgcache.Tags("g")) })
				held.wait(t)
				w.mu.Lock()
				w.stops = nil
				w.mu.Unlock()
				remove(t, other)
				sees()
				held.release()
				if err := write(); err != nil {
					t.Fatal(err)
				}
				wantNone(t, c, "k")
			})
		})
	}
}

// TestGroups_Hidden: where keys are hidden no message has a tag's name or a prefix.
func TestGroups_Hidden(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	hide := func(_ *sql.DB, o *pgcache.Options) { o.HideKeys = true }
	a, b := cl.node(hide), cl.node(hide)
	set(t, a, "secret:1", 1, pgcache.Tags("hush"))
	set(t, a, "secret:2", 2)
	for _, c := range []*pgcache.Cache{a, b} {
		warm(t, c, "secret:1", 1)
		warm(t, c, "secret:2", 2)
	}
	deleteTags(t, a, "hush")
	eventually(t, "the tag is gone", func() bool { _, found := get[int](t, b, "secret:1"); return !found })
	warm(t, b, "secret:2", 2)
	deletePrefix(t, a, "secret:")
	eventually(t, "the prefix is gone", func() bool { _, found := get[int](t, b, "secret:2"); return !found })
}

// TestGroups_SQL: the functions for others, and changes by hand.
func TestGroups_SQL(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	cl.exec("SELECT " + cl.object("cache_set") + "('s:1', '1', NULL, 'json', '{g,h}'), " + cl.object("cache_set") + "('s:2', '2')")
	warm(t, c, "s:1", 1)
	warm(t, c, "s:2", 2)
	cl.exec("SELECT " + cl.object("cache_delete_tags") + "('{h}')")
	eventually(t, "the tag is gone", func() bool { _, found := get[int](t, c, "s:1"); return !found })
	want(t, c, "s:2", 2)
	cl.exec("SELECT " + cl.object("cache_delete_prefix") + "('s:')")
	eventually(t, "the prefix is gone", func() bool { _, found := get[int](t, c, "s:2"); return !found })
	// A change by hand that leaves the value does not bring it back, and one that does not, does.
	cl.exec("UPDATE " + cl.table() + " SET expires_at = now() + interval '1 hour' WHERE key = 's:1'")
	wantNone(t, c, "s:1")
	cl.exec("UPDATE " + cl.table() + " SET value = '3' WHERE key = 's:1'")
	want(t, c, "s:1", 3)
	cl.exec("INSERT INTO " + cl.table() + " (key, value, tags) VALUES ('s:3', '3', '{h}')")
	want(t, c, "s:3", 3)
	for _, bad := range []string{"cache_delete_tags('{\"\"}')", "cache_delete_prefix('')", "cache_set('k', '1', tags => '{\"\"}')"} {
		name, args, _ := strings.Cut(bad, "(")
		if _, err := cl.db.ExecContext(t.Context(), "SELECT "+cl.object(name)+"("+args); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

// TestGroups_Retire: the janitor removes the rows of removed groups and then the records, but not while a transaction may still write
// what it read before.
func TestGroups_Retire(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.CleanupInterval, o.CleanupBatch = 50*time.Millisecond, 7 })
	records := func() int { return cl.count("SELECT count(*) FROM " + cl.object("cache_groups")) }
	// Its snapshot is from before the removal, and it has no id yet.
	tx := begin(t, cl.db, sql.LevelRepeatableRead)
	if _, err := tx.Exec("SELECT 1 FROM " + cl.table()); err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		set(t, c, fmt.Sprint("k", i), i, pgcache.Tags("g"))
	}
	set(t, c, "stays", 1)
	deleteTags(t, c, "g")
	horizon := func() {
		for range 2 {
			cl.exec("UPDATE " + cl.object("cache_state") + " SET next_at = '-infinity'")
			before := cl.count("SELECT coalesce(ended_before::text::bigint, 0) FROM " + cl.object("cache_state"))
			eventually(t, "the janitor has noted which transactions have ended", func() bool {
				return cl.count("SELECT count(*) FROM "+cl.object("cache_state")+" WHERE next_at > '-infinity' AND coalesce(ended_before::text::bigint, 0) >= $1", before) == 1
			})
		}
	}
	horizon()
	horizon()
	if records() != 1 {
		t.Fatal("the record is gone while a snapshot does not show it")
	}
	if err := c.WithTx(tx).Set(t.Context(), "late", 1, pgcache.Tags("g")); err != nil {
		t.Fatal(err)
	}
	commit(t, tx)
	wantNone(t, c, "late")
	eventually(t, "rows and record are gone", func() bool {
		horizon()
		return records() == 0 && cl.count("SELECT count(*) FROM "+cl.table()) == 1
	})
	want(t, c, "stays", 1)
	wantNone(t, c, "late")
}

// TestGroups_Misuse: what can't be is refused before any SQL, also by Null.
func TestGroups_Misuse(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	for _, c := range []*pgcache.Cache{cl.node(nil), pgcache.Null()} {
		ctx := t.Context()
		many := make([]string, pgcache.MaxTags+1)
		for i := range many {
			many[i] = fmt.Sprint(i)
		}
		for name, err := range map[string]error{
			"empty":          c.Set(ctx, "k", 1, pgcache.Tags("")),
			"long":           c.Set(ctx, "k", 1, pgcache.Tags(strings.Repeat("t", pgcache.MaxTagBytes+1))),
			"NUL":            c.Set(ctx, "k", 1, pgcache.Tags("a\x00b")),
			"not UTF-8":      c.DeleteTags(ctx, "\xff"),
			"too many":       c.Set(ctx, "k", 1, pgcache.Tags(many...)),
			"of the view":    pgcache.For[int](c, pgcache.Tags("")).Set(ctx, "k", 1),
			"view and call":  pgcache.For[int](c, pgcache.Tags(many[:20]...)).Set(ctx, "k", 1, pgcache.Tags(many[13:]...)),
			"delete the lot": c.DeleteTags(ctx, "ok", ""),
		} {
			if !errors.Is(err, pgcache.ErrInvalidTag) {
				t.Errorf("%s: %v", name, err)
			}
		}
		wantErr(t, c.DeletePrefix(ctx, ""), pgcache.ErrInvalidKey)
		wantErr(t, c.DeletePrefix(ctx, strings.Repeat("p", pgcache.MaxKeyBytes+1)), pgcache.ErrInvalidKey)
		if err := pgcache.For[int](c).Clear(ctx); err == nil {
			t.Error("a view without a namespace is cleared")
		}
		if err := errors.Join(c.Set(ctx, "k", 1, pgcache.Tags(many[:32]...)), c.DeleteTags(ctx), c.DeleteTags(ctx, many...)); err != nil {
			t.Error(err)
		}
	}
}

package pgcache_test

import (
	"strings"
	"testing"

	"github.com/pgcache/go/pgcache"
)

// HashKey makes a valid key of anything, the same of the same and another of another.
func TestHashKey(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	seen := map[string]string{}
	for i, s := range []string{
		"user:1", "", "a\x00b", "\xff\xfe", strings.Repeat("x", 200), strings.Repeat("x", 201), strings.Repeat("x", 4000), strings.Repeat("x", 4001),
		"https://example.com/a?b=" + strings.Repeat("c", 3000), "a~sha256~b", pgcache.HashKey(""), "ab:" + strings.Repeat("é", 500), "\u202e", ":", "~sha256~",
	} {
		key := pgcache.HashKey(s)
		if other, ok := seen[key]; ok {
			t.Errorf("%.40q and %.40q have one key", s, other)
		}
		seen[key] = s
		set(t, c, key, i)
		want(t, c, key, i)
		view := pgcache.For[int](c, pgcache.Namespace(strings.Repeat("n", 512)))
		if err := view.Set(t.Context(), key, i); err != nil {
			t.Error(err)
		}
		if key != pgcache.HashKey(s) {
			t.Error("it changes")
		}
	}
	if k := pgcache.HashKey("user:1"); k != "user:1" {
		t.Errorf("a good key becomes %q", k)
	}
}

func FuzzHashKey(f *testing.F) {
	for _, s := range []string{"", "k", "\xff", strings.Repeat("y", 300)} {
		f.Add(s)
	}
	c := pgcache.Null()
	f.Fuzz(func(t *testing.T, s string) {
		key := pgcache.HashKey(s)
		if _, err := c.Get(t.Context(), key, new(int)); err != nil {
			t.Errorf("%q of %q: %v", key, s, err)
		}
	})
}

// Migrate does not rewrite a table whose persistence is another than Durable says, and does not say that all is well.
func TestDurableMismatch(t *testing.T) {
	t.Parallel()
	for _, durable := range []bool{false, true} {
		cl := newCluster(t)
		cl.opts.Durable = durable
		cl.node(nil)
		cl.opts.Durable = !durable
		c := cl.new(cl.db, nil)
		err := c.Migrate(t.Context())
		if err == nil || !strings.Contains(err.Error(), "ALTER TABLE") {
			t.Fatal(err)
		}
		cl.exec(err.Error()[strings.Index(err.Error(), "ALTER TABLE"):strings.Index(err.Error(), ", which")])
		if err := c.Migrate(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// A state whose row was removed is an error at once, from Ready too.
func TestEmptyState(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	cl.node(nil)
	cl.exec("DELETE FROM " + cl.object("cache_state"))
	c := cl.new(cl.db, nil)
	wantErr(t, c.Ready(t.Context()), pgcache.ErrNotMigrated)
}

package pgcache_test

import (
	"context"
	"testing"

	"github.com/pgcache/go/pgcache"
)

// While REINDEX CONCURRENTLY runs, an INSERT ... ON CONFLICT may fail with 23505 where another inserts the same key. Nothing was done, and
// what is sent again succeeds: callers get no error. Here a trigger fails the first of each.
func TestReindexConcurrently(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c, ctx := cl.node(nil), t.Context()
	cl.exec("CREATE SEQUENCE " + cl.opts.Schema + ".tried")
	cl.exec("CREATE FUNCTION " + cl.opts.Schema + ".fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('" + cl.opts.Schema +
		".tried') = 1 THEN RAISE unique_violation; END IF; RETURN NEW; END $$")
	cl.exec("CREATE TRIGGER fail BEFORE INSERT ON " + cl.table() + " FOR EACH ROW EXECUTE FUNCTION " + cl.opts.Schema + ".fail()")
	for what, do := range map[string]func() error{
		"Set":         func() error { return c.Set(ctx, "set", 1) },
		"Delete":      func() error { return c.Delete(ctx, "deleted") },
		"SetIfAbsent": func() error { _, err := c.SetIfAbsent(ctx, "absent", 1); return err },
		"Increment":   func() error { _, err := c.Increment(ctx, "counter", 1); return err },
		"Update": func() error {
			_, err := pgcache.For[int](c, pgcache.Namespace("n")).Update(ctx, "k", func(int, bool) (int, error) { return 1, nil })
			return err
		},
		"GetOrSet": func() error {
			err := c.GetOrSet(ctx, "loaded", new(int), func(context.Context) (any, error) { return 1, nil })
			want(t, c, "loaded", 1) // it was stored
			return err
		},
	} {
		cl.exec("ALTER SEQUENCE " + cl.opts.Schema + ".tried RESTART")
		if err := do(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if n := cl.count("SELECT last_value FROM " + cl.opts.Schema + ".tried"); n != 2 {
			t.Errorf("%s was tried %d times", what, n)
		}
	}
}

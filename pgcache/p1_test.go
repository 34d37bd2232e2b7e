package pgcache_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// P1 where the answer to a read or a write of this node comes after the news of a later write: it must not fill the
// memory. Nothing else happens in between.
func TestP1_FillOvertaken(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		for name, tt := range map[string]struct {
			query string
			run   func(ctx context.Context, c *pgcache.Cache) error
		}{
			"Get": {"GetEntry", func(ctx context.Context, c *pgcache.Cache) error { _, err := c.Get(ctx, "k", new(int)); return err }},
			"Get typed": {"GetEntry", func(ctx context.Context, c *pgcache.Cache) error {
				_, _, err := pgcache.For[int](c).Get(ctx, "k")
				return err
			}},
			"GetMany": {"GetEntries", func(ctx context.Context, c *pgcache.Cache) error {
				_, err := pgcache.For[int](c).GetMany(ctx, []string{"j", "k"})
				return err
			}},
			"Set": {"PutEntry", func(ctx context.Context, c *pgcache.Cache) error { return c.Set(ctx, "k", 1) }},
			"SetMany": {"PutEntries", func(ctx context.Context, c *pgcache.Cache) error {
				return pgcache.For[int](c).SetMany(ctx, map[string]int{"j": 1, "k": 1})
			}},
			"GetOrSet": {"StoreLoaded", func(ctx context.Context, c *pgcache.Cache) error {
				return c.GetOrSet(ctx, "k", new(int), func(context.Context) (any, error) { return 1, nil })
			}},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				cl := newCluster(t)
				cl.opts.InvalidationWindow = pgcache.Immediate // so that what is published comes in the order of the writes
				a := cl.node(nil)
				db, w := openWire(t, driver, testdb.DSN(t))
				b := cl.on(db, func(o *pgcache.Options) { o.Listener = listenerOf(driver, db, testdb.DSN(t)) })
				set(t, a, "k", 0)
				if name == "GetOrSet" {
					del(t, a, "k")
				}
				caughtUp := cl.follow(a, b, w)
				held := w.after(named(tt.query))
				own := async(t, func() error { return tt.run(t.Context(), b) })
				held.wait(t)
				set(t, a, "k", 2)
				caughtUp()
				held.release()
				if err := own(); err != nil {
					t.Fatal(err)
				}
				// What is kept for one is not for the other.
				if v, found, err := pgcache.For[int](b).Get(t.Context(), "k"); v != 2 || !found || err != nil {
					t.Errorf("%v, %v, %v, want 2", v, found, err)
				}
				want(t, b, "k", 2)
			})
		}
	})
}

// P1: a GetOrSet that begins after an invalidation was applied gets nothing from a load that looked at the row before.
func TestP1_LoadsFromBefore(t *testing.T) {
	t.Parallel()
	for name, forget := range map[string]func(cl *cluster, a *pgcache.Cache){
		"Delete":   func(cl *cluster, a *pgcache.Cache) { del(cl.t, a, "k") },
		"Clear":    func(cl *cluster, a *pgcache.Cache) { _ = a.Clear(cl.t.Context()) },
		"TRUNCATE": func(cl *cluster, _ *pgcache.Cache) { cl.exec("TRUNCATE " + cl.table()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			forGuards(t, func(t *testing.T, cl *cluster) {
				cl.opts.InvalidationWindow = pgcache.Immediate // so that what is published comes in the order of the writes
				a := cl.node(nil)
				b, w := cl.wired(nil)
				caughtUp := cl.follow(a, b, w)
				held, own := looked(t, b, a, w, 1)
				before := b.Stats().LocalFlushes
				forget(cl, a)
				if name != "Delete" {
					eventually(t, "b forgets everything", func() bool { return b.Stats().LocalFlushes > before })
				}
				caughtUp()
				got := outcome(2, nil)
				_ = w.without(held, func() error {
					got = joining(t, held, func() string { return outcome(loaded(b, "k", 2)) })
					return nil
				})
				if got != outcome(2, nil) {
					t.Errorf("a GetOrSet that began after the invalidation: %s", got)
				}
				if got := own(); got != outcome(1, nil) {
					t.Errorf("the first GetOrSet: %s", got)
				}
				want(t, b, "k", 2)
			})
		})
	}
}

// The tests named TestPn hold what is promised of coherence, each against the interleaving that would break it.

// P1: after a node applied an invalidation, no Get that starts later on it returns anything older: not even one that
// finds an older read of the same key under way.
func TestP1_JoinsNoReadFromBefore(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func(ctx context.Context, c *pgcache.Cache) (string, error){
		"Get": func(ctx context.Context, c *pgcache.Cache) (v string, err error) {
			_, err = c.Get(ctx, "k", &v)
			return v, err
		},
		"GetMany": func(ctx context.Context, c *pgcache.Cache) (string, error) {
			m, err := pgcache.For[string](c).GetMany(ctx, []string{"k", "l"})
			return m["k"], err
		},
		"GetOrSet": func(ctx context.Context, c *pgcache.Cache) (v string, err error) {
			err = c.GetOrSet(ctx, "k", &v, func(context.Context) (any, error) { return "", errors.New("it is there") })
			return v, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			a := cl.node(nil)
			b, wire := cl.wired(nil)
			set(t, a, "k", "v1")
			caughtUp := cl.follow(a, b, wire)
			reply := wire.after("cache_entries")
			first := async(t, func() string { v, err := read(t.Context(), b); return fmt.Sprint(v, err) })
			reply.wait(t)
			set(t, a, "k", "v2")
			caughtUp()
			if err := wire.unstopped(func() error {
				v, err := read(t.Context(), b)
				if v != "v2" {
					t.Errorf("a read that began after the invalidation returned %q", v)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			reply.release()
			if got := first(); got != "v1<nil>" {
				t.Errorf("the first read: %s", got)
			}
			want(t, b, "k", "v2")
			want(t, b, "k", "v2")
		})
	}
}

// P1 again, for "forget everything": a read from before must not fill the memory.
func TestP1_ForgetKillsReads(t *testing.T) {
	t.Parallel()
	for name, forget := range map[string]func(cl *cluster, a *pgcache.Cache){
		"Clear":    func(_ *cluster, a *pgcache.Cache) { _ = a.Clear(context.Background()) },
		"TRUNCATE": func(cl *cluster, _ *pgcache.Cache) { cl.exec("TRUNCATE " + cl.table()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			a := cl.node(nil)
			b, wire := cl.wired(nil)
			set(t, a, "k", "v1")
			reply := wire.after(named("GetEntry"))
			first := async(t, func() error { _, err := b.Get(t.Context(), "k", new(string)); return err })
			reply.wait(t)
			before := b.Stats().LocalFlushes
			forget(cl, a)
			eventually(t, "b forgets everything", func() bool { return b.Stats().LocalFlushes > before })
			reply.release()
			if err := first(); err != nil {
				t.Fatal(err)
			}
			wantNone(t, b, "k")
		})
	}
}

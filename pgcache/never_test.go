package pgcache_test

import (
	"context"
	"testing"
	"time"

	"github.com/pgcache/go/pgcache"
)

// TestLocalNever: nobody keeps what a view with LocalNever stores, so whoever reads sees each write at once, and what is in memory from
// before, of the same key, goes like after any other write.
func TestLocalNever(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)
	ctx := t.Context()
	never, plain := pgcache.For[int](a, pgcache.LocalNever()), pgcache.For[int](b)
	wants := func(want int) {
		t.Helper()
		if n, found, err := plain.Get(ctx, "k"); err != nil || !found || n != want {
			t.Fatalf("it is %d, %v, %v; want %d", n, found, err, want)
		}
	}
	ok(t, never.Set(ctx, "k", 0))
	for n := 1; n <= 20; n++ {
		ok(t, never.Set(ctx, "k", n))
		wants(n)
	}
	for name, write := range map[string]func() error{
		"SetMany":   func() error { return never.SetMany(ctx, map[string]int{"k": 100, "l": 100}) },
		"Increment": func() error { _, err := a.Increment(ctx, "k", 1, pgcache.LocalNever()); return err },
		"Update": func() error {
			_, err := never.Update(ctx, "k", func(n int, _ bool) (int, error) { return n + 1, nil })
			return err
		},
		"Touch": func() error { _, err := never.Touch(ctx, "k", time.Hour); return err },
	} {
		before, _, err := never.Get(ctx, "k")
		ok(t, err)
		ok(t, write())
		after, _, err := never.Get(ctx, "k")
		ok(t, err)
		if name != "Touch" && before == after {
			t.Error(name, before, after)
		}
		wants(after)
	}
	for _, c := range []*pgcache.Cache{a, b} {
		if hits := c.Stats().LocalHits; hits != 0 {
			t.Errorf("%d hits in memory of what is never there", hits)
		}
	}

	// Through a view without the option it becomes an entry like any, and goes from memory when it is written with the option.
	ok(t, pgcache.For[int](a).Set(ctx, "k", 1000))
	eventually(t, "it is kept", func() bool { wants(1000); return b.Stats().LocalHits > 0 })
	ok(t, never.Set(ctx, "k", 1001))
	eventually(t, "it is written over", func() bool { n, _, err := plain.Get(ctx, "k"); return err == nil && n == 1001 })
	ok(t, never.Set(ctx, "k", 1002))
	wants(1002)
}

// A load of a view with LocalNever is stored for all, and kept by none; callers that came after another node's Set are not answered
// with what was loaded before it.
func TestLocalNever_Load(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)
	ctx := t.Context()
	on := func(c *pgcache.Cache) *pgcache.Typed[int] { return pgcache.For[int](c, pgcache.LocalNever()) }
	ok(t, on(b).Set(ctx, "k", 1, pgcache.TTL(time.Millisecond)))
	eventually(t, "it has expired", func() bool { _, found, err := on(b).Get(ctx, "k"); return err == nil && !found })
	begun, release := make(chan struct{}), make(chan struct{})
	first := async(t, func() error {
		n, err := on(a).GetOrSet(ctx, "k", func(context.Context) (int, error) {
			close(begun)
			<-release
			return 2, nil
		})
		if err == nil && n != 2 && n != 3 {
			t.Errorf("the load answers %d", n)
		}
		return err
	})
	<-begun
	ok(t, on(b).Set(ctx, "k", 3)) // nobody hears of it
	if n, err := on(a).GetOrSet(ctx, "k", func(context.Context) (int, error) { return 4, nil }); err != nil || n != 3 {
		t.Errorf("after the Set it is %d, %v", n, err)
	}
	close(release)
	ok(t, first())
	if n, _, err := on(a).Get(ctx, "k"); err != nil || n != 3 {
		t.Error(n, err)
	}
}

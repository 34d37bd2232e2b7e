package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/pgcache"
)

func TestBasics(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)

	var got user
	if found, err := a.Get(ctx, "user:1", &got); found || err != nil {
		t.Fatal(found, err)
	}
	if err := a.Set(ctx, "user:1", user{1, "Ann", []string{"x"}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if found, err := b.Get(ctx, "user:1", &got); !found || err != nil || got.Name != "Ann" {
			t.Fatal(found, err, got)
		}
	}
	if s := b.Stats(); s.LocalHits != 1 || s.RemoteHits != 1 {
		t.Fatalf("%+v", s)
	}
	users := pgcache.For[user](b, pgcache.Namespace("user"))
	if u, found, err := users.Get(ctx, "1"); !found || err != nil || u.Name != "Ann" {
		t.Fatal(u, found, err)
	}
	if err := a.Set(ctx, "user:1", user{1, "Bea", nil}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b sees a's write", func() bool {
		u, _, err := users.Get(ctx, "1")
		return err == nil && u.Name == "Bea"
	})
	if err := a.Delete(ctx, "user:1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b sees a's delete", func() bool {
		_, found, err := users.Get(ctx, "1")
		return err == nil && !found
	})
	u, err := users.GetOrSet(ctx, "1", func(context.Context) (user, error) { return user{Name: "Cid"}, nil })
	if err != nil || u.Name != "Cid" {
		t.Fatal(u, err)
	}
	if u, found, err := users.Get(ctx, "1"); !found || u.Name != "Cid" || err != nil {
		t.Fatal(u, found, err)
	}
	all, err := users.GetOrSetMany(ctx, []string{"1", "2", "3"}, func(_ context.Context, missing []string) (map[string]user, error) {
		if len(missing) != 2 {
			t.Errorf("missing %v", missing)
		}
		return map[string]user{"2": {Name: "Two"}, "3": {Name: "Three"}}, nil
	})
	if err != nil || len(all) != 3 || all["2"].Name != "Two" {
		t.Fatal(all, err)
	}
	if all, err = users.GetMany(ctx, []string{"1", "2", "3", "4"}); err != nil || len(all) != 3 {
		t.Fatal(all, err)
	}
	for _, key := range []string{"a:b:c", ":a", "a:", ":", "plain"} {
		var v string
		if err := a.GetOrSet(ctx, key, &v, func(context.Context) (any, error) { return key, nil }); err != nil || v != key {
			t.Fatal(key, v, err)
		}
	}
	if err := a.Clear(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b sees a's clear", func() bool {
		all, err := users.GetMany(ctx, []string{"1", "2", "3"})
		return err == nil && len(all) == 0
	})
}

func TestOneLoadInTheFleet(t *testing.T) {
	t.Parallel()
	const nodes, callers, loader = 8, 200, 300 * time.Millisecond
	cl := newCluster(t)
	cl.opts.LockTimeout = time.Minute // after it a second load is in order
	var loads atomic.Int64
	var wg sync.WaitGroup
	var caches []*pgcache.Cache
	var dbs []*sql.DB
	for range nodes {
		caches = append(caches, cl.node(func(db *sql.DB, _ *pgcache.Options) {
			db.SetMaxOpenConns(4)
			dbs = append(dbs, db)
		}))
	}
	began := time.Now()
	for i, c := range caches {
		for range callers {
			wg.Go(func() {
				var v int
				err := c.GetOrSet(t.Context(), "cold", &v, func(ctx context.Context) (any, error) {
					loads.Add(1)
					time.Sleep(loader)
					var one int
					err := dbs[i].QueryRowContext(ctx, "SELECT 1").Scan(&one)
					return 42, err
				})
				if err != nil || v != 42 {
					t.Errorf("%v, %v", v, err)
				}
			})
		}
	}
	wg.Wait()
	if took := time.Since(began); took > 20*time.Second { // who waits in vain waits for LockTimeout
		t.Errorf("took %v", took)
	}
	if n := loads.Load(); n != 1 {
		t.Errorf("%d loads", n)
	}
}

func TestNotMigrated(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.start(nil)
	for name, err := range map[string]error{
		"ready": c.Ready(t.Context()),
		"set":   c.Set(t.Context(), "k", 1),
		"load":  c.GetOrSet(t.Context(), "k", new(int), func(context.Context) (any, error) { return 1, nil }),
	} {
		if !errors.Is(err, pgcache.ErrNotMigrated) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBoundedTable(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	other := cl.node(nil)
	for _, k := range []string{"a", "b", "c", "d", "e"} {
		if err := other.Set(t.Context(), k, k); err != nil {
			t.Fatal(err)
		}
	}
	cl.node(func(_ *sql.DB, o *pgcache.Options) { o.MaxRows, o.CleanupInterval = 2, 100*time.Millisecond })
	eventually(t, "the oldest rows are gone", func() bool { return cl.count("SELECT count(*) FROM "+cl.table()) == 2 })
	eventually(t, "and from memory", func() bool {
		found, err := other.Get(t.Context(), "a", new(string))
		return err == nil && !found
	})
	if found, err := other.Get(t.Context(), "e", new(string)); !found || err != nil {
		t.Error("the newest row is gone", err)
	}
	cl.node(func(_ *sql.DB, o *pgcache.Options) { o.MaxBytes, o.CleanupInterval = 150, 100*time.Millisecond })
	eventually(t, "bytes are bounded", func() bool { return cl.count("SELECT count(*) FROM "+cl.table()) == 1 })
}

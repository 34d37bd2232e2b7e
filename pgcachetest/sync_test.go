package pgcachetest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

func TestSync(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]pgcache.Options{
		"in the log":       {InvalidationWindow: time.Minute},
		"immediate":        {InvalidationWindow: pgcache.Immediate},
		"default":          {},
		"hidden":           {HideKeys: true},
		"poll":             {Listener: listener.Poll(20 * time.Millisecond)},
		"poll by a switch": {Listener: pgcachetest.NewListener(listener.Poll(20 * time.Millisecond))},
		"no listener":      {Listener: pgcachetest.NoListener},
		"a bounded memory": {Listener: pgcachetest.NoListener, LocalTTL: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := pgcachetest.Nodes(t, 3, opts)
			for i := range 20 {
				set(t, nodes[i%2].Cache, "k", i)
				set(t, nodes[i%2].Cache, "other", i)
				pgcachetest.Sync(t, nodes[1].Cache, nodes[2].Cache)
				want(t, nodes[1].Cache, "k", i)
				want(t, nodes[2].Cache, "k", i)
				if held := opts.Listener != pgcachetest.NoListener || opts.LocalTTL > 0; held && i%10 == 0 && !kept(t, nodes[2].Cache, "k", i) {
					t.Error("nothing is kept in memory, so nothing is shown")
				}
			}
		})
	}
}

// Programs make their caches themselves.
func TestSyncOfAProgramsCaches(t *testing.T) {
	t.Parallel()
	db := pgcachetest.DB(t)
	var caches []*pgcache.Cache
	for range 2 {
		c, err := pgcache.New(db, pgcache.Options{Listener: pgxdriver.Listener(db), InvalidationWindow: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		ready(t, c)
		caches = append(caches, c)
	}
	for i := range 3 {
		set(t, caches[0], "k", i)
		pgcachetest.Sync(t, caches...)
		if !kept(t, caches[1], "k", i) {
			t.Error("nothing is kept in memory")
		}
	}
	pgcachetest.Expire(t, caches[0], "k")
	pgcachetest.Sync(t, caches[1])
	wantNone(t, caches[1], "k")
	pgcachetest.Sync(t, pgcache.Null())
}

// Whoever wrote it: a transaction of the program's, or somebody at a psql prompt.
func TestSyncOfOtherWriters(t *testing.T) {
	t.Parallel()
	nodes := pgcachetest.Nodes(t, 2, pgcache.Options{Listener: newLate(t), InvalidationWindow: time.Minute})
	a, b := nodes[0], nodes[1].Cache
	set(t, a.Cache, "k", 0)
	for i := range 5 {
		if !kept(t, b, "k", 3*i) {
			t.Fatal("nothing is kept in memory")
		}
		tx, err := a.DB.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(a.WithTx(tx).Set(t.Context(), "k", 3*i+1), tx.Commit()); err != nil {
			t.Fatal(err)
		}
		pgcachetest.Sync(t, b)
		if !kept(t, b, "k", 3*i+1) {
			t.Fatal("nothing is kept in memory")
		}
		exec(t, a.DB, fmt.Sprintf("UPDATE cache_entries SET value = '%d'", 3*i+2))
		pgcachetest.Sync(t, b)
		want(t, b, "k", 3*i+2)
		set(t, a.Cache, "k", 3*i+3)
		pgcachetest.Sync(t, b)
	}
}

func TestSyncWithoutADatabase(t *testing.T) {
	t.Parallel()
	n := pgcachetest.Nodes(t, 1, pgcache.Options{})[0]
	n.Faults.Down()
	pgcachetest.Sync(t, n.Cache) // its listener is lost too: it holds nothing
	n.Close()
	pgcachetest.Sync(t, n.Cache)
}

func TestExpire(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]pgcache.Options{
		"listener":         {DefaultTTL: pgcache.NoExpiry},
		"late":             {Listener: newLate(t)},
		"hidden":           {HideKeys: true},
		"a bounded memory": {Listener: pgcachetest.NoListener, LocalTTL: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := pgcachetest.Nodes(t, 2, opts)
			a, b := nodes[0].Cache, nodes[1].Cache
			for i := range 10 {
				for key, value := range map[string]int{"u:1": 1, "u:2": 2, "u:3": 3} {
					set(t, a, key, value)
					pgcachetest.Sync(t, a, b)
					if !kept(t, a, key, value) || !hits(t, b, key, value) {
						t.Fatal("nothing is kept in memory")
					}
				}
				pgcachetest.Expire(t, nodes[i%2].Cache, "u:1", "u:2")
				for _, c := range []*pgcache.Cache{b, a} {
					wantNone(t, c, "u:2")
					wantNone(t, c, "u:1")
					want(t, c, "u:3", 3)
				}
			}
			view := pgcache.For[int](b, pgcache.Namespace("u"))
			if v, err := view.GetOrSet(t.Context(), "1", func(context.Context) (int, error) { return 11, nil }); v != 11 || err != nil {
				t.Errorf("%d, %v", v, err)
			}
			want(t, a, "u:1", 11)
		})
	}
	c := pgcachetest.New(t, pgcache.Options{})
	for _, bad := range []struct {
		c    *pgcache.Cache
		want string
	}{{c, `"1"`}, {pgcache.Null(), "Null"}} {
		err := pgcachetest.Do(func(tb pgcachetest.TB) { pgcachetest.Expire(tb, bad.c, "1") })
		if err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("got %v, want %s in it", err, bad.want)
		}
	}
}

package pgcache_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// TestManyWritesFewNotifications: what a fleet writes within a window is published together, and everybody receives it.
func TestManyWritesFewNotifications(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	cl := newCluster(t)
	var nodes []*pgcache.Cache
	for range 4 {
		nodes = append(nodes, cl.node(nil))
	}
	reader := cl.node(nil)
	const keys, rounds = 20, 40
	for i := range keys {
		if err := nodes[0].Set(ctx, fmt.Sprint("k", i), -1); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	began := time.Now()
	for n, c := range nodes {
		wg.Go(func() {
			for r := range rounds {
				for i := n; i < keys; i += len(nodes) {
					if err := c.Set(ctx, fmt.Sprint("k", i), r); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	for i := range keys {
		eventually(t, "the reader has received of all", func() bool {
			var v int
			found, err := reader.Get(ctx, fmt.Sprint("k", i), &v)
			return err == nil && found && v == rounds-1
		})
	}
	var sum pgcache.Stats
	for _, c := range nodes {
		s := c.Stats()
		sum.Flushes, sum.Messages, sum.Sets = sum.Flushes+s.Flushes, sum.Messages+s.Messages, sum.Sets+s.Sets
	}
	// On a busy machine there are few writes in a window.
	windows := uint64(took/pgcache.DefaultWindow) + 1
	if sum.Messages == 0 || sum.Messages > max(sum.Sets/4, 2*windows) {
		t.Errorf("%d writes were published in %d messages of %d flushes, in %d windows", sum.Sets, sum.Messages, sum.Flushes, windows)
	}
	eventually(t, "the log is empty", func() bool {
		return cl.count("SELECT count(*) FROM "+cl.opts.Schema+"."+cl.opts.Prefix+"cache_changes") == 0
	})
}

// TestChangesOfADeadNode: what a node left in the log is published by others.
func TestChangesOfADeadNode(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)
	if err := a.Set(ctx, "k", 1); err != nil {
		t.Fatal(err)
	}
	var v int
	if found, err := b.Get(ctx, "k", &v); !found || err != nil {
		t.Fatal(found, err)
	}
	// What a writer's statement leaves that dies before its flush; the system is awake, because it has received something.
	cl.exec("UPDATE " + cl.table() + " SET value = '2', version = version + 1, stamp = version + 1 WHERE key = 'k'")
	cl.exec("INSERT INTO " + cl.opts.Schema + "." + cl.opts.Prefix + "cache_changes (key, version) SELECT key, version FROM " + cl.table())
	cl.exec("SELECT pg_notify($1, '2')", cl.opts.Schema+"_"+cl.opts.Prefix+"cache_events")
	eventually(t, "a sweep has published it", func() bool {
		_, err := b.Get(ctx, "k", &v)
		return err == nil && v == 2
	})
}

func TestPoll(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	cl := newCluster(t)
	poller := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.Listener = listener.Poll(20 * time.Millisecond) })
	for name, window := range map[string]time.Duration{"window": 0, "immediate": pgcache.Immediate} {
		writer := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.InvalidationWindow = window })
		if err := writer.Set(ctx, name, 0); err != nil {
			t.Fatal(err)
		}
		var v int
		for i := 1; i < 20; i++ {
			if found, err := poller.Get(ctx, name, &v); !found || err != nil {
				t.Fatal(found, err)
			}
			if err := writer.Set(ctx, name, i); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the poller sees it", func() bool {
				_, err := poller.Get(ctx, name, &v)
				return err == nil && v == i
			})
		}
		if err := writer.Delete(ctx, name); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the poller sees the delete", func() bool {
			found, err := poller.Get(ctx, name, &v)
			return err == nil && !found
		})
		if err := writer.Set(ctx, name, 1); err != nil {
			t.Fatal(err)
		}
		eventually(t, "in memory", func() bool {
			before := poller.Stats().LocalHits
			_, err := poller.Get(ctx, name, &v)
			return err == nil && poller.Stats().LocalHits > before
		})
		cl.exec("UPDATE "+cl.table()+" SET value = '7' WHERE key = $1", name)
		eventually(t, "a change by hand", func() bool {
			_, err := poller.Get(ctx, name, &v)
			return err == nil && v == 7
		})
		if err := writer.Clear(ctx); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a clear", func() bool {
			found, err := poller.Get(ctx, name, &v)
			return err == nil && !found
		})
	}
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	cl := newCluster(t)
	a := cl.node(nil)
	b := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.Refresh = true })
	view := pgcache.For[int](b)
	for i := range 10 {
		if err := a.Set(ctx, "hot", i); err != nil {
			t.Fatal(err)
		}
		if err := a.Set(ctx, "cold", i); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the hot key is back in memory", func() bool {
			before := b.Stats()
			v, _, err := view.Get(ctx, "hot")
			after := b.Stats()
			return err == nil && v == i && after.LocalHits > before.LocalHits
		})
	}
	if s := b.Stats(); s.Refreshed == 0 {
		t.Errorf("%+v", s)
	}
}

// TestPrepared: with prepared statements everything works as without.
func TestPrepared(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.PrepareStatements = true })
	for i := range 3 {
		var v int
		if err := c.Set(t.Context(), "k", i); err != nil {
			t.Fatal(err)
		}
		if found, err := c.Get(t.Context(), "k", &v); !found || v != i || err != nil {
			t.Fatal(found, v, err)
		}
		if err := c.GetOrSet(t.Context(), fmt.Sprint("l", i), &v, func(context.Context) (any, error) { return i, nil }); err != nil || v != i {
			t.Fatal(v, err)
		}
	}
}

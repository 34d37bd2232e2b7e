package pgcache_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pgcache/go/pgcache"
)

// TestP6_Retagged: a removal of a tag refuses the value of a load that began before it also where the value does not have the tag, and the
// row that the load saw did. Other loads it does not refuse.
func TestP6_Retagged(t *testing.T) {
	t.Parallel()
	forGuards(t, func(t *testing.T, cl *cluster) {
		c, other := cl.node(nil), cl.node(nil)
		fetch := func(value int, err error, tags ...string) func(key string, before func()) error {
			return func(key string, before func()) error {
				_, errFetch := pgcache.For[int](c, pgcache.NegativeTTL(time.Hour)).Fetch(t.Context(), key, func(_ context.Context, l *pgcache.Load[int]) (int, error) {
					before()
					l.SetTags(tags...)
					return value, err
				})
				if errors.Is(errFetch, pgcache.ErrNotFound) && err != nil {
					errFetch = nil
				}
				return errFetch
			}
		}
		for name, load := range map[string]func(key string, before func()) error{
			"GetOrSet": func(key string, before func()) error {
				return c.GetOrSet(t.Context(), key, new(int), func(context.Context) (any, error) { before(); return 2, nil }, pgcache.Tags("b"))
			},
			"GetOrSetMany": func(key string, before func()) error {
				_, err := pgcache.For[int](c, pgcache.Tags("b")).GetOrSetMany(t.Context(), []string{key, key + "'"}, func(context.Context, []string) (map[string]int, error) {
					before()
					return map[string]int{key: 2, key + "'": 2}, nil
				})
				return err
			},
			"Fetch":    fetch(2, nil, "b", "c"),
			"no tag":   fetch(2, nil),
			"some":     fetch(2, nil, "b", "kept"),
			"negative": fetch(0, pgcache.ErrNotFound, "b"),
		} {
			old := func(key string) {
				set(t, other, key, 1, pgcache.Tags("a:"+key, "kept"))
				set(t, other, key+"'", 1, pgcache.Tags("kept"))
				cl.expire("key IN ('" + key + "', '" + key + "''')")
			}
			for _, gone := range []bool{false, true} {
				key := name
				if gone {
					key += ", gone"
				}
				old(key)
				fenced := c.Stats().Fenced
				if err := load(key, func() {
					if gone {
						cl.exec("SELECT " + cl.object("cache_expire") + "(0, 1000, clock_timestamp(), 1000, false)")
					}
					deleteTags(t, other, "a:"+key)
				}); err != nil {
					t.Fatal(key, err)
				}
				if n := cl.count("SELECT count(*) FROM "+cl.table()+" WHERE key = $1 AND expires_at > clock_timestamp() AND NOT coalesce('a:' || key = ANY (tags), false)", key); n > 0 {
					t.Errorf("%s: it was stored (fenced: %d)", key, c.Stats().Fenced-fenced)
				}
				wantNone(t, other, key)
			}
			// A load that began after the removal stores, one under which other groups were removed too.
			key := name + ", later"
			old(key)
			deleteTags(t, other, "a:"+key)
			eventually(t, name+" is stored", func() bool { // once more where a server that stalls keeps the fence from being had
				if err := load(key, func() { deleteTags(t, other, "none") }); err != nil {
					t.Fatal(key, err)
				}
				return cl.count("SELECT count(*) FROM "+cl.table()+" WHERE key = $1 AND (expires_at IS NULL OR expires_at > clock_timestamp())", key) == 1
			})
		}
	})
}

// TestP6_RetaggedByRefresh: the same of a load in the background.
func TestP6_RetaggedByRefresh(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c, other := cl.node(nil), cl.node(nil)
	view := pgcache.For[int](c, pgcache.TTL(10*time.Minute), pgcache.RefreshAfter(0.5), pgcache.Tags("b"))
	set(t, other, "k", 1, pgcache.Tags("a"), pgcache.TTL(3*time.Minute)) // due at once
	loading, removed := make(chan struct{}, 1000), make(chan struct{})
	eventually(t, "a load begins", func() bool {
		if v, err := view.GetOrSet(t.Context(), "k", func(context.Context) (int, error) {
			loading <- struct{}{}
			<-removed
			return 2, nil
		}); err != nil || v != 1 {
			t.Fatal(v, err)
		}
		return len(loading) > 0
	})
	deleteTags(t, other, "a")
	close(removed)
	cl.noLocks() // it has ended
	wantNone(t, other, "k")
	eventually(t, "it is gone here too", func() bool { _, found := get[int](t, c, "k"); return !found })
}

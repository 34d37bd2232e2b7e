package pgcache_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// A negative entry is a row, and no value: what depends on whether there is a value finds none, and what walks over the values leaves
// it out.
func TestNegativeEntryIsNoValue(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		c := cl.on(testdb.Open(t, driver, testdb.DSN(t)), nil)
		other := cl.node(nil)
		ctx := t.Context()
		negative := pgcache.For[int](c, pgcache.NegativeTTL(time.Minute))
		plain := pgcache.For[int](c)
		none := func(key string) {
			t.Helper()
			_, err := negative.GetOrSet(ctx, key, func(context.Context) (int, error) { return 0, pgcache.ErrNotFound })
			if !errors.Is(err, pgcache.ErrNotFound) {
				t.Fatal(err)
			}
			if n := cl.count("SELECT count(*) FROM "+cl.table()+" WHERE key = $1 AND expires_at > clock_timestamp()", key); n != 1 {
				t.Fatalf("%d rows of %s", n, key)
			}
			// The other node has it in memory, and is to hear of what comes.
			eventually(t, "it is in memory", func() bool {
				_, err := pgcache.For[int](other, pgcache.NegativeTTL(time.Minute)).GetOrSet(ctx, key, func(context.Context) (int, error) { panic("a load") })
				return errors.Is(err, pgcache.ErrNotFound)
			})
		}
		seen := func(key string, value int) {
			t.Helper()
			eventually(t, "the other node sees "+key, func() bool {
				v, err := pgcache.For[int](other, pgcache.NegativeTTL(time.Minute)).GetOrSet(ctx, key, func(context.Context) (int, error) { panic("a load") })
				return err == nil && v == value
			})
		}

		none("absent")
		if stored, err := c.SetIfAbsent(ctx, "absent", 1); !stored || err != nil {
			t.Errorf("SetIfAbsent: %v, %v", stored, err)
		} else {
			seen("absent", 1)
		}
		none("counter")
		if n, err := c.Increment(ctx, "counter", 2); n != 2 || err != nil {
			t.Errorf("Increment: %d, %v", n, err)
		} else {
			seen("counter", 2)
		}
		none("update")
		v, err := plain.Update(ctx, "update", func(old int, found bool) (int, error) {
			if old != 0 || found {
				t.Error("Update:", old, found)
			}
			return 3, nil
		})
		if v != 3 || err != nil {
			t.Errorf("Update: %d, %v", v, err)
		} else {
			seen("update", 3)
		}
		none("touch")
		if found, err := c.Touch(ctx, "touch", time.Hour); found || err != nil {
			t.Errorf("Touch: %v, %v", found, err)
		}
		if n := cl.count("SELECT count(*) FROM " + cl.table() + " WHERE key = 'touch' AND expires_at > clock_timestamp() + interval '2 min'"); n != 0 {
			t.Error("Touch has made a negative entry live for longer")
		}
		if e, found, err := plain.GetEntry(ctx, "touch"); found || err != nil {
			t.Errorf("GetEntry: %+v, %v", e, err)
		}
		for key, err := range c.Keys(ctx, "t") {
			t.Errorf("Keys: %q, %v", key, err)
		}
		for e, err := range plain.Entries(ctx) {
			if e.Key == "touch" || err != nil {
				t.Errorf("Entries: %+v, %v", e, err)
			}
		}
		if s := c.Stats(); s.DecodeErrors != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// What has expired and is kept for StaleFor is no value either.
func TestStaleRowIsNoValue(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.on(testdb.DB(t), nil)
	ctx := t.Context()
	view := pgcache.For[int](c, pgcache.StaleFor(time.Hour))
	for _, key := range []string{"absent", "counter", "update", "touch"} {
		if err := view.Set(ctx, key, 100); err != nil {
			t.Fatal(err)
		}
		cl.age(key)
	}
	if found, err := c.Touch(ctx, "touch", time.Hour); found || err != nil {
		t.Errorf("Touch: %v, %v", found, err)
	}
	if _, found, err := view.GetEntry(ctx, "touch"); found || err != nil {
		t.Errorf("GetEntry: %v, %v", found, err)
	}
	if got := keys(t, c, ""); len(got) != 0 {
		t.Errorf("Keys: %q", got)
	}
	for e, err := range view.Entries(ctx) {
		t.Errorf("Entries: %+v, %v", e, err)
	}
	if stored, err := c.SetIfAbsent(ctx, "absent", 1); !stored || err != nil {
		t.Errorf("SetIfAbsent: %v, %v", stored, err)
	}
	if n, err := c.Increment(ctx, "counter", 1); n != 1 || err != nil {
		t.Errorf("Increment: %d, %v", n, err)
	}
	v, err := pgcache.For[int](c).Update(ctx, "update", func(old int, found bool) (int, error) {
		if found {
			t.Error("Update:", old)
		}
		return 1, nil
	})
	if v != 1 || err != nil {
		t.Errorf("Update: %d, %v", v, err)
	}
	// They were written without StaleFor: nothing of them is stale later, nor is what they replaced.
	for _, key := range []string{"absent", "counter", "update"} {
		want(t, c, key, 1)
		cl.age(key)
		if v, err := view.GetOrSet(ctx, key, func(context.Context) (int, error) { return 0, errSource }); !errors.Is(err, errSource) {
			t.Errorf("%s: %d, %v", key, v, err)
		}
	}
}

package pgcache_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// A value from the background whose row somebody holds is a failure too: it is counted, and its loader is not called again every second.
func TestRefreshOfALockedRow(t *testing.T) {
	t.Parallel()
	forGuards(t, func(t *testing.T, cl *cluster) {
		c := cl.node(nil)
		v := pgcache.For[string](c, pgcache.TTL(10*time.Minute), pgcache.RefreshAfter(0.5))
		if err := v.Set(t.Context(), "k", "old", pgcache.TTL(3*time.Minute)); err != nil { // due at once
			t.Fatal(err)
		}
		tx, err := cl.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback() //nolint:errcheck // it ends the lock
		if _, err := tx.ExecContext(t.Context(), "SELECT FROM "+cl.table()+" FOR UPDATE"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is counted", func() bool {
			if s, err := v.GetOrSet(t.Context(), "k", returns("new")); err != nil || s != "old" {
				t.Fatal(s, err)
			}
			return c.Stats().EarlyErrors == 1
		})
	})
}

// A loader of many keys in the background that returns ErrNotFound does not say which of them it means: that is a failure.
func TestRefreshOfManyFindsNothing(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.on(testdb.DB(t), nil)
	v := pgcache.For[string](c, pgcache.TTL(10*time.Minute), pgcache.RefreshAfter(0.5), pgcache.NegativeTTL(time.Minute))
	keys := []string{"a", "b"}
	if err := v.SetMany(t.Context(), map[string]string{"a": "old", "b": "old"}, pgcache.TTL(3*time.Minute)); err != nil { // due at once
		t.Fatal(err)
	}
	eventually(t, "it is counted", func() bool {
		m, err := v.GetOrSetMany(t.Context(), keys, func(context.Context, []string) (map[string]string, error) { return nil, pgcache.ErrNotFound })
		if err != nil || m["a"] != "old" || m["b"] != "old" {
			t.Fatal(m, err)
		}
		return c.Stats().EarlyErrors == 1
	})
}

// That there is nothing is of the groups which the loader has named, as a value would be.
func TestNegativeEntryOfTags(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)
	va, vb := pgcache.For[string](a, pgcache.NegativeTTL(time.Hour)), pgcache.For[string](b, pgcache.NegativeTTL(time.Hour))
	nothing := func(_ context.Context, l *pgcache.Load[string]) (string, error) {
		l.SetTags("shelf")
		return "", fmt.Errorf("no such book: %w", pgcache.ErrNotFound)
	}
	if _, err := va.Fetch(t.Context(), "k", nothing); !errors.Is(err, pgcache.ErrNotFound) {
		t.Fatal(err)
	}
	deleteTags(t, b, "shelf")
	if s, err := vb.GetOrSet(t.Context(), "k", returns("there")); err != nil || s != "there" {
		t.Error(s, err)
	}
}

package pgcachetest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/localcache"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

func set(t *testing.T, c *pgcache.Cache, key string, value int) {
	t.Helper()
	if err := c.Set(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, c *pgcache.Cache, key string, value int) {
	t.Helper()
	var got int
	if found, err := c.Get(t.Context(), key, &got); !found || got != value || err != nil {
		t.Fatalf("%s is %d (found: %v, error: %v), want %d", key, got, found, err, value)
	}
}

func wantNone(t *testing.T, c *pgcache.Cache, key string) {
	t.Helper()
	var got any
	if found, err := c.Get(t.Context(), key, &got); found || err != nil {
		t.Fatalf("%s is %v (error: %v), want none", key, got, err)
	}
}

// hits says whether a Get is answered from memory.
func hits(t *testing.T, c *pgcache.Cache, key string, value int) bool {
	t.Helper()
	for range 3 {
		want(t, c, key, value)
		before := c.Stats().LocalHits
		want(t, c, key, value)
		if c.Stats().LocalHits > before {
			return true
		}
	}
	return false
}

// kept waits until a Get is answered from memory: a machine that stalls keeps pulses waiting, and until the next one comes nothing is.
func kept(t *testing.T, c *pgcache.Cache, key string, value int) bool {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if hits(t, c, key, value) {
			return true
		}
	}
	return false
}

func ready(t *testing.T, c *pgcache.Cache) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestNewIsAsInProduction(t *testing.T) {
	t.Parallel()
	var c *pgcache.Cache
	t.Run("test", func(t *testing.T) {
		c = pgcachetest.New(t, pgcache.Options{Schema: "of_production", Prefix: "app_", DefaultTTL: time.Hour})
		set(t, c, "k", 1)
		if !kept(t, c, "k", 1) {
			t.Error("nothing is kept in memory")
		}
		wantNone(t, pgcachetest.New(t, pgcache.Options{Schema: "of_production", Prefix: "app_"}), "k")
	})
	if c == nil {
		return
	}
	var v int
	if _, err := c.Get(t.Context(), "k", &v); !errors.Is(err, pgcache.ErrClosed) {
		t.Errorf("after the test: %v", err)
	}
}

func TestListenerOfOptions(t *testing.T) {
	t.Parallel()
	n := pgcachetest.Nodes(t, 1, pgcache.Options{Listener: pgcachetest.NoListener})[0]
	set(t, n.Cache, "k", 1)
	if n.Listener != nil || hits(t, n.Cache, "k", 1) {
		t.Error("there is a listener")
	}
	c, err := pgcache.New(pgcachetest.DB(t), pgcache.Options{Listener: pgcachetest.NoListener})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "NoListener") {
		t.Errorf("pgcache.New with NoListener: %v", err)
	}

	own := pgcachetest.NewListener(pgxdriver.Listener(pgcachetest.DB(t)))
	n = pgcachetest.Nodes(t, 1, pgcache.Options{Listener: own})[0]
	set(t, n.Cache, "k", 1)
	if n.Listener != own || !kept(t, n.Cache, "k", 1) {
		t.Error("the listener of the options is not used")
	}
	own.Stop()
	if hits(t, n.Cache, "k", 1) {
		t.Error("hits without a listener")
	}
}

func TestNodes(t *testing.T) {
	t.Parallel()
	nodes := pgcachetest.Nodes(t, 3, pgcache.Options{Local: localcache.None()})
	set(t, nodes[0].Cache, "k", 1)
	for _, n := range nodes {
		want(t, n.Cache, "k", 1)
		exec(t, n.DB, "SELECT FROM cache_entries") // on its search_path
	}
	if nodes[0].DB == nodes[1].DB || nodes[0].Cache == nodes[1].Cache || nodes[0].Listener == nodes[1].Listener {
		t.Error("nodes share what processes do not")
	}

	for _, bad := range []struct {
		n    int
		opts pgcache.Options
		want string
	}{
		{2, pgcache.Options{Local: localcache.New(localcache.Options{})}, "Local"},
		{1, pgcache.Options{DefaultTTL: -time.Second}, "DefaultTTL"},
	} {
		err := pgcachetest.Do(func(tb pgcachetest.TB) { pgcachetest.Nodes(tb, bad.n, bad.opts) })
		if err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("got %v, want it to name %s", err, bad.want)
		}
	}
}

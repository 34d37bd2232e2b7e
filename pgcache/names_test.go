package pgcache_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// The channel was written into the trigger when the tables were made; a process with another one received nothing, for ever.
func TestAnotherChannel(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	cl.node(nil)
	c := cl.new(testdb.DB(t), func(o *pgcache.Options) { o.Channel = "another" })
	for name, err := range map[string]error{
		"Ready": c.Ready(t.Context()), "Migrate": c.Migrate(t.Context()), "Set": c.Set(t.Context(), "k", 1),
		"GetOrSet": c.GetOrSet(t.Context(), "k", new(int), func(context.Context) (any, error) { return 1, nil }),
	} {
		var e *pgcache.SchemaError
		if !errors.As(err, &e) || e.WantChannel != "another" || e.HaveChannel != cl.names().Channel || e.Have != e.Want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A channel of more than 63 bytes was cut by LISTEN and refused by pg_notify: every write failed.
func TestLongChannel(t *testing.T) {
	t.Parallel()
	if _, err := pgcache.New(testdb.DB(t), pgcache.Options{Channel: strings.Repeat("c", 64)}); err == nil || !strings.Contains(err.Error(), "Channel") {
		t.Error(err)
	}
	cl := newCluster(t)
	for prefix, channel := range map[string]string{"p": "", "q": cl.opts.Schema + strings.Repeat("C", 63-len(cl.opts.Schema))} {
		cl.opts.Prefix, cl.opts.Channel = strings.Repeat(prefix, 41), channel
		a, b := cl.node(nil), cl.node(nil)
		set(t, a, "k", 1)
		warm(t, b, "k", 1)
		set(t, a, "k", 2)
		eventually(t, "b receives", func() bool { return b.Stats().Invalidations > 0 })
		warm(t, b, "k", 2)
	}
}

// A long key fitted the index when it compressed well, but not a notification: the write failed.
func TestLongKeys(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	cl.opts.InvalidationWindow = pgcache.Immediate
	a, b := cl.node(nil), cl.node(nil)
	random := make([]byte, pgcache.MaxKeyBytes)
	for i := range random {
		random[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[rand.N(36)]
	}
	for i, key := range []string{strings.Repeat("k", pgcache.MaxKeyBytes), string(random), strings.Repeat("\U0001F5DD", pgcache.MaxKeyBytes/4)} {
		set(t, a, key, 1)
		warm(t, b, key, 1)
		set(t, a, key, 2)
		eventually(t, "b receives", func() bool { return b.Stats().Invalidations == uint64(i+1) })
		warm(t, b, key, 2)
		for _, long := range []string{key + "k", strings.Repeat(key, 8)} {
			wantErr(t, a.Set(t.Context(), long, 1), pgcache.ErrInvalidKey)
		}
	}
}

// Prefixes went into SQL unquoted: A_ and a_ were one, a leading digit was a syntax error, long names were cut and met.
func TestPrefixes(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	prefixes := []string{"", "A_", "a_", "1st_", "select", "_", strings.Repeat("x", 40) + "1", strings.Repeat("x", 40) + "2"}
	for _, p := range prefixes {
		cl.opts.Prefix = p
		c := cl.node(nil)
		wantNone(t, c, "k")
		set(t, c, "k", p)
	}
	for _, p := range prefixes {
		cl.opts.Prefix = p
		want(t, cl.node(nil), "k", p)
	}
	if n := cl.count("SELECT count(*) FROM pg_tables WHERE schemaname = $1", cl.opts.Schema); n < 2*len(prefixes) {
		t.Errorf("%d tables", n)
	}
}

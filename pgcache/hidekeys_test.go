package pgcache_test

import (
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// With HideKeys nobody who listens on the channel sees a key, and every node receives the same invalidations as without.
func TestHideKeys(t *testing.T) {
	t.Parallel()
	for name, option := range map[string]func(*pgcache.Options){
		"window":    func(*pgcache.Options) {},
		"immediate": func(o *pgcache.Options) { o.InvalidationWindow = pgcache.Immediate },
		"poll":      func(o *pgcache.Options) { o.Listener = listener.Poll(50 * time.Millisecond) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			recorder := cl.record()
			node := func() *pgcache.Cache {
				return cl.node(func(db *sql.DB, o *pgcache.Options) {
					o.HideKeys, o.Listener = true, calm(pgxdriver.Dial(db))
					option(o)
				})
			}
			a, b := node(), node()
			for _, key := range []string{"secret:1", "secret:2", "secret:3", "secret:\u00e9 \U0001f600", "secret:other"} {
				set(t, a, key, 1)
				warm(t, b, key, 1)
			}
			hits := b.Stats().LocalFlushes
			changed(t, b, "secret:1", func() { set(t, a, "secret:1", 2) })
			changed(t, b, "secret:2", func() {
				if err := pgcache.For[int](a).SetMany(t.Context(), map[string]int{"secret:2": 2, "secret:new": 2}); err != nil {
					t.Fatal(err)
				}
			})
			changed(t, b, "secret:3", func() { cl.exec("DELETE FROM " + cl.table() + " WHERE key = 'secret:3'") })
			changed(t, b, "secret:\u00e9 \U0001f600", func() {
				cl.exec("SELECT "+cl.object("cache_set")+"($1, '3', NULL, 'json')", "secret:\u00e9 \U0001f600")
			})
			want(t, b, "secret:1", 2)
			want(t, b, "secret:\u00e9 \U0001f600", 3)
			wantNone(t, b, "secret:3")
			warm(t, b, "secret:other", 1)
			if n := b.Stats().LocalFlushes; n != hits {
				t.Errorf("everything was forgotten %d times", n-hits)
			}
			if n := b.Stats().UnknownMessages; n != 0 {
				t.Errorf("%d messages were not understood", n)
			}
			for _, payload := range recorder.received() {
				if strings.Contains(payload, "secret") {
					t.Errorf("a key is seen on the channel: %q", payload)
				}
			}
			if name == "poll" && cl.count("SELECT count(*) FROM "+cl.object("cache_notices")+" WHERE payload LIKE '%secret%'") > 0 {
				t.Error("a key is seen in the notices")
			}
		})
	}
}

// HideKeys can be turned on while nodes run that know nothing of it: they learn the secret, and until then forget
// everything with each message.
func TestHideKeysLater(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)
	set(t, a, "k", 1)
	set(t, a, "other", 1)
	warm(t, b, "k", 1)
	c := cl.new(cl.db, func(o *pgcache.Options) { o.HideKeys = true })
	readySays(t, c, "HideKeys") // before Migrate
	for range 2 {               // the second time it has nothing to do
		if err := c.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	recorder := cl.record()
	cl.ready(c)
	changed(t, b, "k", func() { set(t, a, "k", 2) })
	want(t, b, "k", 2)
	eventually(t, "the secret is known", func() bool {
		warm(t, b, "k", 2)
		warm(t, b, "other", 1)
		n := b.Stats().LocalFlushes
		changed(t, b, "k", func() { set(t, a, "k", 2) })
		return b.Stats().LocalFlushes == n
	})
	for _, payload := range recorder.received() {
		if payload[0] < '3' && !strings.HasSuffix(payload, "*") {
			t.Errorf("a key is seen on the channel: %q", payload)
		}
	}
}

// changed waits until c has received an invalidation of key, which it holds, after change.
func changed(t *testing.T, c *pgcache.Cache, key string, change func()) {
	t.Helper()
	n := c.Stats().Invalidations + c.Stats().LocalFlushes
	change()
	eventually(t, "the node receives "+key, func() bool { return c.Stats().Invalidations+c.Stats().LocalFlushes > n })
}

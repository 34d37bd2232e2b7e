package proof

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/localcache"
	"github.com/pgcache/go/pgcache"
)

func TestMain(m *testing.M) { testdb.Main(m) }

const (
	nodes   = 4
	callers = 4 // of each node
	works   = 4 * time.Second
)

var keys = []string{"a", "b", "c"}

// fleet starts nodes without a local cache, every other one with a listener. A node that keeps entries in memory lets a caller
// join a read that began some milliseconds before, and promises P2 instead:
//
//	node 1, caller A: Get, snapshot (v1)           under way
//	node 2:                                Set(v2) returns
//	node 1, caller B:                                       Get joins A: v1
//
// Sessions are named after the schema.
func fleet(t *testing.T) (caches []*pgcache.Cache, admin *sql.DB, name string) {
	t.Helper()
	name = testdb.Schema(t)
	admin = testdb.DB(t)
	for i := range nodes {
		db := testdb.Open(t, "pgx", testdb.WithParam(testdb.DSN(t), "application_name", name))
		db.SetMaxOpenConns(6)
		o := pgcache.Options{
			Schema: name, Channel: name, Local: localcache.None(),
			Timeout: 10 * time.Second, Logger: slog.New(slog.DiscardHandler),
		}
		if i%2 == 0 {
			o.Listener = pgxdriver.Listener(db)
		}
		c, err := pgcache.New(db, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if i == 0 {
			if err := c.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		caches = append(caches, c)
	}
	for _, c := range caches {
		if err := c.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return caches, admin, name
}

// client does one operation after the other until stop is closed.
func client(ctx context.Context, c *pgcache.Cache, h *history, id int, stop <-chan struct{}) {
	typed := pgcache.For[string](c)
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		key, value := keys[rand.IntN(len(keys))], fmt.Sprint(id, "-", n)
		from := h.now()
		switch rand.IntN(10) {
		case 0, 1:
			h.did(id, key, call{write: true, value: value}, "", from, typed.Set(ctx, key, value))
		case 2:
			h.did(id, key, call{write: true, value: value}, "", from, typed.SetMany(ctx, map[string]string{key: value}))
		case 3:
			h.did(id, key, call{write: true, value: absent}, "", from, typed.Delete(ctx, key))
		case 4, 5:
			found, err := typed.GetMany(ctx, []string{key})
			h.did(id, key, call{}, found[key], from, err)
		default:
			found, _, err := typed.Get(ctx, key)
			h.did(id, key, call{}, found, from, err)
		}
		// The checker's work grows with how many operations overlap, so clients rest.
		time.Sleep(rand.N(20 * time.Millisecond))
	}
}

// work lets a fleet work and judges it. Every so often kill ends a session of a node; 0: never.
func work(t *testing.T, kill time.Duration) *history {
	caches, admin, name := fleet(t)
	h := newHistory()
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for i, c := range caches {
		for j := range callers {
			clients.Go(func() { client(t.Context(), c, h, i*callers+j, stop) })
		}
	}
	var kills atomic.Int64
	if kill > 0 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(kill):
				}
				res, err := admin.ExecContext(t.Context(), `SELECT pg_terminate_backend(pid) FROM (
					SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY state = 'active' DESC, random() LIMIT 1) one`, name)
				if err != nil {
					t.Error(err)
					return
				}
				n, _ := res.RowsAffected()
				kills.Add(n)
			}
		})
	}
	time.Sleep(works)
	close(stop)
	clients.Wait()
	// What the table holds at the end is part of each history.
	for _, key := range keys {
		from := h.now()
		found, _, err := pgcache.For[string](caches[0]).Get(t.Context(), key)
		for i := 0; err != nil && i < nodes*6; i++ { // a pool's connections that were killed while idle
			from = h.now()
			found, _, err = pgcache.For[string](caches[0]).Get(t.Context(), key)
		}
		if err != nil {
			t.Error(err)
		}
		h.did(0, key, call{}, found, from, err)
	}
	broken, unknown := h.check(8 * time.Second)
	total := 0
	for _, ops := range h.keys {
		total += len(ops)
	}
	t.Logf("%d operations on %d keys, %d writes of unknown outcome, %d sessions ended", total, len(h.keys), h.open, kills.Load())
	if len(broken) > 0 {
		t.Errorf("not linearizable: %v", broken)
	}
	if len(unknown) > 0 {
		t.Errorf("the checker came to no end with %v", unknown)
	}
	if len(h.keys) != len(keys) || total < 100 {
		t.Errorf("only %d operations on %d keys", total, len(h.keys))
	}
	if kill > 0 && kills.Load() == 0 {
		t.Error("no session was ended")
	}
	return h
}

// TestLinearizable: Get, Set, Delete, GetMany and SetMany of one key are linearizable without a local cache.
func TestLinearizable(t *testing.T) {
	h := work(t, 0)
	if h.open > 0 {
		t.Errorf("%d writes failed", h.open)
	}
	// The same history with a stale read in it is refused: what a key held in the middle, read at the end.
	for _, key := range keys {
		ops := h.keys[key]
		slices.SortFunc(ops, func(a, b op) int { return int(a.Call - b.Call) })
		for _, o := range ops {
			if in := o.Input.(call); in.write && in.value != absent {
				h.did(99, key, call{}, in.value, h.now(), nil)
				break
			}
		}
	}
	if broken, _ := h.check(8 * time.Second); len(broken) != len(keys) {
		t.Errorf("a stale read was planted in all keys, and noticed in %v", broken)
	}
}

// TestLinearizableUnderKills: the same while sessions are ended. A write that failed has happened or not, once.
func TestLinearizableUnderKills(t *testing.T) { work(t, 50*time.Millisecond) }

package integration

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/pgcache/go/driver/drivertest"
	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// TestCrash: a server that crashes comes back with an empty cache, because the table is UNLOGGED. No node goes on serving
// what was there before; everything works again by itself. A Durable cache keeps its rows.
func TestCrash(t *testing.T) {
	s := newest(t)
	for _, f := range []drivertest.Factory{pgxModes[0], pqModes[0]} {
		t.Run(f.Name, func(t *testing.T) {
			ctx := t.Context()
			one := nodeOf(t, f, s.dsn, nil)
			two := nodeOf(t, f, s.dsn, func(o *pgcache.Options) { o.Schema = one.options.Schema })
			durable := nodeOf(t, f, s.dsn, func(o *pgcache.Options) { o.Durable = true })
			for _, n := range []*node{one, durable} {
				if err := n.Set(ctx, "k", "before"); err != nil {
					t.Fatal(err)
				}
			}
			for _, n := range []*node{one, two, durable} {
				n.holds(t, "k", "before")
			}
			if err := s.crash(ctx); err != nil {
				t.Fatal(err)
			}
			for _, n := range []*node{one, two} {
				n.sees(t, "k", "")
			}
			durable.sees(t, "k", "before")
			for _, n := range []*node{one, two, durable} {
				n.ready(t)
			}
			var got string
			if err := two.GetOrSet(ctx, "k", &got, func(context.Context) (any, error) { return "after", nil }); err != nil || got != "after" {
				t.Errorf("GetOrSet returns %q, %v", got, err)
			}
			one.holds(t, "k", "after")
			if err := two.Set(ctx, "k", "later"); err != nil {
				t.Error(err)
			}
			one.holds(t, "k", "later")
		})
	}
}

// TestFailover: the address of the database moves to another server while the one before is still up, so the listener
// hangs on to it, alive and silent. Rows of the other server must not be kept in memory on its word.
func TestFailover(t *testing.T) {
	before, after := newest(t), newest(t)
	f := pgxModes[0]
	for _, c := range []struct {
		name     string
		listener func(through string) pgcache.Listener
		moves    bool // the listener's address moves too
	}{
		{"listener moves", pgxdriver.ListenerDSN, true},
		{"listener stays", func(string) pgcache.Listener { return pgxdriver.ListenerDSN(before.dsn) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			sw, through := newSwitchboard(t, before)
			db := f.Open(t, through)
			n := open(t, db, func(o *pgcache.Options) { o.Listener = c.listener(through) })
			n.ready(t)
			same := func(o *pgcache.Options) { o.Schema = n.options.Schema }
			old, now := nodeOf(t, f, before.dsn, same), nodeOf(t, f, after.dsn, same)
			for key, to := range map[*node]string{old: "old", now: "new"} {
				for i := range 20 {
					if err := key.Set(ctx, fmt.Sprint(i), to); err != nil {
						t.Fatal(err)
					}
				}
			}
			n.holds(t, "0", "old")

			sw.turn(t, after)
			db.SetMaxIdleConns(0) // those of before
			n.sees(t, "1", "new")
			// From here on it knows. What it held is gone, and what it reads now is of the new server.
			hits := n.Stats().LocalHits
			for range 20 {
				for i := range 20 {
					n.sees(t, fmt.Sprint(i), "new")
				}
				if s := n.Stats(); !c.moves && s.LocalHits != hits {
					t.Fatalf("%d local hits on the word of the old server", s.LocalHits-hits)
				}
			}
			if c.moves {
				n.ready(t)
				n.holds(t, "0", "new")
			}
			for i := range 20 {
				to := fmt.Sprint("newer ", i)
				if err := now.Set(ctx, "0", to); err != nil {
					t.Fatal(err)
				}
				n.sees(t, "0", to)
			}
		})
	}
}

// nodeOf returns a node with a pool and a listener of its own, which is ready.
func nodeOf(t *testing.T, f drivertest.Factory, dsn string, change func(*pgcache.Options)) *node {
	t.Helper()
	dsn = testdb.WithParam(dsn, "application_name", fmt.Sprint("node ", time.Now().UnixNano()))
	db := f.Open(t, dsn)
	n := open(t, db, func(o *pgcache.Options) {
		o.Listener = f.Listener(t, db, dsn)
		if change != nil {
			change(o)
		}
	})
	n.ready(t)
	return n
}

// sees waits until n returns want, "" for no value, twice: it does not go back. Errors are what a server that is away
// leads to.
func (n *node) sees(t *testing.T, key, want string) {
	t.Helper()
	var got string
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if got, err = n.get(t, key); err == nil && got == want {
			if got, err = n.get(t, key); err != nil || got != want {
				t.Errorf("Get(%q) returned %q, and then %q, %v", key, want, got, err)
			}
			return
		}
	}
	t.Fatalf("Get(%q) returns %q, %v; want %q", key, got, err, want)
}

// holds waits until n returns want from memory.
func (n *node) holds(t *testing.T, key, want string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		before := n.Stats().LocalHits
		if got, err := n.get(t, key); err == nil && got == want && n.Stats().LocalHits > before {
			return
		}
	}
	got, err := n.get(t, key)
	t.Fatalf("Get(%q) returns %q, %v, %+v; want %q from memory", key, got, err, n.Stats(), want)
}

func (n *node) get(t *testing.T, key string) (string, error) {
	var got string
	_, err := n.Get(t.Context(), key, &got)
	return got, err
}

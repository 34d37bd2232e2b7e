package pgcache_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// P3 for the writes of loads, and for loads that looked or stored before a write of this node: what a GetOrSet returned
// is what the next Get returns, and a GetOrSet after a Delete or a Clear gets nothing from before it.
func TestP3_Loads(t *testing.T) {
	t.Parallel()
	t.Run("a read beside a load", func(t *testing.T) {
		t.Parallel()
		cl := newCluster(t)
		c, w := cl.wired(nil)
		loading, finish := make(chan struct{}), make(chan struct{})
		load := async(t, func() error {
			return c.GetOrSet(t.Context(), "k", new(int), func(context.Context) (any, error) {
				close(loading)
				<-finish
				return 1, nil
			})
		})
		<-loading
		held := w.after(named("GetEntry"))
		read := async(t, func() bool { found, _ := c.Get(t.Context(), "k", new(int)); return found })
		held.wait(t)
		close(finish)
		if err := load(); err != nil {
			t.Fatal(err)
		}
		_ = w.unstopped(func() error { want(t, c, "k", 1); return nil })
		held.release()
		if read() {
			t.Error("it has read what was not there")
		}
		want(t, c, "k", 1)
	})
	for name, write := range map[string]func(ctx context.Context, c *pgcache.Cache) error{
		"Delete": func(ctx context.Context, c *pgcache.Cache) error { return c.Delete(ctx, "k") },
		"Clear":  func(ctx context.Context, c *pgcache.Cache) error { return c.Clear(ctx) },
	} {
		for when, begin := range map[string]func(t *testing.T, c, other *pgcache.Cache, w *wire) (*stop, func() string){
			"a load that looked before": func(t *testing.T, c, other *pgcache.Cache, w *wire) (*stop, func() string) {
				return looked(t, c, other, w, 1)
			},
			"a load that stored before": func(t *testing.T, c, _ *pgcache.Cache, w *wire) (*stop, func() string) {
				return stored(t, c, w, 1)
			},
		} {
			t.Run(name+" and "+when, func(t *testing.T) {
				t.Parallel()
				forGuards(t, func(t *testing.T, cl *cluster) {
					other := cl.node(nil)
					c, w := cl.wired(nil)
					held, own := begin(t, c, other, w)
					if err := write(t.Context(), c); err != nil {
						t.Fatal(err)
					}
					_ = w.without(held, func() error {
						if got := joining(t, held, func() string { return outcome(loaded(c, "k", 2)) }); got != outcome(2, nil) {
							t.Errorf("a GetOrSet that began after it: %s", got)
						}
						return nil
					})
					if got := own(); got != outcome(1, nil) && got != outcome(2, nil) {
						t.Errorf("the first GetOrSet: %s", got)
					}
					want(t, c, "k", 2)
				})
			})
		}
	}
}

// P3: a node reads its own writes. A read that began while the write was under way saw the row from before it.
func TestP3_OwnWrites(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(ctx context.Context, c *pgcache.Cache) error{
		"Set":    func(ctx context.Context, c *pgcache.Cache) error { return c.Set(ctx, "k", "new") },
		"Delete": func(ctx context.Context, c *pgcache.Cache) error { return c.Delete(ctx, "k") },
		"SetMany": func(ctx context.Context, c *pgcache.Cache) error {
			return pgcache.For[string](c).SetMany(ctx, map[string]string{"k": "new", "l": "new"})
		},
		"Clear": func(ctx context.Context, c *pgcache.Cache) error { return c.Clear(ctx) },
	} {
		for _, silent := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/silent=%v", name, silent), func(t *testing.T) {
				t.Parallel()
				cl := newCluster(t)
				c, wire := cl.wired(func(o *pgcache.Options) {
					if silent { // nothing invalidates the node's own writes
						o.Listener, o.LocalTTL = nil, time.Hour
					}
				})
				set(t, cl.node(nil), "k", "old") // not in c's memory, and an insert is not published
				set(t, c, "live", "yes")
				warm(t, c, "live", "yes")
				stmt := "cache_entries"
				if name == "Clear" {
					stmt = named("TruncateEntries")
				}
				sending := wire.before(stmt)
				written := async(t, func() error { return write(t.Context(), c) })
				sending.wait(t)

				var read func() error
				reply := wire.after(named("GetEntry"))
				_ = wire.without(sending, func() error {
					read = async(t, func() error { _, err := c.Get(t.Context(), "k", new(string)); return err })
					reply.wait(t)
					return nil
				})
				sending.release()
				if err := written(); err != nil {
					t.Fatal(err)
				}
				reply.release()
				if err := read(); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					v, found := get[string](t, c, "k")
					if name == "Delete" || name == "Clear" {
						if found {
							t.Errorf("%q is there", v)
						}
					} else if v != "new" {
						t.Errorf("%q, %v", v, found)
					}
				}
			})
		}
	}
}

// P3 where the outcome of a write is unknown: memory must not hold the value from before, nor the other one.
func TestP3_UnknownOutcome(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c, wire := cl.wired(nil)
	lost := errors.New("the reply was lost")
	for name, write := range map[string]func() error{
		"PutEntry": func() error { return c.Set(t.Context(), "k", "new") },
		"PutEntries": func() error {
			return pgcache.For[string](c).SetMany(t.Context(), map[string]string{"k": "new", "l": "new"})
		},
	} {
		set(t, c, "k", "old")
		warm(t, c, "k", "old")
		reply := wire.lose(named(name), lost)
		if err := write(); !errors.Is(err, lost) {
			t.Fatal(err)
		}
		reply.release()
		cl.exec("UPDATE " + cl.table() + " SET version = 1, stamp = 1, value = '\"newer\"' WHERE key = 'k'") // without an invalidation
		want(t, c, "k", "newer")
	}
	set(t, c, "k", "old")
	warm(t, c, "k", "old")
	reply := wire.lose(named("TruncateEntries"), lost)
	if err := c.Clear(t.Context()); !errors.Is(err, lost) {
		t.Fatal(err)
	}
	reply.release()
	wantNone(t, c, "k") // it was done before its last reply was lost
}

// P3 where writes of one key overlap on one node: which of them the database took last, the node cannot know by itself.
func TestP3_OverlappingWrites(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	// Nothing invalidates the node's own writes here, so a wrong guess would stay.
	c := cl.on(testdb.DB(t), func(o *pgcache.Options) { o.LocalTTL = time.Hour })
	for round := range 250 {
		var wg sync.WaitGroup
		for w := range 3 {
			wg.Go(func() {
				var err error
				if w < 2 {
					err = c.Set(t.Context(), "k", round*10+w)
				} else {
					err = pgcache.For[int](c).SetMany(t.Context(), map[string]int{"k": round*10 + w, "l": 1})
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		v, _ := get[int](t, c, "k")
		if row := cl.count("SELECT convert_from(value, 'UTF8')::int FROM " + cl.table() + " WHERE key = 'k'"); v != row {
			t.Fatalf("round %d: the row is %d, Get says %d", round, row, v)
		}
	}
}

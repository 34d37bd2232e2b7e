package pgcache_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/driver/pqdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// The promises again, where promises_test.go leaves off: loads, reads side by side, and histories of a whole fleet.

// loaded is GetOrSet with a loader that returns value.
func loaded(c *pgcache.Cache, key string, value int) (v int, err error) {
	err = c.GetOrSet(context.Background(), key, &v, func(context.Context) (any, error) { return value, nil })
	return v, err
}

// outcome is what a read returned.
func outcome(v any, err error) string { return fmt.Sprintf("%v, error %v", v, err) }

// deafable returns a node that hears nothing while link is frozen, and believes for a minute that there is nothing to
// hear.
func (cl *cluster) deafable() (c *pgcache.Cache, w *wire, link *testdb.Proxy) {
	cl.t.Helper()
	link = testdb.NewProxy(cl.t, testdb.DSN(cl.t))
	c, w = cl.wired(func(o *pgcache.Options) {
		o.Listener = calm(pgxdriver.DialDSN(link.DSN()))
	})
	cl.t.Cleanup(link.Thaw)
	return c, w, link
}

// joining runs read, which may join one that is held up, then lets that one go, and returns the outcome of read.
func joining(t *testing.T, held *stop, read func() string) string {
	t.Helper()
	done := make(chan string, 1)
	go func() { done <- read() }()
	select {
	case got := <-done: // it joined nothing
		held.release()
		return got
	case <-time.After(50 * time.Millisecond): // nothing says that it has joined
	}
	held.release()
	select {
	case got := <-done:
		return got
	case <-time.After(15 * time.Second):
		t.Fatal("it does not return")
		panic("unreachable")
	}
}

// looked begins a load of "k" on c that is held up when it has looked again, under the lock, and found value, which other
// wrote after the first look. The load's own outcome is value.
func looked(t *testing.T, c, other *pgcache.Cache, w *wire, value int) (held *stop, own func() string) {
	t.Helper()
	locking := w.before(named("TryLocks"))
	own = async(t, func() string { return outcome(loaded(c, "k", -1)) })
	locking.wait(t)
	set(t, other, "k", value) // new, so nobody is told
	held = w.after(named("GetEntries"))
	locking.release()
	held.wait(t)
	return held, own
}

// stored begins a load of "k" on c that is held up when its value is in the table.
func stored(t *testing.T, c *pgcache.Cache, w *wire, value int) (held *stop, own func() string) {
	t.Helper()
	held = w.after(named("StoreLoaded"))
	own = async(t, func() string { return outcome(loaded(c, "k", value)) })
	held.wait(t)
	return held, own
}

// P1 where the answer to a read or a write of this node comes after the news of a later write: it must not fill the
// memory. Nothing else happens in between.
func TestP1_FillOvertaken(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		for name, tt := range map[string]struct {
			query string
			run   func(ctx context.Context, c *pgcache.Cache) error
		}{
			"Get": {"GetEntry", func(ctx context.Context, c *pgcache.Cache) error { _, err := c.Get(ctx, "k", new(int)); return err }},
			"Get typed": {"GetEntry", func(ctx context.Context, c *pgcache.Cache) error {
				_, _, err := pgcache.For[int](c).Get(ctx, "k")
				return err
			}},
			"GetMany": {"GetEntries", func(ctx context.Context, c *pgcache.Cache) error {
				_, err := pgcache.For[int](c).GetMany(ctx, []string{"j", "k"})
				return err
			}},
			"Set": {"PutEntry", func(ctx context.Context, c *pgcache.Cache) error { return c.Set(ctx, "k", 1) }},
			"SetMany": {"PutEntries", func(ctx context.Context, c *pgcache.Cache) error {
				return pgcache.For[int](c).SetMany(ctx, map[string]int{"j": 1, "k": 1})
			}},
			"GetOrSet": {"StoreLoaded", func(ctx context.Context, c *pgcache.Cache) error {
				return c.GetOrSet(ctx, "k", new(int), func(context.Context) (any, error) { return 1, nil })
			}},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				cl := newCluster(t)
				cl.opts.InvalidationWindow = pgcache.Immediate // so that what is told comes in the order of the writes
				a := cl.node(nil)
				db, w := openWire(t, driver, testdb.DSN(t))
				b := cl.on(db, func(o *pgcache.Options) { o.Listener = listenerOf(driver, db, testdb.DSN(t)) })
				set(t, a, "k", 0)
				if name == "GetOrSet" {
					del(t, a, "k")
				}
				caughtUp := cl.follow(a, b, w)
				held := w.after(named(tt.query))
				own := async(t, func() error { return tt.run(t.Context(), b) })
				held.wait(t)
				set(t, a, "k", 2)
				caughtUp()
				held.release()
				if err := own(); err != nil {
					t.Fatal(err)
				}
				// What is kept for one is not for the other.
				if v, found, err := pgcache.For[int](b).Get(t.Context(), "k"); v != 2 || !found || err != nil {
					t.Errorf("%v, %v, %v, want 2", v, found, err)
				}
				want(t, b, "k", 2)
			})
		}
	})
}

// P1: a GetOrSet that begins after an invalidation was applied gets nothing from a load that looked at the row before.
func TestP1_LoadsFromBefore(t *testing.T) {
	t.Parallel()
	for name, forget := range map[string]func(cl *cluster, a *pgcache.Cache){
		"Delete":   func(cl *cluster, a *pgcache.Cache) { del(cl.t, a, "k") },
		"Clear":    func(cl *cluster, a *pgcache.Cache) { _ = a.Clear(cl.t.Context()) },
		"TRUNCATE": func(cl *cluster, _ *pgcache.Cache) { cl.exec("TRUNCATE " + cl.table()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			cl.opts.InvalidationWindow = pgcache.Immediate // so that what is told comes in the order of the writes
			a := cl.node(nil)
			b, w := cl.wired(nil)
			caughtUp := cl.follow(a, b, w)
			held, own := looked(t, b, a, w, 1)
			before := b.Stats().LocalFlushes
			forget(cl, a)
			if name != "Delete" {
				eventually(t, "b forgets everything", func() bool { return b.Stats().LocalFlushes > before })
			}
			caughtUp()
			got := outcome(2, nil)
			_ = w.without(held, func() error {
				got = joining(t, held, func() string { return outcome(loaded(b, "k", 2)) })
				return nil
			})
			if got != outcome(2, nil) {
				t.Errorf("a GetOrSet that began after the invalidation: %s", got)
			}
			if got := own(); got != outcome(1, nil) {
				t.Errorf("the first GetOrSet: %s", got)
			}
			want(t, b, "k", 2)
		})
	}
}

// P2 with the defaults, over both drivers: three seconds after a write the most deaf of nodes returns it.
func TestP2_HalfOpenLink(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		const bound = 3 * time.Second // heartbeat and timeout
		cl := newCluster(t)
		a := cl.node(nil)
		link := testdb.NewProxy(t, testdb.DSN(t))
		b := cl.on(testdb.Open(t, driver, testdb.DSN(t)), func(o *pgcache.Options) {
			if o.Listener = pgxdriver.ListenerDSN(link.DSN()); driver == "postgres" {
				o.Listener = pqdriver.Listener(link.DSN())
			}
		})
		t.Cleanup(link.Thaw)
		set(t, a, "k", 1)
		warm(t, b, "k", 1)
		link.Freeze()
		set(t, a, "k", 2)
		written := time.Now()
		stale := 0
		for {
			began := time.Now()
			if v, _ := get[int](t, b, "k"); v == 2 {
				break
			}
			if stale++; began.Sub(written) > bound {
				t.Fatalf("a Get that began %v after the write had returned got the value from before", began.Sub(written))
			}
		}
		if stale == 0 {
			t.Error("the link was not frozen")
		}
		link.Thaw()
		warm(t, b, "k", 2)
	})
}

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
				cl := newCluster(t)
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
		}
	}
}

// P4 for reads of one key that are under way at the same time: once one of them has returned v2, none that saw v1 may
// fill the memory or be joined. The node hears of nothing here.
func TestP4_ReadsSideBySide(t *testing.T) {
	t.Parallel()
	for name, newer := range map[string]func(t *testing.T, c *pgcache.Cache, w *wire, killed func() string){
		"GetMany": func(t *testing.T, c *pgcache.Cache, _ *wire, _ func() string) {
			if m, err := pgcache.For[int](c).GetMany(t.Context(), []string{"k"}); err != nil || m["k"] != 2 {
				t.Error(m, err)
			}
		},
		"a Get that was killed": func(t *testing.T, _ *pgcache.Cache, _ *wire, killed func() string) {
			if got := killed(); got != outcome(2, nil) {
				t.Error(got)
			}
		},
	} {
		for _, later := range []string{"joined", "from memory"} {
			t.Run(name+", "+later, func(t *testing.T) {
				t.Parallel()
				cl := newCluster(t)
				cl.opts.InvalidationWindow = pgcache.Immediate // so that what is told comes in the order of the writes
				a := cl.node(nil)
				b, w, link := cl.deafable()
				read := func() string { v, _ := get[int](t, b, "k"); return outcome(v, nil) }
				set(t, a, "k", 0)
				caughtUp := cl.follow(a, b, w)

				sending := w.before(named("GetEntry")) // a Get that is killed before it reads
				killed := sync.OnceValue(async(t, read))
				sending.wait(t)
				set(t, a, "k", 1)
				caughtUp()
				link.Freeze()

				held := w.after(named("GetEntry"))
				var first func() string
				_ = w.without(sending, func() error {
					first = async(t, read)
					held.wait(t)
					return nil
				})
				set(t, a, "k", 2)
				_ = w.without(held, func() error {
					sending.release()
					newer(t, b, w, killed)
					if later == "joined" {
						if got := joining(t, held, read); got != outcome(2, nil) {
							t.Errorf("after 2, a Get that found one under way: %s", got)
						}
					}
					return nil
				})
				held.release()
				if got := first(); got != outcome(1, nil) {
					t.Errorf("the Get that saw 1: %s", got)
				}
				killed()
				want(t, b, "k", 2)
			})
		}
	}
}

// P4 for a Get that was killed and brings something newer than memory: what is in memory must go.
func TestP4_KilledReadBringsNews(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	cl.opts.InvalidationWindow = pgcache.Immediate // so that what is told comes in the order of the writes
	a := cl.node(nil)
	b, w, link := cl.deafable()
	set(t, a, "k", 0)
	caughtUp := cl.follow(a, b, w)
	sending := w.before(named("GetEntry"))
	killed := async(t, func() string { v, _ := get[int](t, b, "k"); return outcome(v, nil) })
	sending.wait(t)
	set(t, a, "k", 1)
	caughtUp()
	_ = w.unstopped(func() error { warm(t, b, "k", 1); return nil })
	link.Freeze()
	set(t, a, "k", 2)
	sending.release()
	if got := killed(); got != outcome(2, nil) {
		t.Error(got)
	}
	want(t, b, "k", 2)
}

// P4 for loads: a node that has seen the Delete gets nothing from a load that looked, or stored, before it.
func TestP4_LoadsFromBefore(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(t *testing.T, c, other *pgcache.Cache, w *wire) (*stop, func() string){
		"looked": func(t *testing.T, c, other *pgcache.Cache, w *wire) (*stop, func() string) {
			return looked(t, c, other, w, 1)
		},
		"stored": func(t *testing.T, c, _ *pgcache.Cache, w *wire) (*stop, func() string) { return stored(t, c, w, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			a := cl.node(nil)
			b, w, link := cl.deafable()
			held, own := begin(t, b, a, w)
			link.Freeze()
			del(t, a, "k")
			_ = w.without(held, func() error {
				if m, err := pgcache.For[int](b).GetMany(t.Context(), []string{"k"}); err != nil || len(m) != 0 { // joins nothing
					t.Error(m, err)
				}
				if got := joining(t, held, func() string { return outcome(loaded(b, "k", 2)) }); got != outcome(2, nil) {
					t.Errorf("a GetOrSet after the Delete was seen: %s", got)
				}
				return nil
			})
			if got := own(); got != outcome(1, nil) && got != outcome(2, nil) {
				t.Errorf("the first GetOrSet: %s", got)
			}
			want(t, b, "k", 2)
		})
	}
}

// P3 and P4 as a history: nodes on both drivers write, delete, load and read the same few keys at once, and a trigger
// writes down the order in which the database took the writes. No read may return what is older than what its node had
// written or returned before it began, nor anything that nobody wrote.
func TestP4_History(t *testing.T) {
	t.Parallel()
	forWindows(t, func(t *testing.T, cl *cluster) {
		const lasts = time.Second
		keys := []string{"a", "b", "n:c"}
		nodes := []*pgcache.Cache{cl.node(nil), cl.node(nil)}
		pqdb := testdb.Open(t, "postgres", testdb.DSN(t))
		nodes = append(nodes, cl.on(pqdb, func(o *pgcache.Options) { o.Listener = pqdriver.Listener(testdb.DSN(t)) }))
		log := cl.opts.Schema + ".history"
		cl.exec("CREATE TABLE " + log + " (seq bigserial, key text, value text)")
		// The row is locked when its trigger runs, so of one key the order is that of the commits.
		cl.exec(`CREATE FUNCTION ` + log + `() RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN INSERT INTO ` + log + ` (key, value) VALUES (NEW.key, convert_from(NEW.value, 'UTF8')); RETURN NULL; END $$`)
		cl.exec("CREATE TRIGGER history AFTER INSERT OR UPDATE ON " + cl.table() + " FOR EACH ROW EXECUTE FUNCTION " + log + "()")

		var mu sync.Mutex
		var events []event
		var unstored sync.Map // values that loaders returned: they may be handed out without being stored
		var serial atomic.Int64
		clock := time.Now()
		note := func(node int, key, what string, began time.Duration, value int64) {
			e := event{node: node, key: key, what: what, began: began, ended: time.Since(clock), value: value}
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
		}
		var wg sync.WaitGroup
		run := func(node int, step func(r *rand.Rand, key string, began time.Duration) error) {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(rand.Uint64(), 0))
				for time.Since(clock) < lasts && !t.Failed() {
					if err := step(r, keys[r.IntN(len(keys))], time.Since(clock)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		ctx := t.Context()
		for n, c := range nodes {
			typed := pgcache.For[int64](c)
			for range 2 {
				run(n, func(r *rand.Rand, key string, began time.Duration) error { // writes
					value := serial.Add(1)
					switch r.IntN(12) {
					case 0:
						return c.Delete(ctx, key)
					case 1:
						err := typed.SetMany(ctx, map[string]int64{keys[0]: value, keys[1]: value})
						note(n, keys[0], "SetMany", began, value)
						note(n, keys[1], "SetMany", began, value)
						return err
					}
					err := typed.Set(ctx, key, value)
					note(n, key, "Set", began, value)
					time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond) // so that something is kept in between
					return err
				})
			}
			for range 2 {
				run(n, func(r *rand.Rand, key string, began time.Duration) error { // reads
					switch r.IntN(10) {
					case 0:
						m, err := typed.GetMany(ctx, keys)
						for key, v := range m {
							note(n, key, "GetMany", began, v)
						}
						return err
					case 1:
						v, err := typed.GetOrSet(ctx, key, func(context.Context) (int64, error) {
							value := serial.Add(1)
							unstored.Store(value, true)
							return value, nil
						})
						note(n, key, "GetOrSet", began, v)
						return err
					}
					v, found, err := typed.Get(ctx, key)
					if found {
						note(n, key, "Get", began, v)
					}
					return err
				})
			}
		}
		wg.Wait()

		order := map[string]map[int64]int{}
		rows, err := cl.db.QueryContext(ctx, "SELECT seq, key, value FROM "+log+" WHERE value IS NOT NULL")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var seq int
			var key string
			var value int64
			if err := rows.Scan(&seq, &key, &value); err != nil {
				t.Fatal(err)
			}
			if order[key] == nil {
				order[key] = map[int64]int{}
			}
			order[key][value] = seq
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		checkHistory(t, events, order, func(value int64) bool { _, ok := unstored.Load(value); return ok })
		hits := uint64(0)
		for _, c := range nodes {
			hits += c.Stats().LocalHits
		}
		t.Logf("%d operations, %d hits in memory", len(events), hits)
		if hits == 0 {
			t.Error("nothing was ever served from memory")
		}
	})
}

// event is one operation that wrote or returned value.
type event struct {
	node         int
	key, what    string
	began, ended time.Duration
	value        int64
}

// checkHistory checks every event against those of its node and key that had ended before it began. order is the place
// of each value among the writes of its key.
func checkHistory(t *testing.T, events []event, order map[string]map[int64]int, unstored func(int64) bool) {
	t.Helper()
	type scope struct {
		node int
		key  string
	}
	scopes := map[scope][]event{}
	for _, e := range events {
		if _, known := order[e.key][e.value]; known {
			scopes[scope{e.node, e.key}] = append(scopes[scope{e.node, e.key}], e)
		} else if wrote := strings.HasPrefix(e.what, "Set"); !wrote && !unstored(e.value) { // of Sets that share a statement only the last is done
			t.Errorf("%+v: nobody wrote that", e)
		}
	}
	for s, began := range scopes {
		ended := slices.SortedFunc(slices.Values(began), func(a, b event) int { return cmp.Compare(a.ended, b.ended) })
		slices.SortFunc(began, func(a, b event) int { return cmp.Compare(a.began, b.began) })
		newest, place := event{}, 0
		for _, e := range began {
			for len(ended) > 0 && ended[0].ended < e.began {
				if p := order[s.key][ended[0].value]; p > place {
					newest, place = ended[0], p
				}
				ended = ended[1:]
			}
			if p := order[s.key][e.value]; p < place {
				t.Errorf("%+v (write %d of the key) began after %+v (write %d) had ended", e, p, newest, place)
				return
			}
		}
	}
}

// P5: before a listener has proved itself, and without one, every Get asks the database by itself.
func TestP5_NothingProven(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, o *pgcache.Options){
		"no listener": func(_ *testing.T, o *pgcache.Options) { o.Listener = nil },
		"a listener that gets no answer": func(t *testing.T, o *pgcache.Options) {
			link := testdb.NewProxy(t, testdb.DSN(t))
			link.Freeze()
			o.Listener = pgxdriver.ListenerDSN(link.DSN())
		},
		"a listener in another database": func(t *testing.T, o *pgcache.Options) {
			o.Listener = listener.New(pgxdriver.DialDSN(testdb.WithParam(testdb.DSN(t), "dbname", "template1")), listener.Config{Logger: o.Logger})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			a := cl.node(nil)
			db, w := openWire(t, "pgx", testdb.DSN(t))
			b := cl.new(db, func(o *pgcache.Options) { change(t, o) })
			const n = 20
			for v := range n {
				set(t, a, "k", v)
				want(t, b, "k", v)
			}
			set(t, b, "k", n) // nor does what it wrote itself stay
			want(t, b, "k", n)
			set(t, a, "k", n+1)
			want(t, b, "k", n+1)
			if sent := w.count(named("GetEntry")); sent != n+2 {
				t.Errorf("%d Gets sent %d statements", n+2, sent)
			}
			if s := b.Stats(); s.LocalHits != 0 {
				t.Errorf("%d hits in memory", s.LocalHits)
			}
			held := w.after(named("GetEntry"))
			first := async(t, func() string { v, _ := get[int](t, b, "k"); return outcome(v, nil) })
			held.wait(t)
			_ = w.unstopped(func() error { want(t, b, "k", n+1); return nil }) // and joins nobody
			held.release()
			first()
		})
	}
}

// P6 when the session that holds the lock is killed while the loader runs: another node loads and stores, and the first one's value stays out.
func TestP6_LockLost(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)
	got, err := pgcache.For[int](a).GetOrSet(t.Context(), "k", func(context.Context) (int, error) {
		if n := cl.keyLocks("count(pg_terminate_backend(pid))"); n != 1 {
			t.Errorf("%d sessions held the lock", n)
		}
		cl.noLocks()
		if v, err := loaded(b, "k", 2); v != 2 || err != nil {
			t.Error(v, err)
		}
		return 1, nil
	})
	if err != nil || got != 2 {
		t.Errorf("%v, %v", got, err)
	}
	want(t, a, "k", 2)
	want(t, b, "k", 2)
	if a, b := a.Stats(), b.Stats(); a.Loads != 1 || b.Loads != 1 || a.Fenced != 1 || b.Fenced != 0 {
		t.Errorf("%+v\n%+v", a, b)
	}
	if v, err := loaded(a, "l", 3); v != 3 || err != nil { // and the lock works again
		t.Error(v, err)
	}
	cl.noLocks()
}

// P6 where the two meet in the table: the store began before the other write committed, and does not see it. What counts
// is the row as it is when its turn has come.
func TestP6_FenceJudgesTheNewestRow(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]int{"no row before": 0, "a row before": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			own := cl.node(nil)
			if before > 0 {
				set(t, own, "k", before)
				cl.exec("UPDATE " + cl.table() + " SET expires_at = clock_timestamp() - interval '1 minute'")
				eventually(t, "it has expired", func() bool { _, found := get[int](t, own, "k"); return !found })
			}
			l := newLoader(1)
			loads := async(t, func() error { return own.GetOrSet(t.Context(), "k", new(int), l.load) })
			l.wait(t)
			tx, err := cl.db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback()
			if _, err := tx.ExecContext(t.Context(), "INSERT INTO "+cl.table()+` (key, value, version, codec) VALUES ('k', '2', 9, 'json')
				ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, version = EXCLUDED.version, expires_at = NULL`); err != nil {
				t.Fatal(err)
			}
			l.release()
			eventually(t, "the store waits", func() bool {
				return cl.count("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%StoreLoaded%' AND query LIKE '%'||$1||'%'", cl.opts.Schema) == 1
			})
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if err := loads(); err != nil {
				t.Fatal(err)
			}
			want(t, own, "k", 2)
			if n := own.Stats().Fenced; n != 1 {
				t.Errorf("%d values fenced", n)
			}
		})
	}
}

// P7 and P2 with a LocalTTL: memory serves for so long after it asked, and no longer than the row lives.
func TestP7_LocalTTL(t *testing.T) {
	t.Parallel()
	const short, long = 150 * time.Millisecond, time.Hour
	for name, tt := range map[string]struct{ local, row time.Duration }{
		"shorter than the row's life": {short, long},
		"longer than the row's life":  {long, short},
	} {
		for how, put := range map[string]func(t *testing.T, own, other *pgcache.Cache){
			"read":    func(t *testing.T, _, other *pgcache.Cache) { set(t, other, "k", 1, pgcache.TTL(tt.row)) },
			"written": func(t *testing.T, own, _ *pgcache.Cache) { set(t, own, "k", 1, pgcache.TTL(tt.row)) },
			"loaded": func(t *testing.T, own, _ *pgcache.Cache) {
				if err := own.GetOrSet(t.Context(), "k", new(int), func(context.Context) (any, error) { return 1, nil }, pgcache.TTL(tt.row)); err != nil {
					t.Error(err)
				}
			},
		} {
			t.Run(how+", "+name, func(t *testing.T) {
				t.Parallel()
				cl := newCluster(t)
				other := cl.node(nil)
				own := cl.on(testdb.DB(t), func(o *pgcache.Options) { o.LocalTTL = tt.local })
				var kept time.Time
				for own.Stats().LocalHits == 0 { // on a slow machine its time may be over too soon
					put(t, own, other)
					get[int](t, own, "k")
					kept = time.Now()
					get[int](t, own, "k")
				}
				cl.exec("UPDATE " + cl.table() + " SET value = '2', expires_at = NULL") // own is deaf
				for {
					began := time.Now()
					if v, found := get[int](t, own, "k"); found && v == 2 {
						break
					}
					if late := began.Sub(kept) - short; late > 0 {
						t.Fatalf("%v beyond its time, memory serves what was there before", late)
					}
				}
			})
		}
	}
}

// P7: the time that is left is the database's to say, whatever the row was written with, and one that takes the place of
// an expired row that was removed, of which nobody is told, is seen at once.
func TestP7_TheDatabaseCounts(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	cl.opts.InvalidationWindow = pgcache.Immediate // so that what is told comes in the order of the writes
	a, b := cl.node(nil), cl.node(nil)
	caughtUp := cl.follow(a, b, nil)
	set(t, a, "k", 1, pgcache.TTL(pgcache.NoExpiry))
	cl.exec("UPDATE " + cl.table() + " SET expires_at = clock_timestamp() + interval '1 s' WHERE key = 'k'")
	caughtUp()
	warm(t, b, "k", 1)
	var left float64
	asked := time.Now()
	if err := cl.db.QueryRowContext(t.Context(), "SELECT date_part('epoch', expires_at - clock_timestamp()) FROM "+cl.table()+" WHERE key = 'k'").Scan(&left); err != nil {
		t.Fatal(err)
	}
	expired := time.Now().Add(time.Duration(left * float64(time.Second)))
	early := asked.Add(time.Duration(left * float64(time.Second)))
	for {
		began := time.Now()
		_, found := get[int](t, b, "k")
		if found && began.After(expired.Add(50*time.Millisecond)) {
			t.Fatalf("served %v after it expired", began.Sub(expired))
		}
		if !found {
			if now := time.Now(); now.Before(early) {
				t.Errorf("gone %v before it expires", early.Sub(now))
			}
			break
		}
	}
	if n, err := a.Cleanup(t.Context()); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	before := b.Stats().Invalidations
	set(t, a, "k", 2)
	want(t, b, "k", 2)
	if told := b.Stats().Invalidations - before; told != 0 {
		t.Errorf("%d keys told, this should be silent", told)
	}
}

// P7: nothing is returned that nobody wrote, nor a mixture of what was written: a row that decodes halfway, and what is
// loaded in its place.
func TestP7_NoMixture(t *testing.T) {
	t.Parallel()
	type pair struct {
		A int    `json:",omitempty"`
		B string `json:",omitempty"`
	}
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)
	loader := func(context.Context) (pair, error) { return pair{A: 7}, nil }
	for _, c := range []*pgcache.Cache{a, b} { // who wrote it has it in memory
		for name, load := range map[string]func(key string) (pair, error){
			"typed": func(key string) (pair, error) { return pgcache.For[pair](c).GetOrSet(t.Context(), key, loader) },
			"untyped": func(key string) (p pair, err error) {
				err = c.GetOrSet(t.Context(), key, &p, func(ctx context.Context) (any, error) { return loader(ctx) })
				return p, err
			},
			"many": func(key string) (pair, error) {
				m, err := pgcache.For[pair](c).GetOrSetMany(t.Context(), []string{key}, func(context.Context, []string) (map[string]pair, error) {
					return map[string]pair{key: {A: 7}}, nil
				})
				return m[key], err
			},
		} {
			set(t, a, name, map[string]any{"B": "half", "A": "not a number"})
			if p, found := get[pair](t, c, name); found || p != (pair{}) {
				t.Errorf("Get: %+v, %v", p, found)
			}
			if p, found, err := pgcache.For[pair](c).Get(t.Context(), name); found || err != nil || p != (pair{}) {
				t.Errorf("Get of a type: %+v, %v, %v", p, found, err)
			}
			if p, err := load(name); err != nil || p != (pair{A: 7}) {
				t.Errorf("%s: %+v, %v", name, p, err)
			}
		}
	}
}

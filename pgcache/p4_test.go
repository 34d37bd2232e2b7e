package pgcache_test

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/driver/pqdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// P4 for reads of one key that are under way at the same time: once one of them has returned v2, none that saw v1 may
// fill the memory or be joined. The node receives nothing here.
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
				cl.opts.InvalidationWindow = pgcache.Immediate // so that what is published comes in the order of the writes
				a := cl.node(nil)
				b, w, link := cl.severable()
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
	cl.opts.InvalidationWindow = pgcache.Immediate // so that what is published comes in the order of the writes
	a := cl.node(nil)
	b, w, link := cl.severable()
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
			forGuards(t, func(t *testing.T, cl *cluster) {
				a := cl.node(nil)
				b, w, link := cl.severable()
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
		hits := func() (n uint64) {
			for _, c := range nodes {
				n += c.Stats().LocalHits
			}
			return n
		}
		goOn := func() bool { // longer where a busy machine has kept pulses waiting, so that memory was not served
			took := time.Since(clock)
			return took < lasts || took < time.Minute && hits() == 0
		}
		var wg sync.WaitGroup
		run := func(node int, step func(r *rand.Rand, key string, began time.Duration) error) {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(rand.Uint64(), 0))
				for goOn() && !t.Failed() {
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
		t.Logf("%d operations, %d hits in memory", len(events), hits())
		if hits() == 0 {
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

// P4: a node never goes back for a key. While its listener lags, a read that went to the database returned v2: neither
// an entry in memory nor a write that is under way may bring v1 back.
func TestP4_NeverBack(t *testing.T) {
	t.Parallel()
	lagging := func(t *testing.T) (cl *cluster, a, b *pgcache.Cache, link *testdb.Proxy, w *wire) {
		cl = newCluster(t)
		a = cl.node(nil)
		link = testdb.NewProxy(t, testdb.DSN(t))
		b, w = cl.wired(func(o *pgcache.Options) {
			o.Listener = calm(pgxdriver.DialDSN(link.DSN()))
		})
		t.Cleanup(link.Thaw)
		return cl, a, b, link, w
	}
	t.Run("an entry in memory", func(t *testing.T) {
		t.Parallel()
		_, a, b, link, _ := lagging(t)
		eventually(t, "it cannot know yet", func() bool { // once more where a busy machine keeps a pulse waiting, so that it asks
			link.Thaw()
			set(t, a, "k", "v1")
			warm(t, b, "k", "v1")
			link.Freeze()
			set(t, a, "k", "v2")
			v, _ := get[string](t, b, "k")
			return v == "v1"
		})
		// A view with another codec asks the database, and so b has seen v2.
		if _, found, err := pgcache.For[string](b, pgcache.WithCodec(codec.Gob{})).Get(t.Context(), "k"); found || err != nil {
			t.Fatal(found, err)
		}
		want(t, b, "k", "v2")
		eventually(t, "it cannot know of the Delete", func() bool {
			set(t, a, "k", "v2")
			warm(t, b, "k", "v2")
			del(t, a, "k")
			_, found := get[string](t, b, "k")
			return found
		})
		if _, found, err := pgcache.For[string](b, pgcache.WithCodec(codec.Gob{})).Get(t.Context(), "k"); found || err != nil {
			t.Fatal(found, err)
		}
		wantNone(t, b, "k")
	})
	t.Run("a read under way", func(t *testing.T) {
		t.Parallel()
		_, a, b, link, wire := lagging(t)
		set(t, a, "k", "v1")
		link.Freeze()
		reply := wire.after(named("GetEntry"))
		first := async(t, func() error { _, err := b.Get(t.Context(), "k", new(string)); return err })
		reply.wait(t)
		set(t, a, "k", "v2")
		m, err := pgcache.For[string](b).GetMany(t.Context(), []string{"k", "l"})
		if err != nil || m["k"] != "v2" {
			t.Fatal(m, err)
		}
		reply.release()
		if err := first(); err != nil {
			t.Fatal(err)
		}
		want(t, b, "k", "v2")
	})
	t.Run("a write under way", func(t *testing.T) {
		t.Parallel()
		_, a, b, link, wire := lagging(t)
		set(t, a, "k", "v0")
		link.Freeze()
		reply := wire.after(named("PutEntry"))
		written := async(t, func() error { return b.Set(t.Context(), "k", "v1") })
		reply.wait(t)
		set(t, a, "k", "v2")
		want(t, b, "k", "v2")
		reply.release()
		if err := written(); err != nil {
			t.Fatal(err)
		}
		want(t, b, "k", "v2")
	})
	t.Run("under load", func(t *testing.T) {
		t.Parallel()
		const keys, writes = 4, 300
		cl := newCluster(t)
		nodes := []*pgcache.Cache{cl.node(nil), cl.node(nil)}
		var wg sync.WaitGroup
		var stop atomic.Bool
		// One writer a key, so that its numbers only grow; the key's own node reads it back at once (P3).
		for k := range keys {
			wg.Go(func() {
				defer stop.Store(true)
				key, c := strconv.Itoa(k), nodes[k%len(nodes)]
				for v := 1; v <= writes && !t.Failed(); v++ {
					set := c.Set(t.Context(), key, v)
					var got int
					if _, err := c.Get(t.Context(), key, &got); err != nil || set != nil || got != v {
						t.Errorf("%s: wrote %d, then read %d; %v, %v", key, v, got, set, err)
					}
				}
			})
		}
		for r := range 4 {
			wg.Go(func() {
				c, last := nodes[r%len(nodes)], map[string]int{}
				for i := 0; !stop.Load(); i++ {
					key := strconv.Itoa(i % keys)
					var v int
					if _, err := c.Get(t.Context(), key, &v); err != nil || v < last[key] {
						t.Errorf("%s: %d after %d, %v", key, v, last[key], err)
					}
					last[key] = v
				}
			})
		}
		wg.Wait()
	})
}

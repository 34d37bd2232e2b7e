package pgcache_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

func TestGetOrSetMany(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c, wire := cl.wired(func(o *pgcache.Options) { o.InvalidationWindow = pgcache.Immediate })
	other := cl.node(nil)
	typed := pgcache.For[int](c, pgcache.Namespace("n"))
	ctx := t.Context()
	keys := func(from, to int) (ks []string) {
		for i := from; i < to; i++ {
			ks = append(ks, strconv.Itoa(i))
		}
		return ks
	}
	values := func(ks []string) map[string]int {
		m := map[string]int{}
		for _, k := range ks {
			m[k], _ = strconv.Atoi(k)
		}
		return m
	}
	var asked []string
	load := func(_ context.Context, missing []string) (map[string]int, error) {
		asked = slices.Clone(missing)
		return values(missing), nil
	}
	// Rows that are there: one statement.
	if err := pgcache.For[int](other, pgcache.Namespace("n")).SetMany(ctx, values(keys(0, 10))); err != nil {
		t.Fatal(err)
	}
	wire.forget()
	m, err := typed.GetOrSetMany(ctx, keys(0, 10), load)
	if err != nil || !cmp.Equal(m, values(keys(0, 10))) || asked != nil {
		t.Fatal(m, err, asked)
	}
	if got, want := wire.statements(), []string{"GetEntries"}; !cmp.Equal(got, want) {
		t.Errorf("sent %q", got)
	}
	// Keys in memory: none.
	inTime(t, func() error { // where a busy machine keeps a pulse waiting nothing is answered from memory
		wire.forget()
		if m, err = typed.GetOrSetMany(ctx, keys(0, 10), load); err != nil || len(m) != 10 {
			t.Fatal(m, err)
		}
		if got := wire.statements(); len(got) != 0 {
			return fmt.Errorf("sent %q", got)
		}
		return nil
	})
	// Absent keys: the loader gets these, each once, in one call; one statement stores them.
	set(t, other, "n:13", -13)
	wire.forget()
	m, err = typed.GetOrSetMany(ctx, append(keys(5, 15), keys(10, 15)...), load)
	expected := values(keys(5, 15))
	expected["13"] = -13
	if err != nil || !cmp.Equal(m, expected) {
		t.Error(err, cmp.Diff(expected, m))
	}
	if !cmp.Equal(asked, []string{"10", "11", "12", "14"}) {
		t.Errorf("the loader was asked for %q", asked)
	}
	eventually(t, "the locks are given back", func() bool { return wire.count(named("Unlocks")) > 0 })
	for query, times := range map[string]int{"GetEntries": 1, "GetEntry": 0, "LockAndLook": 1, "StoreLoaded": 1, "Unlocks": 1} {
		if n := wire.count(named(query)); n != times { // the lock session's own affairs aside
			t.Errorf("%s was sent %d times, want %d: %q", query, n, times, wire.statements())
		}
	}
	for k, v := range expected {
		if got, found := get[int](t, other, "n:"+k); !found || got != v {
			t.Errorf("%s: %d, %v", k, got, found)
		}
	}
	// Keys that the loader leaves out are absent, and are asked for again; others that it returns are not looked at.
	calls := 0
	for range 2 {
		m, err = typed.GetOrSetMany(ctx, []string{"0", "none", "20"}, func(context.Context, []string) (map[string]int, error) {
			calls++
			return map[string]int{"20": 20, "0": 999, "foreign": 1}, nil
		})
		if err != nil || !cmp.Equal(m, map[string]int{"0": 0, "20": 20}) {
			t.Error(m, err)
		}
	}
	if calls != 2 {
		t.Errorf("%d calls", calls)
	}
	wantNone(t, other, "n:foreign")
	wantNone(t, other, "n:none")
	if v, _ := get[int](t, other, "n:0"); v != 0 {
		t.Errorf("a key that was there was overwritten: %d", v)
	}
	// A loader's error, once; what was there is returned beside it.
	boom := errors.New("boom")
	m, err = typed.GetOrSetMany(ctx, []string{"0", "30", "31"}, func(context.Context, []string) (map[string]int, error) { return map[string]int{"30": 30}, boom })
	if !errors.Is(err, boom) || strings.Count(err.Error(), "boom") != 1 || !cmp.Equal(m, map[string]int{"0": 0}) {
		t.Error(m, err)
	}
	wantNone(t, other, "n:30")
	var panicked *pgcache.PanicError
	if _, err = typed.GetOrSetMany(ctx, []string{"30", "31"}, func(context.Context, []string) (map[string]int, error) { panic("boom") }); !errors.As(err, &panicked) {
		t.Error(err)
	}
	if _, err = typed.GetOrSetMany(ctx, []string{"30", "31"}, func(context.Context, []string) (map[string]int, error) { runtime.Goexit(); return nil, nil }); !errors.Is(err, pgcache.ErrLoaderExited) {
		t.Error(err)
	}
	// One value that can't be stored fails alone.
	anys := pgcache.For[any](c, pgcache.Namespace("any"))
	vs, err := anys.GetOrSetMany(ctx, []string{"good", "bad", "fine"}, func(context.Context, []string) (map[string]any, error) {
		return map[string]any{"good": 1.0, "bad": make(chan int), "fine": "x"}, nil
	})
	cause(t, err, "get or set many", "any:bad")
	if !cmp.Equal(vs, map[string]any{"good": 1.0, "fine": "x"}) {
		t.Error(vs)
	}
	want2, _ := get[any](t, other, "any:good")
	if want2 != 1.0 {
		t.Error(want2)
	}
	cl.noLocks()
}

// Calls for overlapping keys on several nodes: each key is loaded once on each node at the most, and
// everybody gets everything.
func TestOverlappingLoads(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		const nodes, callers, keys, width = 3, 4, 40, 15
		cl := newCluster(t)
		var mu sync.Mutex
		loads := map[string]int{}
		var wg sync.WaitGroup
		var calls atomic.Int64
		for n := range nodes {
			db := testdb.Open(t, driver, testdb.DSN(t))
			c := cl.on(db, func(o *pgcache.Options) { o.Listener = listenerOf(driver, db, testdb.DSN(t)) })
			typed := pgcache.For[string](c)
			for i := range callers {
				wg.Go(func() {
					for round := range 4 {
						var ks []string
						for k := range width {
							ks = append(ks, fmt.Sprintf("%d:%d", round, (n*7+i*11+k)%keys))
						}
						load := func(_ context.Context, missing []string) (map[string]string, error) {
							calls.Add(1)
							m := map[string]string{}
							mu.Lock()
							defer mu.Unlock()
							for _, k := range missing {
								loads[k]++
								m[k] = "v" + k
							}
							return m, nil
						}
						m, err := typed.GetOrSetMany(t.Context(), ks, load)
						if err != nil || len(m) != width {
							t.Errorf("%d values, %v", len(m), err)
						}
						for k, v := range m {
							if v != "v"+k {
								t.Errorf("%s: %s", k, v)
							}
						}
						// One at a time beside them.
						one, err := typed.GetOrSet(t.Context(), ks[0], func(ctx context.Context) (string, error) {
							m, err := load(ctx, ks[:1])
							return m[ks[0]], err
						})
						if err != nil || one != "v"+ks[0] {
							t.Error(one, err)
						}
					}
				})
			}
		}
		wg.Wait()
		for _, k := range slices.Sorted(maps.Keys(loads)) {
			// A process has locks for some of its loads only; each loads a key once.
			if loads[k] < 1 || loads[k] > nodes {
				t.Errorf("%s: loaded %d times", k, loads[k])
			}
		}
		cl.noLocks()
	})
}

// A codec for one call is that of the values that it loads, as for GetOrSet.
func TestGetOrSetManyWithCodec(t *testing.T) {
	t.Parallel()
	c := newCluster(t).node(nil)
	v := pgcache.For[int](c, pgcache.Namespace("n"))
	for range 2 { // the second time from memory or the database
		all, err := v.GetOrSetMany(t.Context(), []string{"a", "b"}, func(_ context.Context, missing []string) (map[string]int, error) {
			return map[string]int{"a": 1, "b": 2}, nil
		}, pgcache.WithCodec(codec.Gob{}))
		if err != nil || len(all) != 2 || all["b"] != 2 {
			t.Error(all, err)
		}
	}
}

// The error of a value that can't be encoded is that of its own key, and not of one that the loader left out.
func TestGetOrSetManyErrorsAreOfTheirKey(t *testing.T) {
	t.Parallel()
	c := newCluster(t).node(nil)
	v := pgcache.For[float64](c, pgcache.Namespace("n"))
	all, err := v.GetOrSetMany(t.Context(), []string{"nan", "none", "one"}, func(context.Context, []string) (map[string]float64, error) {
		return map[string]float64{"nan": math.NaN(), "one": 1}, nil
	})
	if err == nil || strings.Count(err.Error(), "get or set many") != 1 || !strings.Contains(err.Error(), `"n:nan"`) || !maps.Equal(all, map[string]float64{"one": 1}) {
		t.Errorf("%v, %v", all, err)
	}
}

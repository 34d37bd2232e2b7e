package pgcache_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

var errSource = errors.New("the source is down")

func fails(context.Context) (string, error) { return "", errSource }

func returns(s string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return s, nil }
}

// age makes the entry expire a moment ago, and waits until nodes know: a trigger publishes it.
func (cl *cluster) age(key string, nodes ...*pgcache.Cache) {
	cl.t.Helper()
	cl.exec("UPDATE "+cl.table()+" SET expires_at = clock_timestamp() - interval '1 second' WHERE key = $1", key)
	for _, c := range nodes {
		eventually(cl.t, "it has expired", func() bool { _, found := get[string](cl.t, c, key); return !found })
	}
}

// fetched is what Fetch returns of a load that is not told anything.
func fetched(t *testing.T, v *pgcache.Typed[string], load func(context.Context) (string, error), opts ...pgcache.Option) (pgcache.Result[string], error) {
	t.Helper()
	return v.Fetch(t.Context(), "k", func(ctx context.Context, _ *pgcache.Load[string]) (string, error) { return load(ctx) }, opts...)
}

func wantStale(t *testing.T, r pgcache.Result[string], err error, value string, why error) {
	t.Helper()
	if err != nil || r.Value != value || !r.Stale || !errors.Is(r.Err, why) {
		t.Fatalf("%+v, %v; want a stale %q because of %v", r, err, value, why)
	}
}

// A loader that fails in whatever way is answered with the stale value; then it is left alone, and a Delete, a Set and the end of StaleFor
// are seen at once.
func TestStaleFor(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		db := testdb.Open(t, driver, testdb.DSN(t))
		// Without memory: what is stale lies in the table.
		c := cl.on(db, func(o *pgcache.Options) { o.LoadTimeout = 200 * time.Millisecond })
		v := pgcache.For[string](c, pgcache.TTL(time.Minute), pgcache.StaleFor(time.Hour))
		plain := pgcache.For[string](c)
		for name, load := range map[string]func(ctx context.Context) (string, error){
			"error": fails,
			"panic": func(context.Context) (string, error) { panic(errSource) },
			"hang":  func(ctx context.Context) (string, error) { <-ctx.Done(); return "", errors.Join(errSource, ctx.Err()) },
		} {
			if err := v.Set(t.Context(), name, "old"); err != nil {
				t.Fatal(err)
			}
			cl.age(name)
			if _, found, err := v.Get(t.Context(), name); found || err != nil {
				t.Errorf("%s: Get: %v, %v", name, found, err)
			}
			if s, err := plain.GetOrSet(t.Context(), name, load); err == nil {
				t.Errorf("%s: a view that did not ask for it got %q", name, s)
			}
			loads := c.Stats().Loads
			for range 5 { // the later ones without a load
				if s, err := v.GetOrSet(t.Context(), name, load); err != nil || s != "old" {
					t.Fatalf("%s: %q, %v", name, s, err)
				}
			}
			if n := c.Stats().Loads - loads; n != 1 {
				t.Errorf("%s: %d loads", name, n)
			}
			// Many keys at once, of which one has nothing.
			many, err := v.GetOrSetMany(t.Context(), []string{name, "never " + name}, func(context.Context, []string) (map[string]string, error) { return nil, errSource })
			if !errors.Is(err, errSource) || len(many) != 1 || many[name] != "old" {
				t.Errorf("%s: %v, %v", name, many, err)
			}
			switch name {
			case "error":
				del(t, c, name)
				if s, err := v.GetOrSet(t.Context(), name, load); !errors.Is(err, errSource) {
					t.Errorf("after a Delete: %q, %v", s, err)
				}
			case "panic":
				set(t, c, name, "new") // through another view: nothing is stale of it
				if s, err := v.GetOrSet(t.Context(), name, load); err != nil || s != "new" {
					t.Errorf("after a Set: %q, %v", s, err)
				}
				cl.age(name)
				if s, err := v.GetOrSet(t.Context(), name, load); err == nil {
					t.Errorf("of a row without StaleFor: %q", s)
				}
			case "hang":
				cl.exec("UPDATE "+cl.table()+" SET stale_until = clock_timestamp() WHERE key = $1", name)
				if s, err := v.GetOrSet(t.Context(), name, load); err == nil {
					t.Errorf("after StaleFor: %q", s)
				}
			}
		}
		if n := c.Stats().Stale; n != 3*6 {
			t.Errorf("%d stale values were counted", n)
		}
		cl.noLocks()
	})
}

// ErrNotFound is what the source says: it ends the stale value, for all that come later.
func TestStaleEndsWithNotFound(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c, other := cl.node(nil), cl.node(nil)
	v := pgcache.For[string](c, pgcache.StaleFor(time.Hour))
	if err := v.Set(t.Context(), "k", "old"); err != nil {
		t.Fatal(err)
	}
	cl.age("k", c, other)
	if s, err := v.GetOrSet(t.Context(), "k", func(context.Context) (string, error) { return "", pgcache.ErrNotFound }); !errors.Is(err, pgcache.ErrNotFound) {
		t.Error(s, err)
	}
	for _, c := range []*pgcache.Cache{c, other} {
		if s, err := pgcache.For[string](c, pgcache.StaleFor(time.Hour)).GetOrSet(t.Context(), "k", fails); !errors.Is(err, errSource) {
			t.Errorf("%q, %v", s, err)
		}
	}
}

// A hundred callers of a stale key on two nodes whose loader hangs: one load in the fleet, and all have their value in time.
func TestSoftTimeout(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)
	opts := []pgcache.ViewOption{pgcache.StaleFor(time.Hour), pgcache.SoftTimeout(50 * time.Millisecond)}
	va, vb := pgcache.For[string](a, opts...), pgcache.For[string](b, opts...)
	if err := va.Set(t.Context(), "k", "old"); err != nil {
		t.Fatal(err)
	}
	cl.age("k", a, b)
	l := newLoader("new")
	load := func(ctx context.Context) (string, error) { v, err := l.load(ctx); s, _ := v.(string); return s, err }
	var results []func() error
	for i := range 100 {
		v := []*pgcache.Typed[string]{va, vb}[i%2]
		results = append(results, async(t, func() error {
			r, err := fetched(t, v, load)
			if err == nil && (r.Value != "old" || !r.Stale || r.Source != pgcache.FromDatabase || !errors.Is(r.Err, pgcache.ErrLoadTimeout)) {
				t.Errorf("%+v", r)
			}
			return err
		}))
	}
	for _, result := range results {
		if err := result(); err != nil {
			t.Error(err)
		}
	}
	if n := l.calls.Load(); n != 1 {
		t.Errorf("%d loads", n)
	}
	// A Delete elsewhere, while the load runs: who comes after it gets nothing that is stale.
	del(t, b, "k")
	late := async(t, func() error {
		r, err := fetched(t, va, load, pgcache.HardTimeout(200*time.Millisecond))
		if err == nil {
			t.Errorf("after a Delete: %+v", r)
		}
		return err
	})
	if err := late(); !errors.Is(err, pgcache.ErrLoadTimeout) || !strings.Contains(err.Error(), "HardTimeout (200ms)") {
		t.Error(err)
	}
	l.release()
	cl.noLocks()
}

// Without a stale value a caller waits for HardTimeout. The load goes on and is stored.
func TestHardTimeout(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	v := pgcache.For[string](c, pgcache.HardTimeout(50*time.Millisecond))
	l := newLoader("new")
	load := func(ctx context.Context) (string, error) { v, err := l.load(ctx); s, _ := v.(string); return s, err }
	for late := 0; late < 3; { // on a busy machine a call may be over before its load has begun
		if r, err := fetched(t, v, load); !errors.Is(err, pgcache.ErrLoadTimeout) {
			t.Fatalf("%+v, %v", r, err)
		}
		if l.calls.Load() > 0 {
			late++
		}
	}
	many, err := v.GetOrSetMany(t.Context(), []string{"k", "l"}, func(ctx context.Context, keys []string) (map[string]string, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	if !errors.Is(err, pgcache.ErrLoadTimeout) || len(many) != 0 {
		t.Errorf("%v, %v", many, err)
	}
	l.release()
	eventually(t, "the load is stored", func() bool { s, found := get[string](t, c, "k"); return found && s == "new" })
	if n := l.calls.Load(); n != 1 {
		t.Errorf("%d loads", n)
	}
	began := time.Now()
	if err := c.Close(); err != nil || time.Since(began) > 20*time.Second { // the loader of l is under way still
		t.Error(err, time.Since(began))
	}
}

// Two nodes that read an entry all the time have it loaded again once, before it expires, and nobody waits.
func TestRefreshAfter(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)
	opts := []pgcache.ViewOption{pgcache.TTL(time.Minute), pgcache.RefreshAfter(0.5)}
	va, vb := pgcache.For[string](a, opts...), pgcache.For[string](b, opts...)
	if err := va.Set(t.Context(), "k", "old", pgcache.TTL(25*time.Second)); err != nil { // due at once
		t.Fatal(err)
	}
	l := newLoader("new")
	load := func(ctx context.Context) (string, error) { v, err := l.load(ctx); s, _ := v.(string); return s, err }
	read := func(v *pgcache.Typed[string]) string {
		s, err := v.GetOrSet(t.Context(), "k", load)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for range 100 {
		if x, y := read(va), read(vb); x != "old" || y != "old" {
			t.Fatal(x, y)
		}
	}
	eventually(t, "a load begins", func() bool { // one that gets no lock in time calls no loader, and another read begins the next
		read(va)
		read(vb)
		return l.calls.Load() > 0
	})
	l.release()
	eventually(t, "both have the new one", func() bool { return read(va) == "new" && read(vb) == "new" })
	time.Sleep(50 * time.Millisecond)
	s, u := a.Stats(), b.Stats()
	if n, early := l.calls.Load(), s.EarlyLoads+u.EarlyLoads; n != 1 || early == 0 || early > 1+s.EarlyErrors+u.EarlyErrors {
		t.Errorf("%d loads, %+v, %+v", n, s, u)
	}
	failed := a.Stats().EarlyErrors
	// What fails leaves the value, and is not tried again at once.
	if err := va.Set(t.Context(), "k", "due", pgcache.TTL(25*time.Second)); err != nil {
		t.Fatal(err)
	}
	calls := make(chan struct{}, 1000)
	due := func() {
		if s, err := va.GetOrSet(t.Context(), "k", func(context.Context) (string, error) { calls <- struct{}{}; return "", errSource }); err != nil || s != "due" {
			t.Fatal(s, err)
		}
	}
	eventually(t, "it is counted", func() bool { due(); return a.Stats().EarlyErrors > failed })
	for range 100 {
		due()
	}
	if n := len(calls); n > 1 {
		t.Errorf("%d loads that failed", n)
	}
	cl.noLocks()
}

// A loader's ErrNotFound is kept: on this node without a statement, on others without a load, and until a Set.
func TestNegativeTTL(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		db, w := openWire(t, driver, testdb.DSN(t))
		a := cl.on(db, func(o *pgcache.Options) { o.Listener = listenerOf(driver, db, testdb.DSN(t)) })
		b := cl.node(nil)
		caughtUp := cl.follow(b, a, w)
		va, vb := pgcache.For[string](a, pgcache.NegativeTTL(time.Minute)), pgcache.For[string](b, pgcache.NegativeTTL(time.Minute))
		calls := 0
		nothing := func(context.Context) (string, error) { calls++; return "", pgcache.ErrNotFound }
		eventually(t, "it is kept in memory", func() bool {
			before := w.count(named("GetEntr")) + w.count(named("LockAndLook"))
			_, err := va.GetOrSet(t.Context(), "k", nothing)
			if !errors.Is(err, pgcache.ErrNotFound) {
				t.Fatal(err)
			}
			_, found, err := va.Get(t.Context(), "k")
			many, err2 := va.GetOrSetMany(t.Context(), []string{"k"}, func(context.Context, []string) (map[string]string, error) { calls++; return nil, nil })
			if found || len(many) != 0 || errors.Join(err, err2) != nil {
				t.Fatal(found, many, err, err2)
			}
			return w.count(named("GetEntr"))+w.count(named("LockAndLook")) == before
		})
		if _, err := vb.GetOrSet(t.Context(), "k", nothing); !errors.Is(err, pgcache.ErrNotFound) || calls != 1 {
			t.Errorf("%v, %d loads", err, calls)
		}
		if s := a.Stats(); s.NegativeHits == 0 || s.DecodeErrors != 0 {
			t.Errorf("%+v", s)
		}
		wantNone(t, b, "k") // a view without the option
		set(t, b, "k", "there")
		caughtUp()
		if s, err := va.GetOrSet(t.Context(), "k", nothing); err != nil || s != "there" {
			t.Error(s, err)
		}
		// Keys that a loader of many leaves out; and a view without the option loads them.
		for range 2 {
			many, err := va.GetOrSetMany(t.Context(), []string{"k", "x", "y"}, func(_ context.Context, keys []string) (map[string]string, error) {
				calls += 10
				return map[string]string{"x": "x"}, nil
			})
			if err != nil || len(many) != 2 || many["x"] != "x" {
				t.Error(many, err)
			}
		}
		if calls != 11 {
			t.Errorf("%d calls", calls)
		}
		var s string
		if err := b.GetOrSet(t.Context(), "y", &s, func(context.Context) (any, error) { return "y", nil }); err != nil || s != "y" {
			t.Error(s, err)
		}
		// An error of the loader is not kept.
		if _, err := va.GetOrSetMany(t.Context(), []string{"z"}, func(context.Context, []string) (map[string]string, error) { return nil, errSource }); !errors.Is(err, errSource) {
			t.Error(err)
		}
		if n := cl.count("SELECT count(*) FROM " + cl.table() + " WHERE key = 'z'"); n != 0 {
			t.Error("a failure is stored")
		}
	})
}

// What a loader of Fetch is told and says.
func TestFetch(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	v := pgcache.For[string](c, pgcache.StaleFor(time.Hour))
	r, err := v.Fetch(t.Context(), "k", func(_ context.Context, l *pgcache.Load[string]) (string, error) {
		if old, ok := l.Stale(); ok {
			t.Error(old)
		}
		l.SetTTL(30 * time.Second)
		l.SetTags("a", "b")
		return "old", nil
	})
	if err != nil || r.Value != "old" || r.Source != pgcache.FromLoader || r.Stale || r.Err != nil {
		t.Fatalf("%+v, %v", r, err)
	}
	if n := cl.count("SELECT count(*) FROM " + cl.table() + " WHERE key = 'k' AND tags = '{a,b}' AND expires_at BETWEEN clock_timestamp() AND clock_timestamp() + interval '30 s' AND stale_until > expires_at"); n != 1 {
		t.Error("not stored so")
	}
	eventually(t, "it is in memory", func() bool {
		r, err := fetched(t, v, fails)
		if err != nil || r.Value != "old" {
			t.Fatalf("%+v, %v", r, err)
		}
		return r.Source == pgcache.FromMemory
	})
	if r, err := fetched(t, pgcache.For[string](cl.node(nil)), fails); err != nil || r.Source != pgcache.FromDatabase {
		t.Errorf("%+v, %v", r, err)
	}
	cl.age("k")
	v = pgcache.For[string](cl.on(testdb.DB(t), nil), pgcache.StaleFor(time.Hour)) // without memory
	r, err = v.Fetch(t.Context(), "k", func(_ context.Context, l *pgcache.Load[string]) (string, error) {
		old, ok := l.Stale()
		if !ok || old != "old" {
			t.Error(old, ok)
		}
		l.DoNotStore()
		return "passing", nil
	})
	if err != nil || r.Value != "passing" || r.Source != pgcache.FromLoader {
		t.Errorf("%+v, %v", r, err)
	}
	r, err = fetched(t, v, fails)
	wantStale(t, r, err, "old", errSource)
	if _, err := v.Fetch(t.Context(), "other", func(_ context.Context, l *pgcache.Load[string]) (string, error) { l.SetTTL(-1); return "", nil }); !errors.Is(err, pgcache.ErrInvalidTTL) {
		t.Error(err)
	}
	if _, err := v.Fetch(t.Context(), "k", nil); err == nil {
		t.Error("a nil loader")
	}
}

// Options that make no sense are refused by every call of the view, and by the call that brings them.
func TestInvalidResilience(t *testing.T) {
	t.Parallel()
	c := pgcache.Null()
	defer c.Close()
	for name, opts := range map[string][]pgcache.Option{
		"StaleFor(-1ns)":     {pgcache.StaleFor(-1)},
		"HardTimeout(-1s)":   {pgcache.HardTimeout(-time.Second)},
		"NegativeTTL(":       {pgcache.NegativeTTL(pgcache.MaxTTL + 1)},
		"without StaleFor":   {pgcache.SoftTimeout(time.Second)},
		"RefreshAfter(1)":    {pgcache.RefreshAfter(1)},
		"RefreshAfter(-0.1)": {pgcache.RefreshAfter(-0.1)},
		"RefreshAfter(NaN)":  {pgcache.RefreshAfter(math.NaN())},
	} {
		var as []pgcache.ViewOption
		for _, o := range opts {
			as = append(as, o)
		}
		_, inView := pgcache.For[string](c, as...).GetOrSet(t.Context(), "k", returns("x"))
		_, inCall := pgcache.For[string](c).GetOrSet(t.Context(), "k", returns("x"), opts...)
		for _, err := range []error{inView, inCall} {
			if !errors.Is(err, pgcache.ErrInvalidOption) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	// StaleFor(0) turns both off.
	v := pgcache.For[string](c, pgcache.StaleFor(time.Hour), pgcache.SoftTimeout(time.Second))
	if s, err := v.GetOrSet(t.Context(), "k", returns("x"), pgcache.StaleFor(0)); err != nil || s != "x" {
		t.Error(s, err)
	}
}

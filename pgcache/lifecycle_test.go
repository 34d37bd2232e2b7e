package pgcache_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// everything calls all methods with good arguments.
func everything(ctx context.Context, c *pgcache.Cache) map[string]error {
	typed := pgcache.For[int](c, pgcache.Namespace("n"))
	load := func(context.Context) (int, error) { return 1, nil }
	loadMany := func(_ context.Context, keys []string) (map[string]int, error) {
		m := map[string]int{}
		for _, k := range keys {
			m[k] = 1
		}
		return m, nil
	}
	errs := map[string]error{
		"Set": c.Set(ctx, "k", 1), "Delete": c.Delete(ctx, "k"), "Clear": c.Clear(ctx), "Ready": c.Ready(ctx),
		"GetOrSet":  c.GetOrSet(ctx, "k", new(int), func(context.Context) (any, error) { return 1, nil }),
		"typed Set": typed.Set(ctx, "k", 1), "typed Delete": typed.Delete(ctx, "k"), "Delete of none": c.Delete(ctx),
		"SetMany": typed.SetMany(ctx, map[string]int{"a": 1, "b": 2}), "SetMany of none": typed.SetMany(ctx, nil),
	}
	_, errs["Get"] = c.Get(ctx, "k", new(int))
	_, errs["Cleanup"] = c.Cleanup(ctx)
	_, errs["MigrationState"] = c.MigrationState(ctx)
	_, _, errs["typed Get"] = typed.Get(ctx, "k")
	_, errs["typed GetOrSet"] = typed.GetOrSet(ctx, "k", load)
	_, errs["GetMany"] = typed.GetMany(ctx, []string{"a", "b"})
	_, errs["GetMany of none"] = typed.GetMany(ctx, nil)
	_, errs["GetOrSetMany of none"] = typed.GetOrSetMany(ctx, nil, loadMany)
	_, errs["GetOrSetMany"] = typed.GetOrSetMany(ctx, []string{"a", "b"}, loadMany)
	_, errs["Increment"] = c.Increment(ctx, "counter", 1)
	_, errs["SetIfAbsent"] = c.SetIfAbsent(ctx, "absent", 1)
	_, errs["typed SetIfAbsent"] = typed.SetIfAbsent(ctx, "absent", 1)
	_, errs["Touch"] = c.Touch(ctx, "k", time.Minute)
	_, errs["typed Touch"] = typed.Touch(ctx, "k", time.Minute)
	_, errs["Update"] = typed.Update(ctx, "k", func(old int, _ bool) (int, error) { return old + 1, nil })
	_, _, errs["GetEntry"] = typed.GetEntry(ctx, "k")
	errs["Entries"], errs["Keys"] = nil, nil
	for _, err := range typed.Entries(ctx) {
		errs["Entries"] = errors.Join(errs["Entries"], err)
	}
	for _, err := range c.Keys(ctx, "n:") {
		errs["Keys"] = errors.Join(errs["Keys"], err)
	}
	return errs
}

func TestClosed(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	for name, err := range everything(t.Context(), c) {
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for name, err := range everything(t.Context(), c) {
		if !errors.Is(err, pgcache.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if s := c.Stats(); s.Sets == 0 {
		t.Errorf("%+v", s)
	}
}

// Nothing of ours is left after Close, and the pool is the caller's as before.
func TestCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		app := cl.opts.Schema + driver
		dsn := testdb.WithParam(testdb.DSN(t), "application_name", app)
		db := testdb.Open(t, driver, dsn)
		sessions := func() int { return cl.count("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", app) }
		for round := range 3 {
			var nodes []*pgcache.Cache
			for i := range 2 { // two caches on one pool share listener and lock session
				c := cl.on(db, func(o *pgcache.Options) {
					o.Listener, o.Prefix = listenerOf(driver, db, dsn), fmt.Sprint("p", i, "_")
				})
				for name, err := range everything(t.Context(), c) {
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
				}
				nodes = append(nodes, c)
			}
			nodes[round%2].Close()
			other := nodes[1-round%2]
			l := newLoader(1)
			loaded := async(t, func() error { return other.GetOrSet(t.Context(), fmt.Sprint("loaded", round), new(int), l.load) })
			l.wait(t)
			other.Close()
			if err := loaded(); !errors.Is(err, pgcache.ErrClosed) {
				t.Error(err)
			}
			if n := db.Stats().InUse; n != 0 {
				t.Errorf("%d connections of the pool are still in use", n)
			}
			if err := db.PingContext(t.Context()); err != nil {
				t.Error("the pool is closed:", err)
			}
			db.SetMaxIdleConns(-1)
			eventually(t, "the sessions have ended", func() bool { return sessions() == 0 })
			db.SetMaxIdleConns(2)
		}
	})
}

// Close while everything is going on: operations end well or with ErrClosed, and nothing hangs.
func TestCloseUnderLoad(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	db := testdb.DB(t)
	cl.on(db, nil)
	slow := 0 // on a machine that stalls one may be
	for round := range 15 {
		c := cl.new(db, func(o *pgcache.Options) { o.Listener = listenerOf("pgx", db, "") })
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				for n := 0; ; n++ {
					errs := map[string]error{}
					key := strconv.Itoa((n + i) % 5)
					switch n % 5 {
					case 0:
						errs["Set"] = c.Set(t.Context(), key, n)
					case 1:
						_, errs["Get"] = c.Get(t.Context(), key, new(int))
					case 2:
						errs["Delete"] = c.Delete(t.Context(), key)
					case 3:
						_, errs["GetOrSetMany"] = pgcache.For[int](c).GetOrSetMany(t.Context(), []string{key, "x"}, func(_ context.Context, keys []string) (map[string]int, error) {
							return map[string]int{keys[0]: 1}, nil
						})
					case 4:
						errs["GetOrSet"] = c.GetOrSet(t.Context(), key, new(int), func(ctx context.Context) (any, error) { return n, ctx.Err() })
					}
					for name, err := range errs {
						if errors.Is(err, pgcache.ErrClosed) {
							return
						}
						if err != nil {
							t.Errorf("%s: %v", name, err)
							return
						}
					}
				}
			})
		}
		if round%3 > 0 { // else before it is live
			cl.ready(c)
		}
		time.Sleep(time.Duration(round) * time.Millisecond)
		began := time.Now()
		c.Close()
		if took := time.Since(began); took > 2*time.Second {
			t.Logf("Close took %v", took)
			slow++
		}
		wg.Wait()
	}
	if slow > 2 {
		t.Errorf("%d of 15 times Close took more than two seconds", slow)
	}
	cl.noLocks()
}

// Close does not wait for a loader that does not listen to its context, nor for a server that is silent.
func TestCloseIsQuick(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	link := testdb.NewProxy(t, testdb.DSN(t))
	db := testdb.Open(t, "pgx", link.DSN())
	for _, silent := range []bool{false, true} {
		c := cl.on(db, func(o *pgcache.Options) { o.Listener = listenerOf("pgx", db, "") })
		loaderEnds, began := make(chan struct{}), make(chan struct{})
		defer close(loaderEnds)
		if silent {
			set(t, c, "k", 1)
			link.Freeze()
			defer link.Thaw()
		} else {
			loaded := async(t, func() error {
				return c.GetOrSet(t.Context(), "k", new(int), func(context.Context) (any, error) { close(began); <-loaderEnds; return 1, nil })
			})
			<-began
			defer func() {
				if err := loaded(); !errors.Is(err, pgcache.ErrClosed) {
					t.Error(err)
				}
			}()
		}
		start := time.Now()
		c.Close()
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("silent %v: Close took %v", silent, took)
		}
	}
}

func TestNull(t *testing.T) {
	t.Parallel()
	c := pgcache.Null()
	ctx := t.Context()
	for range 2 {
		for name, err := range everything(ctx, c) {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	set(t, c, "k", 1)
	wantNone(t, c, "k")
	loads := 0
	for range 3 {
		var v user
		if err := c.GetOrSet(ctx, "k", &v, func(context.Context) (any, error) { loads++; return user{ID: 7, Roles: []string{"x"}}, nil }); err != nil || v.ID != 7 {
			t.Error(v, err)
		}
	}
	if loads != 3 {
		t.Errorf("%d loads", loads)
	}
	view := pgcache.For[int](c, pgcache.Namespace("n"))
	if m, err := view.GetMany(ctx, []string{"a"}); len(m) != 0 || err != nil {
		t.Error(m, err)
	}
	m, err := view.GetOrSetMany(ctx, []string{"a", "b", "c"}, func(_ context.Context, keys []string) (map[string]int, error) {
		return map[string]int{"a": 1, "b": len(keys)}, nil
	})
	if err != nil || !cmp.Equal(m, map[string]int{"a": 1, "b": 3}) {
		t.Error(m, err)
	}
	// Keys, TTLs and values are checked as ever.
	wantErr(t, c.Set(ctx, "", 1), pgcache.ErrInvalidKey)
	wantErr(t, c.Delete(ctx, "a\x00"), pgcache.ErrInvalidKey)
	_, err = c.Get(ctx, "\xff", new(int))
	wantErr(t, err, pgcache.ErrInvalidKey)
	wantErr(t, c.Set(ctx, "k", 1, pgcache.TTL(-5)), pgcache.ErrInvalidTTL)
	wantErr(t, c.Set(ctx, "k", strings.Repeat("x", pgcache.DefaultMaxValueBytes)), pgcache.ErrValueTooLarge)
	if err := c.Set(ctx, "k", make(chan int)); err == nil {
		t.Error("a channel was encoded")
	}
	wantErr(t, c.GetOrSet(ctx, "k", new(int), func(ctx context.Context) (any, error) {
		return 1, c.GetOrSet(ctx, "k", new(int), noLoad(t))
	}), pgcache.ErrRecursiveLoad)
	// And it closes.
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Error(err)
	}
	for name, err := range everything(ctx, c) {
		if !errors.Is(err, pgcache.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

package pgcache_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// Whatever a loader does instead of returning a value: every waiter gets that error, the lock is free, nothing is stored,
// and the next call loads.
func TestLoaderFails(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	other := cl.node(nil)
	boom := errors.New("boom")
	var paniced *pgcache.PanicError
	for name, test := range map[string]struct {
		end   func(ctx context.Context) (any, error)
		check func(err error) bool
	}{
		"an error":      {func(context.Context) (any, error) { return nil, boom }, func(err error) bool { return errors.Is(err, boom) }},
		"not found":     {func(context.Context) (any, error) { return 1, pgcache.ErrNotFound }, func(err error) bool { return errors.Is(err, pgcache.ErrNotFound) }},
		"its own cause": {func(context.Context) (any, error) { return nil, context.Canceled }, func(err error) bool { return errors.Is(err, context.Canceled) }},
		"a panic": {func(context.Context) (any, error) { panic("boom") }, func(err error) bool {
			return errors.As(err, &paniced) && paniced.Value == "boom" && strings.Contains(string(paniced.Stack), "load_test.go")
		}},
		"a panic with an error": {func(context.Context) (any, error) { panic(boom) }, func(err error) bool { return errors.Is(err, boom) && errors.As(err, &paniced) }},
		"a nil panic":           {func(context.Context) (any, error) { panic(nil) }, func(err error) bool { return errors.As(err, &paniced) }},
		"Goexit":                {func(context.Context) (any, error) { runtime.Goexit(); return nil, nil }, func(err error) bool { return errors.Is(err, pgcache.ErrLoaderExited) }},
		"its own key": {func(ctx context.Context) (any, error) {
			return pgcache.For[int](c).GetOrSet(ctx, "its own key", func(context.Context) (int, error) { return 1, nil })
		}, func(err error) bool { return errors.Is(err, pgcache.ErrRecursiveLoad) }},
	} {
		t.Run(name, func(t *testing.T) {
			const waiters = 5
			l := newLoader(nil)
			var results []func() error
			load := func(ctx context.Context) (any, error) {
				_, _ = l.load(ctx)
				return test.end(ctx)
			}
			before := c.Stats()
			for range waiters {
				results = append(results, async(t, func() error { return c.GetOrSet(t.Context(), name, new(int), load) }))
			}
			l.wait(t)
			eventually(t, "all wait", func() bool { return c.Stats().Coalesced == before.Coalesced+waiters-1 })
			l.release()
			for _, result := range results {
				if err := result(); !test.check(err) {
					t.Errorf("a waiter got %v", err)
				} else if !errors.Is(err, pgcache.ErrNotFound) { // which is returned as it is
					cause(t, err, "get or set", name)
				}
			}
			if n := l.calls.Load(); n != 1 {
				t.Errorf("%d calls", n)
			}
			if s := c.Stats(); s.Loads != before.Loads+1 || s.LoadErrors+s.NotFound != before.LoadErrors+before.NotFound+1 {
				t.Errorf("%+v", s)
			}
			cl.noLocks()
			if n := cl.count("SELECT count(*) FROM "+cl.table()+" WHERE key = $1", name); n != 0 {
				t.Error("something is stored")
			}
			var v int
			if err := other.GetOrSet(t.Context(), name, &v, func(context.Context) (any, error) { return 7, nil }); err != nil || v != 7 {
				t.Errorf("the next call: %v, %v", v, err)
			}
			want(t, c, name, 7)
		})
	}
}

// A loader may use the cache, but not wait for itself: not through a view, not for many keys, not around a corner.
func TestRecursion(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c, other := cl.node(nil), cl.node(nil)
	view := pgcache.For[int](c, pgcache.Namespace("user"))
	plain := pgcache.For[int](c)
	one := func(context.Context) (int, error) { return 1, nil }
	oneAny := func(context.Context) (any, error) { return 1, nil }
	none := func(context.Context, []string) (map[string]int, error) { return nil, nil }
	untyped := func(ctx context.Context, key string) error { return c.GetOrSet(ctx, key, new(int), oneAny) }

	for name, nested := range map[string]func(ctx context.Context) error{
		"untyped":    func(ctx context.Context) error { return untyped(ctx, "user:1") },
		"view":       func(ctx context.Context) error { _, err := view.GetOrSet(ctx, "1", one); return err },
		"plain view": func(ctx context.Context) error { _, err := plain.GetOrSet(ctx, "user:1", one); return err },
		"many": func(ctx context.Context) error {
			_, err := view.GetOrSetMany(ctx, []string{"0", "1"}, none)
			return err
		},
		"another context": func(ctx context.Context) error { return untyped(context.WithoutCancel(ctx), "user:1") },
		"another key between": func(ctx context.Context) error {
			_, err := plain.GetOrSet(ctx, "between", func(ctx context.Context) (int, error) { return 0, untyped(ctx, "user:1") })
			return err
		},
	} {
		for outer, call := range map[string]func(ctx context.Context, load func(ctx context.Context) error) error{
			"untyped": func(ctx context.Context, load func(ctx context.Context) error) error {
				return c.GetOrSet(ctx, "user:1", new(int), func(ctx context.Context) (any, error) { return 1, load(ctx) })
			},
			"view": func(ctx context.Context, load func(ctx context.Context) error) error {
				_, err := view.GetOrSet(ctx, "1", func(ctx context.Context) (int, error) { return 1, load(ctx) })
				return err
			},
			"many": func(ctx context.Context, load func(ctx context.Context) error) error {
				_, err := view.GetOrSetMany(ctx, []string{"1", "2"}, func(ctx context.Context, _ []string) (map[string]int, error) { return nil, load(ctx) })
				return err
			},
		} {
			began := time.Now()
			if err := call(t.Context(), nested); !errors.Is(err, pgcache.ErrRecursiveLoad) {
				t.Errorf("%s in %s: %v", name, outer, err)
			}
			if took := time.Since(began); took > 20*time.Second { // LoadTimeout is 30 s
				t.Errorf("%s in %s: took %v", name, outer, took)
			}
		}
	}
	// What is no recursion: another key, another cache's same key, a Get, a Set.
	var v int
	err := c.GetOrSet(t.Context(), "user:1", &v, func(ctx context.Context) (any, error) {
		_, getErr := c.Get(ctx, "user:1", new(int))
		return 5, errors.Join(getErr, untyped(ctx, "user:2"), c.Set(ctx, "user:3", 3), c.Delete(ctx, "user:4"))
	})
	if err != nil || v != 5 {
		t.Error(v, err)
	}
	want(t, other, "user:2", 1)
	null := pgcache.Null()
	defer null.Close()
	err = null.GetOrSet(t.Context(), "k", &v, func(ctx context.Context) (any, error) { return 6, c.GetOrSet(ctx, "k", new(int), oneAny) })
	if err != nil || v != 6 {
		t.Error(v, err)
	}
	cl.noLocks()
}

// A caller that gives up leaves the load to the others; the last one ends it.
func TestWaitersLeave(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	t.Run("the first", func(t *testing.T) {
		l := newLoader(7)
		ctx, cancel := context.WithCancel(t.Context())
		var v int
		first := async(t, func() error { return c.GetOrSet(ctx, "first", new(int), l.load) })
		l.wait(t)
		before := c.Stats().Coalesced
		second := async(t, func() error { return c.GetOrSet(t.Context(), "first", &v, noLoad(t)) })
		eventually(t, "the second waits", func() bool { return c.Stats().Coalesced == before+1 })
		cancel()
		if err := first(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		l.release()
		if err := second(); err != nil || v != 7 {
			t.Error(v, err)
		}
		want(t, c, "first", 7)
	})
	t.Run("the last", func(t *testing.T) {
		ended := make(chan error, 1)
		l := newLoader(nil)
		ctx, cancel := context.WithCancel(t.Context())
		var waiters []func() error
		for range 3 {
			waiters = append(waiters, async(t, func() error {
				return c.GetOrSet(ctx, "last", new(int), func(ctx context.Context) (any, error) {
					_, err := l.load(ctx)
					ended <- err
					return nil, err
				})
			}))
		}
		l.wait(t)
		cancel()
		for _, w := range waiters {
			if err := w(); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Error("nobody waits, and the loader still runs")
		}
		cl.noLocks()
		// And does not stand in the way of the next.
		var v int
		if err := c.GetOrSet(t.Context(), "last", &v, func(context.Context) (any, error) { return 8, nil }); err != nil || v != 8 {
			t.Error(v, err)
		}
	})
	t.Run("values of the context", func(t *testing.T) {
		type key struct{}
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "x"), time.Hour)
		defer cancel()
		err := c.GetOrSet(ctx, "values", new(int), func(ctx context.Context) (any, error) {
			if ctx.Value(key{}) != "x" {
				t.Error("the loader does not have the caller's values")
			}
			if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > pgcache.DefaultLoadTimeout {
				t.Error("the loader's deadline is not LoadTimeout's:", deadline, ok)
			}
			return 1, nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("before it began", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.GetOrSet(ctx, "never", new(int), noLoad(t)); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestLoadTimeout(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.on(testdb.DB(t), func(o *pgcache.Options) { o.LoadTimeout = 500 * time.Millisecond })
	l := newLoader(1)
	silent := make(chan struct{})
	defer close(silent)
	for name, load := range map[string]func(context.Context) (any, error){
		"obeys its context":   l.load,
		"ignores its context": func(context.Context) (any, error) { <-silent; return 1, nil },
		"wraps its context":   func(ctx context.Context) (any, error) { <-ctx.Done(); return nil, fmt.Errorf("query: %w", ctx.Err()) },
	} {
		began := time.Now()
		err := c.GetOrSet(t.Context(), name, new(int), load)
		wantErr(t, err, pgcache.ErrLoadTimeout)
		if took := time.Since(began); took > 20*time.Second { // else it is not over before the loader is
			t.Errorf("%s: took %v", name, took)
		}
		if err != nil && !strings.Contains(err.Error(), "500ms") {
			t.Errorf("%s: the error does not name the timeout: %v", name, err)
		}
		cl.noLocks()
		var v int
		if err := c.GetOrSet(t.Context(), name, &v, func(context.Context) (any, error) { return 7, nil }); err != nil || v != 7 {
			t.Errorf("%s: the next call: %v, %v", name, v, err)
		}
	}
}

// What a loader returns that the caller can't take is an error, for that caller.
func TestLoadedTypes(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	l := newLoader("a string")
	first := async(t, func() error { return c.GetOrSet(t.Context(), "k", new(string), l.load) })
	l.wait(t)
	second := async(t, func() error { return c.GetOrSet(t.Context(), "k", new(int), noLoad(t)) })
	eventually(t, "the second waits", func() bool { return c.Stats().Coalesced == 1 })
	l.release()
	if err := first(); err != nil {
		t.Error(err)
	}
	if e := cause(t, second(), "get or set", "k"); !strings.Contains(e.Error(), "decode") {
		t.Error(e)
	}
	// Later it finds a row that does not decode: it loads anew and overwrites.
	var v int
	if err := c.GetOrSet(t.Context(), "k", &v, func(context.Context) (any, error) { return 7, nil }); err != nil || v != 7 {
		t.Error(v, err)
	}
	want(t, c, "k", 7)
	if n := c.Stats().DecodeErrors; n == 0 {
		t.Error("not counted")
	}
}

// While a key is deleted all the time, a process runs one loader of it at a time: who came after a Delete shares the next.
func TestOneLoaderUnderDeletes(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c, other := cl.node(nil), cl.node(nil)
	var running, most, loads atomic.Int32
	load := func(context.Context) (any, error) {
		loads.Add(1)
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer running.Add(-1)
		time.Sleep(200 * time.Millisecond)
		return 1, nil
	}
	inTime(t, func() error {
		loads.Store(0)
		ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
		defer stop()
		var callers, deleters sync.WaitGroup
		var worst atomic.Int64
		for _, d := range []*pgcache.Cache{c, other} {
			deleters.Go(func() {
				for ctx.Err() == nil {
					del(t, d, "k")
					time.Sleep(5 * time.Millisecond)
				}
			})
		}
		for ctx.Err() == nil {
			callers.Go(func() {
				began := time.Now()
				var v int
				if err := c.GetOrSet(t.Context(), "k", &v, load); err != nil || v != 1 {
					t.Error(v, err)
				}
				for took := int64(time.Since(began)); ; {
					if before := worst.Load(); took <= before || worst.CompareAndSwap(before, took) {
						break
					}
				}
			})
			time.Sleep(5 * time.Millisecond)
		}
		deleters.Wait()
		callers.Wait()
		if most.Load() != 1 || loads.Load() > 20 {
			t.Errorf("%d loaders at once, %d loads", most.Load(), loads.Load())
		}
		if took := time.Duration(worst.Load()); took > 3*time.Second { // two loads and a busy machine
			return fmt.Errorf("a caller waited for %v", took)
		}
		return nil
	})
}

// Two loaders that ask for each other's key would wait for each other until LoadTimeout.
func TestRingOfLoaders(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	var both sync.WaitGroup
	both.Add(2)
	ask := func(own, others string) func() error {
		return async(t, func() error {
			return c.GetOrSet(t.Context(), own, new(int), func(ctx context.Context) (any, error) {
				both.Done()
				both.Wait()
				var v int
				err := c.GetOrSet(ctx, others, &v, func(context.Context) (any, error) { return 1, nil })
				return v, err
			})
		})
	}
	began := time.Now()
	a, b := ask("a", "b"), ask("b", "a")
	if errA, errB := a(), b(); !errors.Is(errA, pgcache.ErrRecursiveLoad) && !errors.Is(errB, pgcache.ErrRecursiveLoad) {
		t.Error(errA, errB)
	}
	if took := time.Since(began); took > 20*time.Second { // LoadTimeout is 30 s
		t.Errorf("after %v", took)
	}
}

// What a loader says of a key that is not there reaches the callers as it is, and is no error of the loader.
func TestNotFound(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	err := c.GetOrSet(t.Context(), "k", new(int), func(context.Context) (any, error) { return nil, pgcache.ErrNotFound })
	if err != pgcache.ErrNotFound { //nolint:errorlint // as it is
		t.Error(err)
	}
	if s := c.Stats(); s.LoadErrors != 0 || s.NotFound != 1 || s.Loads != 1 {
		t.Errorf("%+v", s)
	}
}

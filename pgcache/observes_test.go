package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// balanced counts what begins and what ends.
type balanced struct {
	mu          sync.Mutex
	began       map[string]int // by kind and name
	open, twice int
}

func (b *balanced) Open(func() pgcache.Stats) func() { return nil }
func (b *balanced) Event(pgcache.Event)              {}

func (b *balanced) Begin(ctx context.Context, op pgcache.Op) (context.Context, func(pgcache.Outcome)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.began[fmt.Sprint(op.Kind, " ", op.Name)]++
	b.open++
	ended := 0
	return ctx, func(pgcache.Outcome) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.open--; ended > 0 {
			b.twice++
		}
		ended++
	}
}

func (b *balanced) count(what string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.began[what]
}

// every calls each method that goes beyond memory once, and says under which name an Observer is to be shown it.
func every(ctx context.Context, c *pgcache.Cache) (names []string, errs error) {
	v := pgcache.For[int](c, pgcache.Namespace("ns"), pgcache.Tags("t"))
	did := func(name string, err error) { names, errs = append(names, name), errors.Join(errs, err) }
	did("set", c.Set(ctx, "k", 1))
	_, err := c.Increment(ctx, "k", 1)
	did("increment", err)
	_, err = c.SetIfAbsent(ctx, "k", 1)
	did("set if absent", err)
	_, err = c.Touch(ctx, "k", time.Minute)
	did("touch", err)
	_, err = v.Update(ctx, "u", func(old int, _ bool) (int, error) { return old + 1, nil })
	did("update", err)
	_, _, err = v.GetEntry(ctx, "u")
	did("get entry", err)
	for _, err = range c.Keys(ctx, "") {
		errs = errors.Join(errs, err)
	}
	did("keys", nil)
	for _, err = range v.Entries(ctx) {
		errs = errors.Join(errs, err)
	}
	did("entries", nil)
	_, _, err = v.Get(ctx, "none")
	did("get", err)
	_, err = v.GetOrSet(ctx, "x", func(context.Context) (int, error) { return 1, nil })
	did("get or set", err)
	_, err = v.Fetch(ctx, "y", func(context.Context, *pgcache.Load[int]) (int, error) { return 1, nil })
	did("fetch", err)
	_, err = v.GetMany(ctx, []string{"none", "no"})
	did("get many", err)
	_, err = v.GetOrSetMany(ctx, []string{"z"}, func(context.Context, []string) (map[string]int, error) { return nil, nil })
	did("get or set many", err)
	did("set many", v.SetMany(ctx, map[string]int{"a": 1}))
	did("delete", v.Delete(ctx, "a"))
	did("delete tags", c.DeleteTags(ctx, "t"))
	did("delete prefix", c.DeletePrefix(ctx, "ns"))
	did("clear", c.Clear(ctx))
	return names, errs
}

// Each call is shown, begins once and ends once, and so does each statement, load and wait.
func TestObserverIsShownEachCall(t *testing.T) {
	t.Parallel()
	b := &balanced{began: map[string]int{}}
	cl := newCluster(t)
	c := cl.on(testdb.DB(t), func(o *pgcache.Options) { o.Observer = b })
	names, err := every(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if n := b.count("1 " + name); n != 1 {
			t.Errorf("%q is shown %d times", name, n)
		}
	}
	// Set, Increment, SetIfAbsent, Touch, Update, SetMany and Delete.
	if n := b.count("2 write"); n != 7 {
		t.Errorf("%d writes are shown", n)
	}
	// Of Update, GetEntry, Keys, Entries, Get, GetOrSet, Fetch, GetMany and GetOrSetMany.
	if n := b.count("2 read"); n != 9 {
		t.Errorf("%d reads are shown", n)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open != 0 || b.twice != 0 {
		t.Errorf("%d are open, %d ended twice", b.open, b.twice)
	}
}

// panics panics wherever it can.
type panics struct{ n atomic.Int64 }

func (p *panics) do() { p.n.Add(1); panic("a key, perhaps") }

func (p *panics) Open(func() pgcache.Stats) func() { return p.do }
func (p *panics) Event(pgcache.Event)              { p.do() }

func (p *panics) Begin(ctx context.Context, op pgcache.Op) (context.Context, func(pgcache.Outcome)) {
	if len(op.Name)%2 == 0 {
		p.do()
	}
	return nil, func(pgcache.Outcome) { p.do() } //nolint:staticcheck // it breaks what it was asked for
}

// An Observer that panics, on whichever goroutine, fails no call and stops nothing; and what it panics with is not logged.
func TestObserverPanics(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	p := &panics{}
	cl := newCluster(t)
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) {
		o.Observer, o.Logger = p, slog.New(slog.NewTextHandler(&locked{w: &log}, nil))
	})
	other := cl.node(nil)
	for range 3 {
		if _, err := every(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	set(t, other, "k", 0)
	for i := range 5 { // the listener goes on, and the flush
		set(t, c, "k", i)
		warm(t, other, "k", i)
		set(t, other, "k", -i)
		eventually(t, "it is seen", func() bool { v, _ := get[int](t, c, "k"); return v == -i })
	}
	var wg sync.WaitGroup
	for range 50 { // statements that callers share
		wg.Go(func() {
			var v int
			if _, err := c.Get(t.Context(), "shared", &v); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if n := p.n.Load(); n < 20 {
		t.Errorf("it has panicked %d times", n)
	}
	if s := log.String(); !strings.Contains(s, "the Observer panicked") || strings.Contains(s, "a key") {
		t.Error(s)
	}
}

// locked is a writer for several goroutines.
type locked struct {
	mu sync.Mutex
	w  *strings.Builder
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

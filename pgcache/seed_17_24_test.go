package pgcache_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// S33 is about the load harness, which has tests of its own.

// A loader that took longer than the lock's timeout, 5 s, made every waiter fail.
func TestS17_LockTimeoutIsNoError(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.node(nil)
	b := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.LockTimeout = 100 * time.Millisecond })
	l := newLoader("slow")
	slow := async(t, func() error { return a.GetOrSet(t.Context(), "k", new(string), l.load) })
	l.wait(t)
	var v string
	began := time.Now()
	err := b.GetOrSet(t.Context(), "k", &v, func(context.Context) (any, error) { return "mine", nil })
	if err != nil || v != "mine" {
		t.Errorf("%q, %v", v, err)
	}
	if waited := time.Since(began); waited < 100*time.Millisecond {
		t.Errorf("it loaded after %v: before LockTimeout", waited)
	}
	l.release()
	if err := slow(); err != nil {
		t.Error(err)
	}
	want(t, b, "k", "mine") // the slow one did not store over it
}

// The loader read its source, invalidate came, and the loader stored what it had read: for a whole TTL.
func TestS18_StaleSet(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)
	l := newLoader("old")
	loaded := async(t, func() error { return a.GetOrSet(t.Context(), "k", new(string), l.load) })
	l.wait(t)
	del(t, b, "k")
	l.release()
	if err := loaded(); err != nil {
		t.Fatal(err)
	}
	wantNone(t, a, "k")
	wantNone(t, b, "k")
	if n := a.Stats().Fenced; n != 1 {
		t.Errorf("%d values fenced", n)
	}
}

// get_or_set of a key inside its own loader waited for itself, 5 s long.
func TestS19_RecursiveLoad(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	began := time.Now()
	err := c.GetOrSet(t.Context(), "k", new(int), func(ctx context.Context) (any, error) {
		var v int
		return v, c.GetOrSet(ctx, "k", &v, func(context.Context) (any, error) { return 1, nil })
	})
	wantErr(t, err, pgcache.ErrRecursiveLoad)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("after %v", took)
	}
	cl.noLocks()
}

// Unlocking could fail, or reach another session: then the lock stayed.
func TestS20_LockSessionLost(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)
	for round := range 3 {
		key := strconv.Itoa(round)
		l := newLoader("v" + key)
		loaded := async(t, func() error { return a.GetOrSet(t.Context(), key, new(string), l.load) })
		l.wait(t)
		if n := cl.keyLocks("count(pg_terminate_backend(pid))"); n != 1 {
			t.Fatalf("%d locks", n)
		}
		l.release()
		if err := loaded(); err != nil {
			t.Fatal(err)
		}
		cl.noLocks()
		want(t, b, key, "v"+key)
		// The next load locks again.
		next := newLoader("next" + key)
		loaded = async(t, func() error { return a.GetOrSet(t.Context(), "next"+key, new(string), next.load) })
		next.wait(t)
		if n := cl.locks(); n != 1 {
			t.Errorf("%d locks during the next load", n)
		}
		next.release()
		if err := loaded(); err != nil {
			t.Fatal(err)
		}
		cl.noLocks()
	}
	if s := a.Stats(); s.Loads != 6 {
		t.Errorf("%+v", s)
	}
}

// The lock was a hash of the bare key: caches with other prefixes, and an application's own locks, were in its way.
func TestS21_LocksOfOthers(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.Prefix = "a_" })
	b := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.Prefix = "b_" })
	other := newCluster(t).node(func(_ *sql.DB, o *pgcache.Options) { o.Prefix = "a_" }) // in another schema

	// All the single numbers that a hash of the key could be.
	app, err := cl.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	for _, lock := range []string{"hashtext('k')", "hashtextextended('k', 0)", strconv.Itoa(int(store.Hash("k")))} {
		if _, err := app.ExecContext(t.Context(), "SELECT pg_advisory_lock("+lock+"::bigint)"); err != nil {
			t.Fatal(err)
		}
	}
	l := newLoader(1)
	first := async(t, func() error { return a.GetOrSet(t.Context(), "k", new(int), l.load) })
	l.wait(t)
	for _, c := range []*pgcache.Cache{b, other} {
		began := time.Now()
		if err := c.GetOrSet(t.Context(), "k", new(int), func(context.Context) (any, error) { return 2, nil }); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("waited %v for a stranger", took)
		}
	}
	l.release()
	if err := first(); err != nil {
		t.Fatal(err)
	}
	want(t, a, "k", 1)
	want(t, b, "k", 2)
}

// The channel was written into the trigger when the tables were made; a process with another one received nothing, for ever.
func TestS22_AnotherChannel(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	cl.node(nil)
	c := cl.new(testdb.DB(t), func(o *pgcache.Options) { o.Channel = "another" })
	for name, err := range map[string]error{
		"Ready": c.Ready(t.Context()), "Migrate": c.Migrate(t.Context()), "Set": c.Set(t.Context(), "k", 1),
		"GetOrSet": c.GetOrSet(t.Context(), "k", new(int), func(context.Context) (any, error) { return 1, nil }),
	} {
		var e *pgcache.SchemaError
		if !errors.As(err, &e) || e.WantChannel != "another" || e.HaveChannel != cl.names().Channel || e.Have != e.Want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A channel of more than 63 bytes was cut by LISTEN and refused by pg_notify: every write failed.
func TestS23_LongChannel(t *testing.T) {
	t.Parallel()
	if _, err := pgcache.New(testdb.DB(t), pgcache.Options{Channel: strings.Repeat("c", 64)}); err == nil || !strings.Contains(err.Error(), "Channel") {
		t.Error(err)
	}
	cl := newCluster(t)
	for prefix, channel := range map[string]string{"p": "", "q": cl.opts.Schema + strings.Repeat("C", 63-len(cl.opts.Schema))} {
		cl.opts.Prefix, cl.opts.Channel = strings.Repeat(prefix, 41), channel
		a, b := cl.node(nil), cl.node(nil)
		set(t, a, "k", 1)
		warm(t, b, "k", 1)
		set(t, a, "k", 2)
		eventually(t, "b receives", func() bool { return b.Stats().Invalidations > 0 })
		warm(t, b, "k", 2)
	}
}

// A long key fitted the index when it compressed well, but not a notification: the write failed.
func TestS24_LongKeys(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	cl.opts.InvalidationWindow = pgcache.Immediate
	a, b := cl.node(nil), cl.node(nil)
	random := make([]byte, pgcache.MaxKeyBytes)
	for i := range random {
		random[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[rand.N(36)]
	}
	for i, key := range []string{strings.Repeat("k", pgcache.MaxKeyBytes), string(random), strings.Repeat("\U0001F5DD", pgcache.MaxKeyBytes/4)} {
		set(t, a, key, 1)
		warm(t, b, key, 1)
		set(t, a, key, 2)
		eventually(t, "b receives", func() bool { return b.Stats().Invalidations == uint64(i+1) })
		warm(t, b, key, 2)
		for _, long := range []string{key + "k", strings.Repeat(key, 8)} {
			wantErr(t, a.Set(t.Context(), long, 1), pgcache.ErrInvalidKey)
		}
	}
}

// loader is a loader that a test lets go.
type loader struct {
	value   any
	calls   atomic.Int64
	began   chan struct{}
	resumed chan struct{}
	once    sync.Once
}

func newLoader(value any) *loader {
	return &loader{value: value, began: make(chan struct{}, 1000), resumed: make(chan struct{})}
}

// load waits to be released, or for its context.
func (l *loader) load(ctx context.Context) (any, error) {
	l.calls.Add(1)
	l.began <- struct{}{}
	select {
	case <-l.resumed:
		return l.value, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (l *loader) release() { l.once.Do(func() { close(l.resumed) }) }

// wait waits until the loader runs.
func (l *loader) wait(t *testing.T) {
	t.Helper()
	select {
	case <-l.began:
	case <-time.After(15 * time.Second):
		t.Fatal("the loader is not called")
	}
}

var (
	_ = bytes.Equal
	_ = pgxdriver.Listener
)

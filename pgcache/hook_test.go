package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// calls records the calls of OnInvalidate.
type calls struct {
	mu   sync.Mutex
	all  int      // calls with nil
	keys []string // of the others
}

func (h *calls) add(keys []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if keys == nil {
		h.all++
	}
	h.keys = append(h.keys, keys...)
}

func (h *calls) get() (all int, keys []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all, slices.Clone(h.keys)
}

// wait waits for another call with nil than those before change.
func (h *calls) wait(t *testing.T, what string, change func()) {
	t.Helper()
	before, _ := h.get()
	change()
	eventually(t, what+" is reported as nil", func() bool { all, _ := h.get(); return all > before })
}

// hooked is a node that records, and was told of everything once: its listener has come up.
func (cl *cluster) hooked(change func(db *sql.DB, o *pgcache.Options)) (*pgcache.Cache, *calls) {
	cl.t.Helper()
	h := &calls{}
	c := cl.node(func(db *sql.DB, o *pgcache.Options) {
		o.OnInvalidate, o.Listener = h.add, calm(pgxdriver.Dial(db)) // what is published while a listener is down is reported as nil
		if change != nil {
			change(db, o)
		}
	})
	h.settle(cl.t)
	return c, h
}

// settle waits for what the start of a listener brings, and forgets it.
func (h *calls) settle(t *testing.T) {
	t.Helper()
	eventually(t, "the start of the listener is reported", func() bool { all, _ := h.get(); return all > 0 })
}

// Every invalidation comes with the keys of the rows and in order, also those of the node's own writes and of foreign ones.
func TestOnInvalidate(t *testing.T) {
	t.Parallel()
	forWindows(t, func(t *testing.T, cl *cluster) {
		a := cl.node(nil)
		b, h := cl.hooked(nil)
		users := pgcache.For[int](a, pgcache.Namespace("user"))
		for _, key := range []string{"user:1", "plain", "mine", "foreign", "tx"} {
			set(t, a, key, 0) // the first write of a key is not published
		}
		var want []string
		step := func(key string, change func()) {
			t.Helper()
			want = append(want, key)
			change()
			eventually(t, key+" is reported", func() bool {
				_, keys := h.get()
				return len(keys) >= len(want) && slices.Equal(slices.Compact(keys), want)
			})
		}
		step("user:1", func() {
			if err := users.Set(t.Context(), "1", 1); err != nil {
				t.Error(err)
			}
		})
		step("plain", func() { del(t, a, "plain") })
		step("mine", func() { set(t, b, "mine", 1) })
		step("foreign", func() { cl.exec("UPDATE " + cl.table() + " SET value = '2' WHERE key = 'foreign'") })
		step("tx", func() {
			tx, err := cl.db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.WithTx(tx).Set(t.Context(), "tx", 1); err != nil {
				t.Error(err)
			}
			if err := tx.Commit(); err != nil {
				t.Error(err)
			}
		})
	})
}

// When the program is called, the cache has applied the invalidation: what the program reads anew is not from before.
func TestOnInvalidateComesAfterTheCache(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	cl.opts.InvalidationWindow = pgcache.Immediate
	a := cl.node(nil)
	set(t, a, "k", 0)
	var self atomic.Pointer[pgcache.Cache]
	read := make(chan int, 100)
	b := cl.node(func(db *sql.DB, o *pgcache.Options) {
		o.Listener = calm(pgxdriver.Dial(db))
		o.OnInvalidate = func(keys []string) {
			if keys == nil {
				return
			}
			var v int
			if _, err := self.Load().Get(context.Background(), "k", &v); err != nil {
				t.Error(err)
			}
			read <- v
		}
	})
	self.Store(b)
	for i := 1; i <= 50; i++ {
		warm(t, b, "k", i-1)
		set(t, a, "k", i)
		if v := <-read; v != i {
			t.Fatalf("%d is read in the call, %d was written", v, i)
		}
	}
}

// Whatever makes the cache forget everything is reported as nil.
func TestOnInvalidateOfEverything(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.node(nil)
	link := testdb.NewProxy(t, testdb.DSN(t))
	b, h := cl.hooked(func(_ *sql.DB, o *pgcache.Options) { o.Listener = pgxdriver.ListenerDSN(link.DSN()) })
	h.wait(t, "Clear here", func() { _ = b.Clear(t.Context()) })
	h.wait(t, "Clear elsewhere", func() { _ = a.Clear(t.Context()) })
	h.wait(t, "TRUNCATE", func() { cl.exec("TRUNCATE " + cl.table()) })
	h.wait(t, "an unknown message", func() { cl.exec("SELECT pg_notify($1, 'what?')", cl.names().Channel) })
	// What comes after this mark is of the listener.
	set(t, a, "mark", 0)
	set(t, a, "mark", 1)
	eventually(t, "the mark is reported", func() bool { _, keys := h.get(); return slices.Contains(keys, "mark") })
	h.wait(t, "a lost listener", link.Cut)
	h.wait(t, "a listener that is back", func() { link.Restore(); cl.ready(b) })
}

// A message that hides a key which this node does not know can't name it.
func TestOnInvalidateHidden(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	cl.opts.HideKeys = true
	a := cl.node(nil)
	b, h := cl.hooked(nil)
	set(t, a, "known", 0)
	set(t, a, "unknown", 0)
	v := 0
	inTime(t, func() error { // a pulse that a busy machine keeps waiting is reported as everything too
		warm(t, b, "known", v)
		before, was := h.get()
		v++
		set(t, a, "known", v)
		eventually(t, "the known key is reported", func() bool { _, keys := h.get(); return slices.Contains(keys[len(was):], "known") })
		if all, _ := h.get(); all != before {
			return errors.New("a known key was reported as everything")
		}
		return nil
	})
	h.wait(t, "an unknown key", func() { set(t, a, "unknown", 1) })
}

// A call that takes long holds up nobody: the cache goes on, and what waits becomes one nil when it is too much.
func TestOnInvalidateOverflow(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.node(nil)
	view := pgcache.For[int](a)
	values := map[string]int{} // few at a time, or a flush publishes everything
	for i := range 100 {
		values[fmt.Sprint("many", i)] = i
	}
	write := func() {
		t.Helper()
		if err := view.SetMany(t.Context(), values); err != nil {
			t.Fatal(err)
		}
	}
	write()
	set(t, a, "k", 0)
	var h calls
	var block atomic.Bool
	running, release := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(release) })
	b := cl.node(func(db *sql.DB, o *pgcache.Options) {
		o.Listener = calm(pgxdriver.Dial(db))
		o.OnInvalidate = func(keys []string) {
			if block.CompareAndSwap(true, false) {
				running <- struct{}{}
				<-release
			}
			h.add(keys)
		}
	})
	t.Cleanup(once)
	h.settle(t)
	warm(t, b, "k", 0)
	block.Store(true)
	set(t, a, "k", 1)
	<-running
	all, _ := h.get()
	for range 50 {
		n := b.Stats().Invalidations
		write()
		eventually(t, "the cache applies them meanwhile", func() bool { return b.Stats().Invalidations >= n+uint64(len(values)) })
	}
	once()
	eventually(t, "everything is reported", func() bool { now, _ := h.get(); return now > all })
	if now, keys := h.get(); now > all+5 || // one, and one for each pulse that a busy machine keeps waiting
		!slices.Equal(keys, []string{"k"}) {
		t.Errorf("%d calls with nil, and %d keys that begin with %q", now-all, len(keys), keys[:1])
	}
	set(t, a, "k", 3)
	eventually(t, "keys are reported again", func() bool { _, keys := h.get(); return slices.Equal(keys, []string{"k", "k"}) })
}

// A panic is logged without what it says, and neither it nor a goroutine that ends keeps the next call from coming.
func TestOnInvalidatePanics(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.node(nil)
	set(t, a, "k", 0)
	var h calls
	var end atomic.Pointer[func()]
	var log strings.Builder
	var mu sync.Mutex
	b := cl.node(func(db *sql.DB, o *pgcache.Options) {
		o.Listener = calm(pgxdriver.Dial(db))
		o.Logger = slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, nil))
		o.OnInvalidate = func(keys []string) {
			h.add(keys)
			if f := end.Swap(nil); f != nil {
				(*f)()
			}
		}
	})
	h.settle(t)
	for i, f := range []func(){func() { panic("secret") }, runtime.Goexit, func() {}} {
		end.Store(&f)
		set(t, a, "k", i+1)
		eventually(t, "the key is reported", func() bool { _, keys := h.get(); return len(keys) == i+1 && end.Load() == nil })
	}
	b.Close()
	mu.Lock()
	defer mu.Unlock()
	if s := log.String(); !strings.Contains(s, "OnInvalidate panicked") || strings.Contains(s, "secret") {
		t.Errorf("the log says %q", s)
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *strings.Builder
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// Close waits for the call that runs, and no other begins.
func TestOnInvalidateAndClose(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.node(nil)
	set(t, a, "k", 0)
	set(t, a, "l", 0)
	var block atomic.Bool
	var after atomic.Int64
	running, release := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(release) })
	b := cl.node(func(_ *sql.DB, o *pgcache.Options) {
		o.OnInvalidate = func([]string) {
			if block.CompareAndSwap(true, false) {
				close(running)
				<-release
				return
			}
			after.Add(1)
		}
	})
	t.Cleanup(once)
	eventually(t, "the start is reported", func() bool { return after.Load() > 0 })
	block.Store(true)
	set(t, a, "k", 1)
	<-running
	n := b.Stats().Invalidations
	calls := after.Load()
	set(t, a, "l", 1)
	eventually(t, "the next one waits", func() bool { return b.Stats().Invalidations > n })
	closed := make(chan struct{})
	go func() { b.Close(); close(closed) }()
	eventually(t, "it is being closed", func() bool { var v int; _, err := b.Get(t.Context(), "m", &v); return err != nil })
	select {
	case <-closed:
		t.Error("Close has not waited for the call")
	case <-time.After(50 * time.Millisecond):
	}
	once()
	<-closed
	if after.Load() != calls {
		t.Error("a call has begun after Close")
	}
}

func TestOnInvalidateNeedsAListener(t *testing.T) {
	t.Parallel()
	if _, err := pgcache.New(testdb.DB(t), pgcache.Options{OnInvalidate: func([]string) {}}); err == nil || !strings.Contains(err.Error(), "OnInvalidate") {
		t.Errorf("New: %v", err)
	}
}

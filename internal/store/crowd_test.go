package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/pgcache/go/internal/notify"

	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/store"
)

// TestGivingUp: whoever leaves, leaves alone.
func TestGivingUp(t *testing.T) {
	t.Parallel()
	t.Run("in the queue", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		gone, leave := context.WithCancel(t.Context())
		g, first := block(w, "PutEntry", w.set(row("k", "v", 1)))
		a := queue(t, t.Context(), w.set(row("a", "v", 2)))
		b := queue(t, gone, w.set(row("b", "v", 3)))
		c := queue(t, t.Context(), w.set(row("c", "v", 4)))
		leave()
		if _, err := b.both(t); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		g.open()
		first.get(t)
		a.get(t)
		c.get(t)
		w.want("PutEntry", "PutEntries")
		if n := scan[int](w, "SELECT count(*) FROM "+w.object("cache_entries")+" WHERE key = 'b'"); n > 0 {
			t.Error("what nobody waits for any more was written")
		}
	})
	for name, leaver := range map[string]int{"the first of a statement": 0, "another": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := watch(t)
			gone, leave := context.WithCancel(t.Context())
			g, first := block(w, "PutEntry", w.set(row("k", "v", 1)))
			shared := w.hold("PutEntries", 1)
			var calls []*result[store.Written]
			for i := range 3 {
				ctx := t.Context()
				if i == leaver {
					ctx = gone
				}
				calls = append(calls, queue(t, ctx, w.set(row(fmt.Sprint(i), "v", int64(i+2)))))
			}
			g.open()
			first.get(t)
			<-shared.arrived
			leave()
			if _, err := calls[leaver].both(t); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			shared.open()
			for i, c := range calls {
				if i != leaver {
					c.get(t)
				}
			}
			w.want("PutEntry", "PutEntries")
			if n := scan[int](w, "SELECT count(*) FROM "+w.object("cache_entries")); n != 4 {
				t.Errorf("%d rows: those who stayed have lost what was sent with one who left", n)
			}
		})
	}
	t.Run("the one whose statement it is", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		gone, leave := context.WithCancel(t.Context())
		g := w.hold("PutEntry", 1)
		a := queue(t, gone, w.set(row("a", "v", 1)))
		<-g.arrived
		b := queue(t, t.Context(), w.set(row("b", "v", 2)))
		leave()
		g.open()
		if _, err := a.both(t); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		b.get(t)
		w.want("PutEntry", "PutEntry")
	})
}

// TestErrorsReachTheirCallers: what the server refuses of one caller fails that caller alone; a statement that can't be
// sent fails all.
func TestErrorsReachTheirCallers(t *testing.T) {
	t.Parallel()
	t.Run("writes", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		w.exec(`ALTER TABLE ` + w.object("cache_entries") + ` ADD CONSTRAINT polite CHECK (key <> 'rude')`)
		g, first := block(w, "PutEntry", w.set(row("k", "v", 1)))
		calls := map[string]*result[store.Written]{}
		for i, key := range []string{"a", "rude", "b", "\xff", "c"} {
			calls[key] = queue(t, t.Context(), w.set(row(key, "v", int64(i+2)), row(key+"2", "v", int64(i+2))))
		}
		g.open()
		first.get(t)
		for key, c := range calls {
			_, err := c.both(t)
			if state := map[string]string{"rude": "23514", "\xff": "22021"}[key]; sqlerr.State(err) != state {
				t.Errorf("%q: %v, want %q", key, err, state)
			}
		}
		if keys := scan[string](w, "SELECT string_agg(key, ' ' ORDER BY key) FROM "+w.object("cache_entries")); keys != "a a2 b b2 c c2 k" {
			t.Errorf("stored: %s", keys)
		}
	})
	t.Run("reads", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		g, first := block(w, "GetEntry", w.read("k"))
		g2, second := block(w, "GetEntry", w.read("k"))
		good, bad := queue(t, t.Context(), w.read("k")), queue(t, t.Context(), w.read("\xff"))
		many := queue(t, t.Context(), func(ctx context.Context) ([]store.Row, error) { return w.GetMany(ctx, []string{"a", "b"}) })
		g.open()
		g2.open()
		first.get(t)
		second.get(t)
		good.get(t)
		many.get(t)
		if _, err := bad.both(t); sqlerr.State(err) != "22021" {
			t.Error(err)
		}
	})
	t.Run("all", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		g, first := block(w, "StoreLoaded", w.load(row("k", "v", 1)))
		a := queue(t, t.Context(), w.load(row("a", "v", 2)))
		b := queue(t, t.Context(), w.load(row("\xff", "v", 3)))
		g.open()
		first.get(t)
		// What was loaded is handed out anyway, and a statement of a load is never sent twice.
		for _, r := range []*result[store.Written]{a, b} {
			if _, err := r.both(t); sqlerr.State(err) != "22021" {
				t.Error(err)
			}
		}
		w.want("StoreLoaded", "StoreLoaded")
	})
}

// TestNoDeadlocks: statements of several nodes that write the same rows lock them in the same order.
func TestNoDeadlocks(t *testing.T) {
	t.Parallel()
	w := watch(t)
	var wg sync.WaitGroup
	for n := range 4 {
		s := w.another(w.Names)
		wg.Go(func() {
			for r := range 20 {
				var rows []store.Write
				for _, k := range rand.Perm(100) {
					rows = append(rows, row(fmt.Sprint("k", k), "v", int64(n*1_000_000+r*1000+k+1)))
				}
				if _, err := s.Put(t.Context(), rows, false); err != nil {
					t.Error(err)
				}
				if _, err := s.Flush(t.Context(), notify.Nobody); err != nil && !errors.Is(err, store.ErrFlushing) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.deadlocks > 0 {
		t.Errorf("%d deadlocks", w.deadlocks)
	}
}

// TestManyCallers: with a hundred callers at once, there are few statements, and all get what is theirs.
func TestManyCallers(t *testing.T) {
	t.Parallel()
	w := watch(t)
	const callers, rounds = 100, 20
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			key := fmt.Sprint("k", c)
			for i := range rounds {
				value := fmt.Sprint(c, " ", i)
				if _, err := w.Put(t.Context(), []store.Write{row(key, value, int64(c*rounds+i+1))}, false); err != nil {
					t.Error(err)
				}
				if r, err := w.Get(t.Context(), key); err != nil || string(r.Value) != value {
					t.Errorf("%s: %q, %v; wrote %q", key, r.Value, err, value)
				}
			}
		})
	}
	wg.Wait()
	if n := len(w.statements()); n > callers*rounds {
		t.Errorf("%d statements for %d calls", n, 2*callers*rounds)
	}
}

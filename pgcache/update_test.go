package pgcache_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// Of all that call SetIfAbsent at once one stores, over no row, an expired one or a tombstone.
func TestSetIfAbsent(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		var nodes []*pgcache.Cache
		for _, level := range []string{"read committed", "repeatable read", "serializable"} {
			nodes = append(nodes, cl.on(testdb.Open(t, driver, testdb.WithParam(testdb.DSN(t), "default_transaction_isolation", level)), nil))
		}
		for round := range 12 {
			key := fmt.Sprint(round)
			switch round % 3 {
			case 1:
				set(t, nodes[0], key, -1)
				cl.expire("key = '" + key + "'")
			case 2:
				del(t, nodes[0], key)
			}
			var winner atomic.Int64
			winner.Store(-1)
			var wins atomic.Int32
			var wg sync.WaitGroup
			for i := range 12 {
				wg.Go(func() {
					stored, err := nodes[i%3].SetIfAbsent(t.Context(), key, i, pgcache.TTL(time.Hour))
					if err != nil {
						t.Error(err)
					}
					if stored {
						wins.Add(1)
						winner.Store(int64(i))
					}
				})
			}
			wg.Wait()
			if wins.Load() != 1 {
				t.Fatalf("round %d: %d have stored", round, wins.Load())
			}
			for _, c := range nodes {
				want(t, c, key, winner.Load())
			}
		}
		c := nodes[0]
		if stored, err := pgcache.For[string](c, pgcache.Namespace("ns")).SetIfAbsent(t.Context(), "k", "v"); !stored || err != nil {
			t.Error(stored, err)
		}
		want(t, c, "ns:k", "v")
		if stored, err := pgcache.Null().SetIfAbsent(t.Context(), "k", 1); !stored || err != nil {
			t.Error(stored, err)
		}
		_, err := c.SetIfAbsent(t.Context(), "k", make(chan int))
		cause(t, err, "set if absent", "k")
		_, err = c.SetIfAbsent(t.Context(), "", 1)
		wantErr(t, err, pgcache.ErrInvalidKey)
	})
}

func TestTouch(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		c := cl.on(testdb.Open(t, driver, testdb.WithParam(testdb.DSN(t), "default_transaction_isolation", "serializable")), nil)
		view := pgcache.For[string](c)
		expiresIn := func() time.Duration {
			t.Helper()
			e, found, err := view.GetEntry(t.Context(), "k")
			if !found || err != nil || e.Value != "v" {
				t.Fatal(e, found, err)
			}
			return e.ExpiresIn
		}
		touch := func(ttl time.Duration, want bool) {
			t.Helper()
			if found, err := c.Touch(t.Context(), "k", ttl); found != want || err != nil {
				t.Fatal(found, err)
			}
		}
		touch(time.Hour, false)
		set(t, c, "k", "v", pgcache.TTL(time.Minute))
		touch(time.Hour, true)
		if d := expiresIn(); d > time.Hour || d < 59*time.Minute {
			t.Error(d)
		}
		touch(pgcache.NoExpiry, true)
		if d := expiresIn(); d != pgcache.NoExpiry {
			t.Error(d)
		}
		touch(0, true)
		if d := expiresIn(); d > pgcache.DefaultTTL || d < pgcache.DefaultTTL-time.Minute {
			t.Error(d)
		}
		want(t, c, "k", "v")
		cl.expire("key = 'k'")
		touch(time.Hour, false)
		del(t, c, "k")
		touch(time.Hour, false)
		wantNone(t, c, "k")
		_, err := c.Touch(t.Context(), "k", -time.Second)
		wantErr(t, err, pgcache.ErrInvalidTTL)
		if found, err := pgcache.Null().Touch(t.Context(), "k", 0); found || err != nil {
			t.Error(found, err)
		}
	})
}

// No update is lost, and none is made of a value that others have replaced.
func TestUpdate(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		const callers, rounds = 4, 10
		cl := newCluster(t)
		ctx := t.Context()
		add := func(old int, _ bool) (int, error) { return old + 1, nil }
		var wg sync.WaitGroup
		var views []*pgcache.Typed[int]
		for _, level := range []string{"read committed", "repeatable read", "serializable", "read committed"} {
			c := cl.on(testdb.Open(t, driver, testdb.WithParam(testdb.DSN(t), "default_transaction_isolation", level)), nil)
			view := pgcache.For[int](c, pgcache.Namespace("ns"))
			views = append(views, view)
			for range callers {
				wg.Go(func() {
					for range rounds {
						_, err := view.Update(ctx, "n", add)
						for errors.Is(err, pgcache.ErrUpdateConflict) {
							_, err = view.Update(ctx, "n", add)
						}
						if err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
		wg.Wait()
		for _, view := range views {
			if n, _, err := view.Get(ctx, "n"); n != len(views)*callers*rounds || err != nil {
				t.Error(n, err)
			}
		}
		view := views[0]
		broken := errors.New("broken")
		_, err := view.Update(ctx, "n", func(int, bool) (int, error) { return 5, broken })
		if e := cause(t, err, "update", "ns:n"); !errors.Is(e, broken) {
			t.Error(e)
		}
		if n, _, err := view.Get(ctx, "n"); n != len(views)*callers*rounds || err != nil {
			t.Error(n, err)
		}
		// What is expired, deleted or of another type is no old value.
		other := pgcache.For[string](cl.on(cl.db, nil), pgcache.Namespace("ns"))
		for what, prepare := range map[string]func() error{
			"expired": func() error { cl.expire("key = 'ns:n'"); return nil },
			"deleted": func() error { return view.Delete(ctx, "n") },
			"text":    func() error { return other.Set(ctx, "n", "text") },
		} {
			if err := prepare(); err != nil {
				t.Fatal(err)
			}
			n, err := view.Update(ctx, "n", func(old int, found bool) (int, error) {
				if old != 0 || found {
					t.Errorf("%s: %d, %v", what, old, found)
				}
				return 9, nil
			})
			if n != 9 || err != nil {
				t.Errorf("%s: %d, %v", what, n, err)
			}
		}
		if _, err := view.Update(ctx, "n", nil); err == nil {
			t.Error("no error of a nil function")
		}
		if n, err := pgcache.For[int](pgcache.Null()).Update(ctx, "n", add); n != 1 || err != nil {
			t.Error(n, err)
		}
	})
}

// Somebody is always faster: after some tries that is an error. Whatever the other does counts: a Set, a Delete, a Clear.
func TestUpdateConflict(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c, other := cl.node(nil), cl.node(nil)
	ctx := t.Context()
	view := pgcache.For[int](c)
	set(t, other, "k", 0)
	calls := 0
	_, err := view.Update(ctx, "k", func(old int, found bool) (int, error) {
		calls++
		set(t, other, "k", calls)
		return -1, nil
	})
	wantErr(t, err, pgcache.ErrUpdateConflict)
	if calls != 16 {
		t.Errorf("%d calls", calls)
	}
	want(t, other, "k", calls)
	for what, interfere := range map[string]func() error{
		"Delete":    func() error { return other.Delete(ctx, "k") },
		"Clear":     func() error { return other.Clear(ctx) },
		"Touch":     func() error { _, err := other.Touch(ctx, "k", time.Hour); return err },
		"Increment": func() error { _, err := other.Increment(ctx, "k", 1); return err },
	} {
		set(t, other, "k", 10)
		calls, last := 0, false
		_, err := view.Update(ctx, "k", func(old int, found bool) (int, error) {
			if calls++; calls == 1 {
				return 99, interfere()
			}
			last = found
			return old + 1, nil
		})
		if err != nil || calls != 2 || last != (what == "Touch" || what == "Increment") {
			t.Errorf("%s: %d calls, found: %v, %v", what, calls, last, err)
		}
	}
}

// The reply of a conditional write is lost: it is not tried again, and memory holds nothing of it.
func TestConditionalWriteIsNotSentTwice(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c, w := cl.wired(nil)
	ctx := t.Context()
	for name, write := range map[string]func() error{
		"PutAbsent": func() error { _, err := c.SetIfAbsent(ctx, "new", 1); return err },
		"ReplaceEntry": func() error {
			_, err := pgcache.For[int](c).Update(ctx, "k", func(old int, _ bool) (int, error) { return old + 1, nil })
			return err
		},
		"TouchEntry": func() error { _, err := c.Touch(ctx, "k", time.Hour); return err },
	} {
		set(t, c, "k", 0)
		lost := w.lose(named(name), io.ErrUnexpectedEOF)
		if err := write(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(name, err)
		}
		lost.release()
		if n := w.count(named(name)); n != 1 {
			t.Errorf("%s was sent %d times", name, n)
		}
	}
	want(t, c, "new", 1)
}

// A time that has passed deletes; a time to come is a TTL when the call is made, not when the view is.
func TestExpiresAt(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	ctx := t.Context()
	past := pgcache.ExpiresAt(time.Now().Add(-time.Second))
	view := pgcache.For[int](c)
	set(t, c, "k", 1, pgcache.ExpiresAt(time.Now().Add(time.Hour)))
	e, found, err := view.GetEntry(ctx, "k")
	if !found || err != nil || e.ExpiresIn > time.Hour || e.ExpiresIn < 59*time.Minute {
		t.Error(e, found, err)
	}
	set(t, c, "k", 2, past)
	wantNone(t, c, "k")
	set(t, c, "a", 1)
	if err := view.SetMany(ctx, map[string]int{"a": 2, "b": 2}, past); err != nil {
		t.Fatal(err)
	}
	wantNone(t, c, "a")
	set(t, c, "tx", 1)
	tx, err := cl.db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	if err := errors.Join(c.WithTx(tx).Set(ctx, "tx", 2, past), tx.Commit()); err != nil {
		t.Fatal(err)
	}
	wantNone(t, c, "tx")
	set(t, c, "k", 3, past, pgcache.TTL(time.Hour)) // the later option counts
	want(t, c, "k", 3)
	del(t, c, "k")

	var v int
	if err := c.GetOrSet(ctx, "k", &v, func(context.Context) (any, error) { return 4, nil }, past); err != nil || v != 4 {
		t.Error(v, err)
	}
	m, err := view.GetOrSetMany(ctx, []string{"k", "l"}, func(context.Context, []string) (map[string]int, error) {
		return map[string]int{"k": 5, "l": 6}, nil
	}, past)
	if err != nil || m["k"] != 5 || m["l"] != 6 {
		t.Error(m, err)
	}
	wantNone(t, c, "k")
	if n := cl.count("SELECT count(*) FROM " + cl.table() + " WHERE key = 'l'"); n != 0 {
		t.Error("what is over was stored")
	}

	soon := time.Now().Add(50 * time.Millisecond)
	until := pgcache.For[int](c, pgcache.ExpiresAt(soon))
	if err := until.Set(ctx, "soon", 1); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(soon))
	if err := until.Set(ctx, "soon", 2); err != nil {
		t.Fatal(err)
	}
	wantNone(t, c, "soon")
	wantErr(t, c.Set(ctx, "k", 1, pgcache.ExpiresAt(time.Time{})), pgcache.ErrInvalidTTL)
}

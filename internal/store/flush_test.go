package store_test

import (
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/store"
)

// TestOverlappingFlushes: whoever flushes, everything is published once, and what was committed before a flush was sent has
// been published when it returns.
func TestOverlappingFlushes(t *testing.T) {
	t.Parallel()
	w := watch(t)
	recorder := w.listen()
	const writers, rounds = 6, 60
	var wg sync.WaitGroup
	for n := range writers {
		s := w.another(w.Names)
		key := fmt.Sprint("k", n)
		if _, err := s.Put(t.Context(), []store.Write{row(key, "", int64(n+1))}, false); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for r := range rounds {
				version := int64(100 + n*rounds + r)
				if _, err := s.Put(t.Context(), []store.Write{row(key, "", version)}, false); err != nil {
					t.Error(err)
				}
				if r%3 != 0 {
					continue
				}
				for {
					_, err := s.Flush(t.Context(), notify.Sender(uint32(n), window))
					if err == nil {
						break
					}
					if !errors.Is(err, store.ErrFlushing) {
						t.Error(err)
						break
					}
				}
				var left int
				if err := w.db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+w.object("cache_changes")+" WHERE version = $1", version).Scan(&left); err != nil || left > 0 {
					t.Errorf("version %d is in the log after a flush that was sent later: %v", version, err)
				}
			}
		})
	}
	wg.Wait()
	w.flush()
	seen := map[int64]int{}
	for _, versions := range recorder.published().versions {
		for _, v := range versions {
			seen[v]++
		}
	}
	for v := range int64(writers * rounds) {
		if seen[100+v] != 1 {
			t.Errorf("version %d was published %d times", 100+v, seen[100+v])
		}
	}
}

// TestFlushAllOrNothing: a flush that is rolled back, or whose session ends, publishes nothing and leaves everything.
// Another beside it does nothing and says so; one after it publishes.
func TestFlushAllOrNothing(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(w *watched, tx *sql.Tx, pid int){
		"rolled back": func(w *watched, tx *sql.Tx, _ int) { _ = tx.Rollback() },
		"terminated":  func(w *watched, _ *sql.Tx, pid int) { w.exec("SELECT pg_terminate_backend($1)", pid) },
		"committed": func(w *watched, tx *sql.Tx, _ int) {
			if err := tx.Commit(); err != nil {
				w.t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := watch(t)
			recorder := w.listen()
			w.log(10, 2, "'k' || k")
			tx, pid := w.begin()
			if h := recorder.published(); h.messages > 0 || w.logged() != 20 {
				t.Errorf("before it is committed a flush has published %+v", h)
			}
			if _, err := w.Flush(t.Context(), notify.Sender(1, window)); !errors.Is(err, store.ErrFlushing) {
				t.Errorf("beside another flush: %v", err)
			}
			end(w, tx, pid)
			waitFor(t, "the other flush is over", func() bool {
				return scan[int](w, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1::bigint::oid", int64(uint32(w.Names.Class()))) == 0
			})
			f := w.flush()
			h := recorder.published()
			if want := map[bool]int64{false: 20, true: 0}[name == "committed"]; f.Changes != want || f.Messages != min(want, 1) {
				t.Errorf("the flush behind it: %+v", f)
			}
			if h.messages != 1 || len(h.items) != 10 || w.logged() != 0 {
				t.Errorf("%+v; %d are left", h, w.logged())
			}
		})
	}
}

// TestOtherIsolation: whatever the isolation level of the sessions, a flush is not refused.
func TestOtherIsolation(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"repeatable read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			w := watch(t, "default_transaction_isolation", level)
			recorder := w.listen()
			w.log(10, 2, "'k' || k")
			tx, _ := w.begin()
			if _, err := w.Flush(t.Context(), notify.Sender(1, window)); !errors.Is(err, store.ErrFlushing) {
				t.Errorf("beside another flush: %v", err)
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if f := w.flush(); f.Changes != 0 {
				t.Errorf("%+v", f)
			}
			if h := recorder.published(); len(h.items) != 10 || w.logged() != 0 {
				t.Errorf("%d keys were published, %d changes are left", len(h.items), w.logged())
			}
			if err := w.DrainLog(t.Context(), notify.Sender(1, window)); err != nil {
				t.Error(err)
			}
		})
	}
}

package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pgcache/go/internal/dbsqlc"
	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/store"
)

// TestOverlappingFlushes: whoever flushes, everything is told once, and what was committed before a flush was sent has
// been told when it returns.
func TestOverlappingFlushes(t *testing.T) {
	t.Parallel()
	w := watch(t)
	ear := w.listen()
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
				if _, err := s.Flush(t.Context(), notify.Head(uint32(n))); err != nil {
					t.Error(err)
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
	for _, versions := range ear.told().versions {
		for _, v := range versions {
			seen[v]++
		}
	}
	for v := range int64(writers * rounds) {
		if seen[100+v] != 1 {
			t.Errorf("version %d was told %d times", 100+v, seen[100+v])
		}
	}
}

// TestFlushAllOrNothing: a flush that is rolled back, or whose session ends, tells nothing and leaves everything. Another
// that has waited behind it, tells it.
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
			ear := w.listen()
			w.log(10, 2, "'k' || k")
			tx, pid := w.begin()
			if h := ear.told(); h.messages > 0 || w.logged() != 20 {
				t.Errorf("before it is committed a flush has told %+v", h)
			}
			waiting := queue(t, t.Context(), func(ctx context.Context) (store.Flushed, error) { return w.Flush(ctx, notify.Head(1)) })
			waitFor(t, "another flush waits", func() bool {
				return scan[int](w, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND classid = $1::bigint::oid", int64(uint32(w.Names.Class()))) == 1
			})
			end(w, tx, pid)
			f, h := waiting.get(t), ear.told()
			if want := map[bool]int64{false: 20, true: 0}[name == "committed"]; f.Changes != want || f.Messages != min(want, 1) {
				t.Errorf("the flush behind it: %+v", f)
			}
			if h.messages != 1 || len(h.items) != 10 || w.logged() != 0 {
				t.Errorf("%+v; %d are left", h, w.logged())
			}
		})
	}
}

// TestOtherIsolation: whatever the isolation level of the sessions, a flush that has waited behind another is not refused,
// and a write that has waited for a poller to register knows of it.
func TestOtherIsolation(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"repeatable read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			w := watch(t, "default_transaction_isolation", level)
			ear := w.listen()
			w.log(10, 2, "'k' || k")
			tx, _ := w.begin()
			waiting := queue(t, t.Context(), func(ctx context.Context) (store.Flushed, error) { return w.Flush(ctx, notify.Head(1)) })
			waitFor(t, "another flush waits", func() bool {
				return scan[int](w, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND classid = $1::bigint::oid", int64(uint32(w.Names.Class()))) == 1
			})
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if f := waiting.get(t); f.Changes != 0 {
				t.Errorf("%+v", f)
			}
			if h := ear.told(); len(h.items) != 10 || w.logged() != 0 {
				t.Errorf("%d keys were told, %d changes are left", len(h.items), w.logged())
			}
			if err := w.DrainLog(t.Context(), notify.Head(1)); err != nil {
				t.Error(err)
			}

			// What BeginPolling does, held open.
			tx, err := w.db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback() //nolint:errcheck // it is committed below
			for _, query := range []string{dbsqlc.HoldChanges, "UPDATE " + w.object("cache_state") + " SET polled_until = clock_timestamp() + interval '1 minute'"} {
				if _, err := tx.Exec(w.Names.Render(query)); err != nil {
					t.Fatal(err)
				}
			}
			writing := queue(t, t.Context(), func(ctx context.Context) (store.Written, error) {
				return w.Put(ctx, []store.Write{{Key: "k", Version: 1, TTL: time.Minute, Loud: true}}, true)
			})
			waitFor(t, "the write waits", w.waiting)
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if out := writing.get(t); !out.Logged[0] || w.logged() != 1 {
				t.Errorf("%+v: whoever polls won't hear of it", out)
			}
		})
	}
}

package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
)

// lock locks the rows of keys in a transaction of its own, until unlock. The rows are made first.
func (w *watched) lock(keys ...string) (unlock func()) {
	w.t.Helper()
	tx, err := w.db.BeginTx(w.t.Context(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for i, key := range keys {
		if _, err := w.Put(w.t.Context(), []store.Write{row(key, "before", int64(1000+i))}, false); err != nil {
			w.t.Fatal(err)
		}
		if _, err := tx.Exec("UPDATE "+w.object("cache_entries")+" SET value = 'held' WHERE key = $1", key); err != nil {
			w.t.Fatal(err)
		}
	}
	unlock = sync.OnceFunc(func() { tx.Rollback() }) //nolint:errcheck // it has only to end
	w.t.Cleanup(unlock)
	return unlock
}

// TestLockedRows: callers that share a statement with one whose row is locked do not wait for that row.
func TestLockedRows(t *testing.T) {
	t.Parallel()
	w := watch(t)
	unlockA, unlockM := w.lock("a"), w.lock("m")
	a := queue(t, t.Context(), w.set(row("a", "v", 1)))
	waitFor(t, "the statement waits for the row", w.waiting)
	began := time.Now()
	short, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	m := queue(t, t.Context(), w.set(row("m", "v", 2)))
	m2 := queue(t, short, w.set(row("m", "w", 3)))
	innocent := queue(t, t.Context(), w.set(row("innocent", "v", 4)))
	innocent.get(t)
	if took := time.Since(began); took > 4*time.Second { // it waited for those who wait for the rows
		t.Errorf("a write of another row took %v", took)
	}
	if _, err := m2.both(t); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	select {
	case <-m.done:
		t.Error("the blocked one did not wait as long as it may", m.err)
	default:
	}
	unlockM()
	m.get(t)
	unlockA()
	a.get(t)
	// Whether a write was done that returned DeadlineExceeded is unknown: the request to cancel it may come too late.
	if got := w.value("a") + w.value("m") + w.value("innocent"); got != "vvv" && got != "vwv" {
		t.Error(got)
	}
}

// TestManyLockedRows: however many rows are locked, a node has a handful of statements that wait for them, and writes of
// other rows go on beside them.
func TestManyLockedRows(t *testing.T) {
	t.Parallel()
	w := watch(t)
	var keys []string
	for i := range 30 {
		keys = append(keys, fmt.Sprint("locked", i))
	}
	unlock := w.lock(keys...)
	var calls []*result[store.Written]
	for i, key := range keys {
		calls = append(calls, queue(t, t.Context(), w.set(row(key, "v", int64(i+1)))))
	}
	most, slow := 0, 0 // on a machine that stalls some are
	for i := range 20 {
		began := time.Now()
		if _, err := w.set(row(fmt.Sprint("innocent", i), "v", int64(i+100)))(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 1500*time.Millisecond {
			t.Logf("write %d of another row took %v", i, took)
			slow++
		}
		most = max(most, w.waitingSessions())
	}
	if slow > 3 {
		t.Errorf("%d of 20 writes of other rows took more than 1.5 s", slow)
	}
	waitFor(t, "all places are taken", func() bool {
		return scan[int](w, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%' || $1 || '%'", w.Names.Schema) >= store.LockWaits
	})
	if most > 2*store.LockWaits+1 { // those that wait, those that are tried, and the slot
		t.Errorf("%d statements of a node wait for rows", most)
	}
	unlock()
	for _, c := range calls {
		c.get(t)
	}
	for _, key := range keys {
		if v := w.value(key); v != "v" {
			t.Errorf("%s is %q", key, v)
		}
	}
}

// TestCrowdBesideLockedRows: three nodes, 64 callers each on keys of their own, four rows locked.
func TestCrowdBesideLockedRows(t *testing.T) {
	t.Parallel()
	w := watch(t)
	w.lock("0-3", "1-9", "1-50", "2-11")
	const lasts = 5 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	var mu sync.Mutex
	var worst time.Duration
	var wg sync.WaitGroup
	for n := range 3 {
		s := w.another(w.Names)
		for c := range 64 {
			key := fmt.Sprint(n, "-", c)
			wg.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					began := time.Now()
					_, err := s.Put(ctx, []store.Write{row(key, "v", int64(i*1000+n*64+c+1))}, false)
					took := time.Since(began)
					switch {
					case key == "0-3" || key == "1-9" || key == "1-50" || key == "2-11":
						if err == nil {
							t.Errorf("%s was written although it is locked", key)
						}
						continue
					case err != nil && ctx.Err() == nil:
						t.Errorf("%s: %v", key, err)
					}
					mu.Lock()
					worst = max(worst, took)
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	if t.Log("worst:", worst); worst > lasts-time.Second {
		t.Errorf("a write of a row that nobody holds took %v", worst)
	}
}

// TestPatience: lock_timeout is set for one statement, by both drivers, also in a transaction of its own, and the
// session keeps what it had.
func TestPatience(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"pgx", "postgres"} {
		for _, level := range []string{"read committed", "serializable"} {
			t.Run(driver+"/"+level, func(t *testing.T) {
				t.Parallel()
				w := watch(t)
				w.lock("k")
				db := testdb.Open(t, driver, testdb.WithParam(testdb.WithParam(testdb.DSN(t), "default_transaction_isolation", level), "lock_timeout", "7777"))
				db.SetMaxOpenConns(1)
				s := store.New(db, w.Names, 20*time.Second, false)
				t.Cleanup(s.Close)
				if _, err := s.State(t.Context()); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				_, err := s.PutWith(t.Context(), []store.Write{row("k", "v", 1), row("l", "v", 2)}, "50ms")
				if took := time.Since(began); sqlerr.State(err) != "55P03" || took > 7*time.Second { // the session's own lock_timeout
					t.Errorf("after %v: %v", took, err)
				}
				if _, err := s.PutWith(t.Context(), []store.Write{row("l", "v", 3)}, "50ms"); err != nil {
					t.Error(err)
				}
				var timeout string
				if err := db.QueryRow("SHOW lock_timeout").Scan(&timeout); err != nil || timeout != "7777ms" {
					t.Errorf("the session's lock_timeout is %s, %v", timeout, err)
				}
			})
		}
	}
}

// TestClearHoldsOneRow: a Clear that waits for the second of two locked rows does not keep the first one locked.
func TestClearHoldsOneRow(t *testing.T) {
	t.Parallel()
	w := watch(t)
	unlockFirst, unlockSecond := w.lockOnly("first"), w.lockOnly("second")
	cleared := queue(t, t.Context(), func(ctx context.Context) (struct{}, error) {
		return struct{}{}, w.clearBehindReader(ctx)
	})
	waitFor(t, "the Clear waits for a row", func() bool {
		return scan[int](w, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%' || $1 || '%cache_clear_waiting%'", w.Names.Schema) > 0
	})
	unlockFirst()
	waitFor(t, "the first row is removed", func() bool { return w.value("first") == "" })
	began := time.Now()
	if _, err := w.set(row("first", "after", 1))(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 10*time.Second { // else it would wait until its Timeout, 20 s
		t.Errorf("a write of a row that a Clear has removed took %v", took)
	}
	unlockSecond()
	cleared.get(t)
	if got := w.value("first") + "," + w.value("second"); got != "after," {
		t.Error(got)
	}
}

// lockOnly locks the row of key, which is made first, in a transaction that writes nothing: a Clear waits for those that
// write before it removes anything.
func (w *watched) lockOnly(key string) (unlock func()) {
	w.t.Helper()
	if _, err := w.Put(w.t.Context(), []store.Write{row(key, "before", 2000)}, false); err != nil {
		w.t.Fatal(err)
	}
	tx, err := w.db.BeginTx(w.t.Context(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := tx.Exec("SELECT FROM "+w.object("cache_entries")+" WHERE key = $1 FOR UPDATE", key); err != nil {
		w.t.Fatal(err)
	}
	unlock = sync.OnceFunc(func() { tx.Rollback() }) //nolint:errcheck // it has only to end
	w.t.Cleanup(unlock)
	return unlock
}

// clearBehindReader clears while somebody reads the table, so that it goes row by row.
func (w *watched) clearBehindReader(ctx context.Context) error {
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // it has only to end
	if _, err := tx.Exec("SELECT FROM " + w.object("cache_entries") + " LIMIT 0"); err != nil {
		return err
	}
	return w.Clear(ctx)
}

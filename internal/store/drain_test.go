package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgcache/go/internal/dbsqlc"
	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/store"
)

// TestDrainKeepsItsSnapshotNew: the function refuses to run under a level that could truncate what it has not published.
func TestDrainKeepsItsSnapshotNew(t *testing.T) {
	t.Parallel()
	w := watch(t)
	w.log(1, 1, "'k'")
	tx, err := w.db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing is to stay
	if _, err := tx.Exec(w.Names.Render(dbsqlc.Flush), notify.Nobody, w.Names.Class(), -2, true); err == nil || !strings.Contains(err.Error(), "READ COMMITTED") {
		t.Error(err)
	}
}

// TestDrain: it publishes what is there and gives the space back, alone in the table. Behind somebody who reads the table it
// does not wait for long: all writers would wait behind it.
func TestDrain(t *testing.T) {
	t.Parallel()
	w := watch(t)
	recorder := w.listen()
	w.log(2000, 1, "'k' || k")
	w.flush()
	w.log(300, 3, "'k' || k")
	recorder.published()
	before := w.flushSize()
	reader, err := w.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Rollback() //nolint:errcheck // it is rolled back below
	if _, err := reader.Exec("LOCK TABLE " + w.object("cache_changes") + " IN ACCESS SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := w.DrainLog(t.Context(), notify.Sender(1, window)); sqlerr.State(err) != "55P03" {
		t.Errorf("behind a reader: %v", err)
	}
	if d := time.Since(began); d > 5*time.Second { // 20 ms, on a machine with nothing else to do
		t.Errorf("it waited for %v", d)
	}
	if h := recorder.published(); h.messages > 0 || w.logged() != 900 {
		t.Errorf("refused, it has published %+v", h)
	}
	_ = reader.Rollback()
	if err := w.DrainLog(t.Context(), notify.Sender(1, window)); err != nil {
		t.Fatal(err)
	}
	h := recorder.published()
	if len(h.items) != 300 || len(h.items[0].versions) != 3 || h.all || h.longest > notify.MaxPayload {
		t.Errorf("%d items, %+v, all: %v", len(h.items), h.items[0], h.all)
	}
	if after := w.flushSize(); w.logged() != 0 || after >= before {
		t.Errorf("%d are left; %d bytes, then %d", w.logged(), before, after)
	}
	// Empty, too large, and for those who poll: like a flush.
	if err := w.DrainLog(t.Context(), notify.Sender(1, window)); err != nil {
		t.Fatal(err)
	}
	if h := recorder.published(); h.messages > 0 {
		t.Errorf("%+v", h)
	}
	w.exec("UPDATE " + w.object("cache_state") + " SET poller_lease = clock_timestamp() + interval '1 minute'")
	w.log(9000, 1, "'some key ' || k")
	if err := w.DrainLog(t.Context(), notify.Sender(1, window)); err != nil {
		t.Fatal(err)
	}
	if h := recorder.published(); h.messages != 1 || !h.all || scan[int](w, "SELECT count(*) FROM "+w.object("cache_notices")) != 1 {
		t.Errorf("%+v", h)
	}
}

func (w *watched) flushSize() int64 {
	w.t.Helper()
	return scan[int64](w, "SELECT pg_relation_size('"+w.object("cache_changes")+"')")
}

// TestDrainAmongWriters: nothing slips between what is published and what is removed.
func TestDrainAmongWriters(t *testing.T) {
	t.Parallel()
	w := watch(t)
	recorder := w.listen()
	const writers, rounds = 6, 100
	var wg, drainer sync.WaitGroup
	stop := make(chan struct{})
	drains := 0
	drainer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := w.DrainLog(t.Context(), notify.Sender(1, window)); err == nil {
				drains++
			} else if sqlerr.State(err) != "55P03" && !sqlerr.Conflict(err) && !errors.Is(err, store.ErrFlushing) {
				t.Error(err)
			}
		}
	})
	for n := range writers {
		s := w.another(w.Names)
		wg.Go(func() {
			for r := range rounds {
				if _, err := s.Put(t.Context(), []store.Write{{Key: fmt.Sprint("k", n), Version: int64(1 + n*rounds + r), TTL: time.Minute, PublishNew: true}}, false); err != nil {
					t.Error(err)
				}
				if r%10 == 0 {
					if _, err := s.Flush(t.Context(), notify.Sender(2, window)); err != nil && !errors.Is(err, store.ErrFlushing) {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	drainer.Wait()
	w.flush()
	seen := map[int64]int{}
	for _, versions := range recorder.published().versions {
		for _, v := range versions {
			seen[v]++
		}
	}
	// A flush may find more than 16 versions of a key, and names the newest.
	if len(seen) < writers*rounds/4 {
		t.Errorf("%d of %d versions were published", len(seen), writers*rounds)
	}
	for n := range writers {
		if v := int64((n + 1) * rounds); seen[v] != 1 {
			t.Errorf("the last version of k%d was published %d times", n, seen[v])
		}
	}
	if drains == 0 {
		t.Error("it never drained")
	}
}

// TestVacuum: the owner's removes dead rows, without giving the space back. Another's does no harm.
func TestVacuum(t *testing.T) {
	t.Parallel()
	w := watch(t)
	size := int64(0)
	waitFor(t, "the log does not grow", func() bool { // while a transaction is open, in other tests too, nothing is removed
		before := size
		w.log(5000, 1, "'k' || k")
		w.flush()
		if err := w.VacuumLog(t.Context()); err != nil {
			t.Fatal(err)
		}
		size = w.flushSize()
		return size == before
	})
	w.log(5000, 1, "'k' || k")
	role := "r_" + w.Names.Schema
	w.exec("CREATE ROLE " + role)
	t.Cleanup(func() {
		for _, s := range []string{"DROP OWNED BY " + role, "DROP ROLE " + role} {
			if _, err := w.db.ExecContext(context.Background(), s); err != nil { //nolint:usetesting // the test's context is done by then
				t.Error(err)
			}
		}
	})
	w.exec("GRANT USAGE ON SCHEMA " + w.Names.Schema + " TO " + role)
	w.exec("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA " + w.Names.Schema + " TO " + role)
	w.exec("GRANT SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA " + w.Names.Schema + " TO " + role)
	w.exec("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA " + w.Names.Schema + " TO " + role)
	other := w.another(w.Names, "role", role)
	if f, err := other.Flush(t.Context(), notify.Sender(1, window)); err != nil || f.Changes != 5000 {
		t.Errorf("%+v, %v", f, err)
	}
	if err := other.VacuumLog(t.Context()); err != nil {
		t.Errorf("another role's VACUUM: %v", err)
	}
	if err := other.DrainLog(t.Context(), notify.Sender(1, window)); sqlerr.State(err) != "42501" {
		t.Errorf("another role's drain: %v", err)
	}
	if _, err := other.Put(t.Context(), []store.Write{row("k", "v", 1)}, false); err != nil {
		t.Error(err)
	}
}

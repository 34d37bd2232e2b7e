package store_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/store"
)

// TestNotices: those who poll read everything that was committed after they began, in the order of the commits: no notice
// comes late below one that was read.
func TestNotices(t *testing.T) {
	t.Parallel()
	w := watch(t)
	const writers, rounds = 6, 60
	incarnation, last, err := w.BeginPolling(t.Context(), time.Minute)
	if err != nil || incarnation == 0 {
		t.Fatal(incarnation, err)
	}
	if again, _, err := w.BeginPolling(t.Context(), time.Minute); again != incarnation || err != nil {
		t.Fatal("the incarnation is not that of before:", again, err)
	}
	var wg sync.WaitGroup
	for n := range writers {
		s := w.another(w.Names)
		wg.Go(func() {
			for r := range rounds {
				// Also those that publish themselves go through the log now.
				out, err := s.Put(t.Context(), []store.Write{{Key: fmt.Sprint("k", n), Version: int64(1 + n*rounds + r), TTL: time.Minute, PublishNew: true}}, r%2 == 0)
				if err != nil || !out.Logged[0] {
					t.Errorf("%+v, %v", out, err)
				}
				if r%4 == n%4 {
					for err := store.ErrFlushing; errors.Is(err, store.ErrFlushing); {
						if _, err = s.Flush(t.Context(), notify.Sender(uint32(n), window)); err != nil && !errors.Is(err, store.ErrFlushing) {
							t.Error(err)
						}
					}
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	var seqs []int64
	var h published
	poll := func() {
		t.Helper()
		polled, err := w.Poll(t.Context(), w.db, last)
		if err != nil || polled.Incarnation != incarnation || !polled.Leased {
			t.Fatalf("%+v, %v", polled, err)
		}
		for _, n := range polled.Notices {
			h.add(t, n.Payload)
			seqs, last = append(seqs, n.Seq), n.Seq
		}
	}
	for running := true; running; poll() {
		select {
		case <-done:
			running = false
		default:
		}
	}
	w.flush()
	poll()
	rows, err := w.db.QueryContext(t.Context(), "SELECT seq FROM "+w.object("cache_notices")+" ORDER BY seq")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all []int64
	for rows.Next() {
		var seq int64
		if err := rows.Scan(&seq); err != nil {
			t.Fatal(err)
		}
		all = append(all, seq)
	}
	if d := cmp.Diff(all, seqs); d != "" {
		t.Errorf("notices that were read (-all +read):\n%s", d)
	}
	versions := slices.Sorted(maps.Keys(versionSet(h)))
	if len(versions) != writers*rounds {
		t.Errorf("%d versions of %d were published", len(versions), writers*rounds)
	}
	// They are removed after a while.
	w.exec("UPDATE "+w.object("cache_notices")+" SET published_at = published_at - interval '10 minutes' WHERE seq <= $1", seqs[2])
	if err := w.DeleteNotices(t.Context(), w.db, 5*time.Minute); err != nil {
		t.Fatal(err)
	}
	if left, err := w.Poll(t.Context(), w.db, 0); len(left.Notices) != len(all)-3 || err != nil {
		t.Errorf("%d of %d are left, %v", len(left.Notices), len(all), err)
	}
}

// TestPollingWaits: whoever begins to poll waits for the writes that began before and do not know of it. Nobody waits for
// it.
func TestPollingWaits(t *testing.T) {
	t.Parallel()
	w := watch(t)
	tx, err := w.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // it is committed below
	if _, err := tx.Exec("INSERT INTO " + w.object("cache_entries") + " (key, version, codec) VALUES ('k', 1, '')"); err != nil {
		t.Fatal(err)
	}
	polling := queue(t, t.Context(), func(ctx context.Context) (int64, error) {
		incarnation, _, err := w.BeginPolling(ctx, time.Minute)
		return incarnation, err
	})
	waitFor(t, "it has its lease", func() bool {
		return scan[bool](w, "SELECT poller_lease > clock_timestamp() FROM "+w.object("cache_state"))
	})
	// Nobody waits for it: it takes no lock.
	if out, err := w.Put(t.Context(), []store.Write{row("l", "v", 2)}, true); err != nil {
		t.Errorf("%+v, %v", out, err)
	}
	select {
	case <-polling.done:
		t.Error("it does not wait for a write that is under way")
	case <-time.After(50 * time.Millisecond):
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	polling.get(t)
	if out, err := w.Put(t.Context(), []store.Write{row("k", "v", 3)}, true); err != nil || !out.Logged[0] {
		t.Errorf("%+v, %v", out, err)
	}
}

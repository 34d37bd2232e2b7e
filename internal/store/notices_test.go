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
	began, err := w.BeginPolling(t.Context(), time.Minute)
	if err != nil || began.Incarnation == 0 {
		t.Fatal(began, err)
	}
	if again, err := w.BeginPolling(t.Context(), time.Minute); again.Incarnation != began.Incarnation || again.Server != began.Server || err != nil {
		t.Fatal("the incarnation or the server is not that of before:", again, began, err)
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
	var payloads []string
	var h published
	at, first := began, began
	read := 0 // up to first
	poll := func() {
		t.Helper()
		polled, err := w.Poll(t.Context(), w.db, at)
		if err != nil || polled.At.Incarnation != began.Incarnation || polled.At.Server != began.Server || !polled.Leased {
			t.Fatalf("%+v, %v", polled, err)
		}
		for _, payload := range polled.Payloads {
			h.add(t, payload)
		}
		payloads, at = append(payloads, polled.Payloads...), polled.At
		if read == 0 && len(payloads) > 0 {
			first, read = at, len(payloads)
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
	all, err := w.Poll(t.Context(), w.db, began)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(all.Payloads, payloads); d != "" {
		t.Errorf("notices that were read (-all +read):\n%s", d)
	}
	versions := slices.Sorted(maps.Keys(versionSet(h)))
	if len(versions) != writers*rounds {
		t.Errorf("%d versions of %d were published", len(versions), writers*rounds)
	}
	// They are removed after a while.
	w.exec("UPDATE "+w.object("cache_notices")+" SET published_at = published_at - interval '10 minutes' WHERE xid <= $1::text::xid8", first.Flush)
	if err := w.DeleteNotices(t.Context(), w.db, 5*time.Minute); err != nil {
		t.Fatal(err)
	}
	if left, err := w.Poll(t.Context(), w.db, began); len(left.Payloads) != len(payloads)-read || err != nil {
		t.Errorf("%d of %d are left after %d were removed, %v", len(left.Payloads), len(payloads), read, err)
	}
}

// TestNoticesOrder: the messages of one flush come in their order.
func TestNoticesOrder(t *testing.T) {
	t.Parallel()
	w := watch(t)
	at, err := w.BeginPolling(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	w.exec("INSERT INTO " + w.object("cache_notices") + " (part, payload) SELECT i, i FROM unnest('{3,1,2}'::int[]) AS i")
	if polled, err := w.Poll(t.Context(), w.db, at); err != nil || !slices.Equal(polled.Payloads, []string{"1", "2", "3"}) {
		t.Errorf("%q, %v", polled.Payloads, err)
	}
}

// TestPollingBesideFlush: a flush that is under way when somebody begins to poll, and those that follow, are read; those that were
// there are not.
//
//	flush, not committed      reads where to begin      another transaction ends that has a later id
//	commits                   polls
func TestPollingBesideFlush(t *testing.T) {
	t.Parallel()
	w := watch(t)
	notice := "INSERT INTO " + w.object("cache_notices") + " (payload) VALUES ($1)"
	w.exec(notice, "before")
	tx, err := w.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // it is committed below
	if _, err := tx.ExecContext(t.Context(), notice, "beside"); err != nil {
		t.Fatal(err)
	}
	w.exec("SELECT pg_current_xact_id()")
	at, err := w.BeginPolling(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	for _, want := range [][]string{{"beside"}, nil, {"after"}} {
		polled, err := w.Poll(t.Context(), w.db, at)
		if err != nil || !slices.Equal(polled.Payloads, want) {
			t.Errorf("%q, want %q, %v", polled.Payloads, want, err)
		}
		if at = polled.At; want == nil {
			w.exec(notice, "after")
		}
	}
}

// TestNoticesOfAnotherServer: notices that were restored from a server with more transactions hide nothing.
func TestNoticesOfAnotherServer(t *testing.T) {
	t.Parallel()
	w := watch(t)
	restored := "INSERT INTO " + w.object("cache_notices") + " (xid, payload) VALUES ('1000000000000', 'restored')"
	w.exec(restored)
	at, err := w.BeginPolling(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		w.exec(restored)
		w.exec("INSERT INTO "+w.object("cache_notices")+" (payload) VALUES ($1)", fmt.Sprint(i))
		polled, err := w.Poll(t.Context(), w.db, at)
		if err != nil || !slices.Equal(polled.Payloads, []string{fmt.Sprint(i)}) {
			t.Errorf("%q, %v", polled.Payloads, err)
		}
		at = polled.At
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
		at, err := w.BeginPolling(ctx, time.Minute)
		return at.Incarnation, err
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

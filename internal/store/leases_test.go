package store_test

import (
	"slices"
	"testing"
	"time"

	"github.com/pgcache/go/internal/store"
)

func (w *watched) lease(t *testing.T, ask store.LeaseAsk) store.Leased {
	t.Helper()
	got, err := w.LeaseAndLook(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (w *watched) leases(t *testing.T) (n int) {
	t.Helper()
	if err := w.db.QueryRow("SELECT count(*) FROM " + w.object("cache_leases")).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLeases: who gets which, what a live row does to it, and the look that comes with it.
func TestLeases(t *testing.T) {
	t.Parallel()
	w := watch(t)
	if _, err := w.set(row("live", "v", 1))(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := []store.Lease{{ID: 3, Owner: 33}, {ID: 1, Owner: 11}, {ID: 2, Owner: 22}}
	got := w.lease(t, store.LeaseAsk{Keys: []string{"a", "live", "live", "b"}, Leases: first, Of: []int{1, 2, -3, 0}})
	if !slices.Equal(got.Got, []bool{true, false, true, false}) || got.Incarnation == 0 || got.Rows[1].Version != 1 || got.Rows[0].Version != 0 {
		t.Errorf("%+v", got)
	}
	for _, test := range []struct {
		lease store.Lease
		got   bool
	}{
		{store.Lease{ID: 3, Owner: 99}, false},
		{store.Lease{ID: 3, Owner: 33}, true}, // sent again, since the reply was lost
		{store.Lease{ID: 3, Owner: 44, Was: 33}, true},
		{store.Lease{ID: 3, Owner: 33}, false},
		{store.Lease{ID: 1, Owner: 99}, true}, // was not taken
	} {
		if got := w.lease(t, store.LeaseAsk{Keys: []string{"x"}, Leases: []store.Lease{test.lease}, Of: []int{1}}); got.Got[0] != test.got {
			t.Errorf("%+v: %v", test.lease, got.Got)
		}
	}
	// A list of keys with one lease: one row that is missing is enough.
	list := func(keys ...string) []bool {
		return w.lease(t, store.LeaseAsk{Keys: keys, Leases: []store.Lease{{ID: 9, Owner: 9}}, Of: []int{1, 1}}).Got
	}
	if got := list("live", "live"); got[0] || got[1] {
		t.Error(got)
	}
	if got := list("live", "none"); !got[0] || !got[1] {
		t.Error(got)
	}
	kept, err := w.RenewLeases(t.Context(), []store.Lease{{ID: 3, Owner: 33}, {ID: 9, Owner: 9}, {ID: 77, Owner: 7}})
	if err != nil || !slices.Equal(kept, []int64{9}) {
		t.Error(kept, err)
	}
	if err := w.ReleaseLeases(t.Context(), []store.Lease{{ID: 3, Owner: 33}, {ID: 9, Owner: 9}}); err != nil || w.leases(t) != 3 {
		t.Error(w.leases(t), err)
	}
}

// TestLoadsRelease: a store ends its leases, whether it is fenced or not, and does without where somebody holds their table.
func TestLoadsRelease(t *testing.T) {
	t.Parallel()
	w := watch(t)
	incarnation, looked, err := w.Incarnation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	load := func(key string, id int64, fence int64) store.Write {
		l := store.Lease{ID: id, Owner: id}
		w.lease(t, store.LeaseAsk{Keys: []string{key}, Leases: []store.Lease{l}, Of: []int{1}})
		r := row(key, "loaded", id)
		r.Fence, r.Incarnation, r.Looked, r.Lease = fence, incarnation, looked, l
		return r
	}
	for i, rows := range [][]store.Write{
		{load("stored", 1, 0)},
		{load("fenced", 2, 77)},
		{load("stored too", 3, 0), load("fenced too", 4, 77)},
	} {
		if i == 1 {
			if _, err := w.set(row("fenced", "v", 5), row("fenced too", "v", 6))(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		before := w.leases(t)
		out, err := w.PutLoaded(t.Context(), rows, false)
		if err != nil || !out.Released || w.leases(t) != before-len(rows) {
			t.Errorf("%+v, %v: %d leases, %d before", out, err, w.leases(t), before)
		}
	}
	locked := load("locked", 5, 0)
	tx, err := w.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // it is ended below
	if _, err := tx.Exec("LOCK TABLE " + w.object("cache_leases") + " IN SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	out, err := w.PutLoaded(t.Context(), []store.Write{locked}, false)
	if err != nil || out.Released || !out.Stored[0] || time.Since(began) > 10*time.Second { // Timeout is 20 s
		t.Errorf("%+v, %v after %v", out, err, time.Since(began))
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if n := w.leases(t); n != 1 {
		t.Errorf("%d leases", n)
	}
}

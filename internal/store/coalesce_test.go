package store_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/internal/store"
)

// TestLoneCaller: who finds nothing under way sends a statement of its own, one each.
func TestLoneCaller(t *testing.T) {
	t.Parallel()
	w := watch(t)
	for i := range 3 {
		if _, err := w.Put(t.Context(), []store.Write{row("k", fmt.Sprint(i), int64(i+1))}, i%2 == 0); err != nil {
			t.Fatal(err)
		}
		if r, err := w.Get(t.Context(), "k"); err != nil || string(r.Value) != fmt.Sprint(i) {
			t.Error(r, err)
		}
	}
	w.want("PutEntry", "GetEntry", "PutEntry", "GetEntry", "PutEntry", "GetEntry")
	if _, err := w.Put(t.Context(), []store.Write{row("a", "1", 1), row("b", "1", 1)}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := w.GetMany(t.Context(), []string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.PutLoaded(t.Context(), []store.Write{row("l", "1", 1)}, false); err != nil {
		t.Fatal(err)
	}
	w.want("PutEntries", "GetEntries", "StoreLoaded")
}

// TestCallersShare: those who come while a statement is under way share the next, and each gets its own answer.
func TestCallersShare(t *testing.T) {
	t.Parallel()
	const k = 40
	t.Run("writes", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		w.exec("INSERT INTO " + w.object("cache_entries") + " (key, version, codec) SELECT 'k' || i, 1, '' FROM generate_series(0, 9) i")
		g, first := block(w, "PutEntry", w.set(row("k0", "first", 2)))
		var calls []*result[store.Written]
		for i := range k {
			calls = append(calls, queue(t, t.Context(), w.set(row(fmt.Sprint("k", i), fmt.Sprint("v", i), int64(i+10)))))
		}
		g.open()
		if out := first.get(t); !out.Stored[0] || !out.Logged[0] {
			t.Errorf("%+v", out)
		}
		for i, c := range calls {
			// A key that is new is nobody's business.
			if d := cmp.Diff([]bool{i < 10}, c.get(t).Logged); d != "" {
				t.Errorf("k%d: logged: %s", i, d)
			}
		}
		w.want("PutEntry", "PutEntries")
		for i := range k {
			if v := w.value(fmt.Sprint("k", i)); v != fmt.Sprint("v", i) {
				t.Errorf("k%d is %q", i, v)
			}
		}
	})
	t.Run("behind a locked row", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		if _, err := w.set(row("k", "v", 1))(t.Context()); err != nil {
			t.Fatal(err)
		}
		tx, err := w.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback() //nolint:errcheck // it is rolled back below
		if _, err := tx.Exec("SELECT FROM " + w.object("cache_entries") + " WHERE key = 'k' FOR UPDATE"); err != nil {
			t.Fatal(err)
		}
		w.statements()
		first := queue(t, t.Context(), w.set(row("k", "first", 2)))
		waitFor(t, "the statement waits for the row", w.waiting)
		var calls []*result[store.Written]
		for i := range k {
			calls = append(calls, queue(t, t.Context(), w.set(row(fmt.Sprint("k", i), "v", int64(i+10)))))
		}
		_ = tx.Rollback()
		first.get(t)
		for _, c := range calls {
			c.get(t)
		}
		w.want("PutEntry", "PutEntries")
	})
	t.Run("reads", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		var rows []store.Write
		for i := range k {
			rows = append(rows, row(fmt.Sprint("k", i), fmt.Sprint("v", i), int64(i+1)))
		}
		if _, err := w.Put(t.Context(), rows, false); err != nil {
			t.Fatal(err)
		}
		g, first := block(w, "GetEntry", w.read("k0"))
		g2, second := block(w, "GetEntry", w.read("k1")) // two at a time
		var calls []*result[store.Row]
		for i := range 2 * k {
			calls = append(calls, queue(t, t.Context(), w.read(fmt.Sprint("k", i%(k+10)))))
		}
		many := queue(t, t.Context(), func(ctx context.Context) ([]store.Row, error) {
			return w.GetMany(ctx, []string{"k3", "none", "k3", "k1"})
		})
		g.open()
		for i, c := range calls {
			n := i % (k + 10)
			r := c.get(t)
			if r.Key != fmt.Sprint("k", n) || r.Live() != (n < k) || (n < k && string(r.Value) != fmt.Sprint("v", n)) {
				t.Errorf("k%d: %+v", n, r)
			}
		}
		var got []string
		for _, r := range many.get(t) {
			got = append(got, r.Key+"="+string(r.Value))
		}
		if d := cmp.Diff([]string{"k3=v3", "none=", "k3=v3", "k1=v1"}, got); d != "" {
			t.Error(d)
		}
		g2.open()
		if a, b := first.get(t), second.get(t); string(a.Value) != "v0" || string(b.Value) != "v1" {
			t.Error(a, b)
		}
		w.want("GetEntry", "GetEntries") // the first was reset by the second block
	})
	t.Run("after it", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		// A write that has returned is seen by every read that begins after it, whatever statement the read shares.
		g, first := block(w, "GetEntry", w.read("k"))
		g2, second := block(w, "GetEntry", w.read("k"))
		early := queue(t, t.Context(), w.read("k"))
		if _, err := w.set(row("k", "new", 1))(t.Context()); err != nil {
			t.Fatal(err)
		}
		late := queue(t, t.Context(), w.read("k"))
		g.open()
		g2.open()
		for _, r := range []*result[store.Row]{first, second, early} {
			r.get(t)
		}
		if r := late.get(t); string(r.Value) != "new" {
			t.Errorf("a read that began after the write returned %+v", r)
		}
	})
}

// TestBlockedRow: whoever waits for a row that somebody's transaction holds, waits alone. It may be the holder that writes
// another row here, before it ends its transaction: they would wait for each other, and Postgres would not know.
func TestBlockedRow(t *testing.T) {
	t.Parallel()
	w := watch(t)
	if _, err := w.set(row("a", "v", 1))(t.Context()); err != nil {
		t.Fatal(err)
	}
	tx, err := w.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // it is committed below
	if _, err := tx.Exec("UPDATE " + w.object("cache_entries") + " SET value = 'held' WHERE key = 'a'"); err != nil {
		t.Fatal(err)
	}
	blocked := queue(t, t.Context(), w.set(row("a", "w", 2)))
	waitFor(t, "the statement waits for the row", w.waiting)
	for i := range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		if _, err := w.set(row("b", fmt.Sprint(i), int64(i+3)))(ctx); err != nil {
			t.Error("a write of another row:", err)
		}
		cancel()
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	blocked.get(t)
	if a, b := w.value("a"), w.value("b"); a != "w" || b != "2" {
		t.Error(a, b)
	}
}

// TestDuplicates: a statement can't touch a row twice, so of several writes of one key the last is written. The others
// are overwritten at once, and leave no trace.
func TestDuplicates(t *testing.T) {
	t.Parallel()
	w := watch(t)
	if _, err := w.set(row("k", "v", 1), row("l", "v", 2), row("m", "v", 3))(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone := store.Write{Key: "m", Version: 14, TTL: time.Hour, Codec: "c", PublishNew: true}
	g, first := block(w, "PutEntry", w.set(row("x", "v", 9)))
	a := queue(t, t.Context(), w.set(row("k", "a", 10)))
	b := queue(t, t.Context(), w.set(row("k", "b", 11), row("l", "b", 12), row("m", "b", 13)))
	c := queue(t, t.Context(), w.set(gone))
	d := queue(t, t.Context(), w.set(row("k", "d", 15)))
	g.open()
	first.get(t)
	for name, test := range map[string]struct {
		call   *result[store.Written]
		logged []bool
	}{
		"a": {a, []bool{false}},
		"b": {b, []bool{false, true, false}},
		"c": {c, []bool{true}},
		"d": {d, []bool{true}},
	} {
		out := test.call.get(t)
		if diff := cmp.Diff(test.logged, out.Logged); diff != "" || slices.Contains(out.Stored, false) {
			t.Errorf("%s: %+v %s", name, out, diff)
		}
	}
	w.want("PutEntry", "PutEntries")
	got := w.value("k") + w.value("l") + w.value("m")
	if versions := scan[string](w, "SELECT string_agg(version::text, ' ' ORDER BY version) FROM "+w.object("cache_changes")); got != "db" || versions != "12 14 15" {
		t.Errorf("values %q, logged %s", got, versions)
	}
}

// TestInlineWins: if one of the writes that share a statement is to publish itself, all of them do.
func TestInlineWins(t *testing.T) {
	t.Parallel()
	w := watch(t)
	if _, err := w.set(row("a", "", 1), row("b", "", 1), row("c", "", 1))(t.Context()); err != nil {
		t.Fatal(err)
	}
	recorder := w.listen()
	g, first := block(w, "PutEntry", w.set(row("x", "v", 9)))
	calls := []*result[store.Written]{first}
	for i, key := range []string{"a", "b", "c"} {
		calls = append(calls, queue(t, t.Context(), func(ctx context.Context) (store.Written, error) {
			return w.Put(ctx, []store.Write{row(key, "v", int64(i+2))}, i == 1)
		}))
	}
	g.open()
	for _, c := range calls {
		if out := c.get(t); slices.Contains(out.Logged, true) {
			t.Errorf("%+v", out)
		}
	}
	published := recorder.published()
	if d := cmp.Diff(map[string][]int64{"a": {2}, "b": {3}, "c": {4}}, published.versions); d != "" || published.messages != 1 || w.logged() != 0 {
		t.Errorf("%+v %s; %d logged", published, d, w.logged())
	}
}

package store_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/store"
)

// TestMixedSizes: calls for one row and for many share statements, of at most 1000 rows or 8 MiB.
func TestMixedSizes(t *testing.T) {
	t.Parallel()
	t.Run("writes", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		var many []store.Write
		for i := range 500 {
			many = append(many, row(fmt.Sprint("m", i), "v", int64(i+1)))
		}
		g, first := block(w, "PutEntry", w.set(row("k", "v", 1)))
		a := queue(t, t.Context(), w.set(many...))
		b := queue(t, t.Context(), w.set(row("k", "w", 2)))
		c := queue(t, t.Context(), w.set(slices.Clone(many[:400])...))
		d := queue(t, t.Context(), w.set(slices.Clone(many[:200])...)) // does not fit any more
		e := queue(t, t.Context(), w.set(row("l", "v", 3)))
		g.open()
		first.get(t)
		for call, n := range map[*result[store.Written]]int{a: 500, b: 1, c: 400, d: 200, e: 1} {
			if out := call.get(t); len(out.Stored) != n || len(out.Logged) != n || slices.Contains(out.Stored, false) {
				t.Errorf("%d stored, %d logged, want %d", len(out.Stored), len(out.Logged), n)
			}
		}
		w.want("PutEntry", "PutEntries", "PutEntries")
		if n := scan[int](w, "SELECT count(*) FROM "+w.object("cache_entries")); n != 502 {
			t.Errorf("%d rows", n)
		}
	})
	t.Run("reads", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		keys := make([]string, 600)
		for i := range keys {
			keys[i] = fmt.Sprint("k", i)
		}
		many := func(ctx context.Context) ([]store.Row, error) { return w.GetMany(ctx, keys) }
		g, first := block(w, "GetEntry", w.read("k"))
		g2, second := block(w, "GetEntry", w.read("k"))
		a := queue(t, t.Context(), many)
		b := queue(t, t.Context(), many)
		c := queue(t, t.Context(), w.read("k"))
		g.open()
		if len(a.get(t)) != 600 || len(b.get(t)) != 600 || c.get(t).Key != "k" {
			t.Error("rows are missing")
		}
		g2.open()
		first.get(t)
		second.get(t)
		w.want("GetEntry", "GetEntries", "GetEntries")
	})
	t.Run("2500 rows", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		var rows []store.Write
		for i := range 2500 {
			rows = append(rows, row(fmt.Sprint("k", i), "v", int64(i+1)))
		}
		rows[2400].Key = "\xff"
		out, err := w.Put(t.Context(), rows, false)
		if sqlerr.State(err) == "" {
			t.Error(err)
		}
		// The first two statements are done, and the caller learns what has become of their rows.
		if n := scan[int](w, "SELECT count(*) FROM "+w.object("cache_entries")); n != 2000 || len(out.Stored) != 2000 || len(out.Logged) != 2000 {
			t.Errorf("%d rows; published of %d", n, len(out.Stored))
		}
		w.want("PutEntries", "PutEntries", "PutEntries")
	})
}

// TestLargest: nothing and 8 MiB, alone and in statements that carry both.
func TestLargest(t *testing.T) {
	t.Parallel()
	w := watch(t)
	big := bytes.Repeat([]byte{0, 255, '\\', '\''}, 2<<20)
	values := []struct {
		key   string
		value []byte
	}{{"big", big}, {"empty", []byte{}}, {"half", big[:4<<20]}, {"none", nil}, {"half2", big[:4<<20]}, {"one", []byte{0}}}
	put := func(i int) func(ctx context.Context) (store.Written, error) {
		return w.set(store.Write{Key: values[i].key, Value: values[i].value, Version: 1, TTL: time.Hour, Codec: "c"})
	}
	check := func() {
		t.Helper()
		for _, v := range values {
			r, err := w.Get(t.Context(), v.key)
			if err != nil || !bytes.Equal(r.Value, v.value) || r.Live() != (v.value != nil) || r.Version != 1 {
				t.Errorf("%s: %d bytes, live %v, version %d, %v", v.key, len(r.Value), r.Live(), r.Version, err)
			}
		}
		w.exec("TRUNCATE " + w.object("cache_entries"))
	}
	for i := range values {
		if _, err := put(i)(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	check()
	g, first := block(w, "PutEntry", w.set(row("k", "v", 1)))
	calls := []*result[store.Written]{first}
	for i := range values {
		calls = append(calls, queue(t, t.Context(), put(i)))
	}
	g.open()
	for _, c := range calls {
		c.get(t)
	}
	// The large ones have statements beside the one that the small ones share.
	sent := w.statements()
	slices.Sort(sent)
	if d := cmp.Diff([]string{"PutEntries", "PutEntry", "PutEntry", "PutEntry", "PutEntry"}, sent); d != "" {
		t.Error(d)
	}
	check()
}

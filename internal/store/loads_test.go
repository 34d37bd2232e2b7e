package store_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/store"
)

// TestSharedLoads: loads that share a statement are fenced each by its own fence and incarnation.
func TestSharedLoads(t *testing.T) {
	t.Parallel()
	w := watch(t)
	if _, err := w.set(row("same", "v", 1), row("changed", "v", 2), row("there", "v", 3), row("old", "v", 4), row("twice", "v", 5))(t.Context()); err != nil {
		t.Fatal(err)
	}
	now, looked, err := w.Incarnation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	loaded := func(key string, version, fence, incarnation int64) store.Write {
		l := row(key, fmt.Sprint("loaded", version), version)
		l.Fence, l.Incarnation, l.Looked = fence, incarnation, looked
		return l
	}
	g, first := block(w, "StoreLoaded", w.load(loaded("x", 9, 0, now)))
	type call struct {
		rows   []store.Write
		stored []bool
		logged []bool
		r      *result[store.Written]
	}
	calls := []*call{
		{rows: []store.Write{loaded("same", 11, 1, now)}, stored: []bool{true}, logged: []bool{true}},
		{rows: []store.Write{loaded("changed", 12, 77, now), loaded("new", 13, 0, now)}, stored: []bool{false, true}, logged: []bool{false, false}},
		{rows: []store.Write{loaded("there", 14, 0, now)}, stored: []bool{false}, logged: []bool{false}},
		{rows: []store.Write{loaded("old", 15, 4, now-1), loaded("old2", 16, 0, now-1)}, stored: []bool{false, false}, logged: []bool{false, false}},
		{rows: []store.Write{loaded("twice", 17, 5, now)}, stored: []bool{true}, logged: []bool{true}},
		{rows: []store.Write{loaded("twice", 18, 5, now), loaded("new2", 19, 0, now)}, stored: []bool{false, true}, logged: []bool{false, false}},
	}
	for _, c := range calls {
		c.r = queue(t, t.Context(), w.load(c.rows...))
	}
	g.open()
	first.get(t)
	for _, c := range calls {
		out := c.r.get(t)
		if d := cmp.Diff(c.stored, out.Stored) + cmp.Diff(c.logged, out.Logged); d != "" {
			t.Errorf("%s: %s", c.rows[0].Key, d)
		}
	}
	w.want("StoreLoaded", "StoreLoaded")
	for key, want := range map[string]string{
		"same": "loaded11", "changed": "v", "new": "loaded13", "there": "v", "old": "v", "old2": "", "twice": "loaded17", "new2": "loaded19",
	} {
		if v := w.value(key); v != want {
			t.Errorf("%s is %q, want %q", key, v, want)
		}
	}
}

// TestLoadsRace: a write that commits while the statement of a load waits for its row is not stored over.
func TestLoadsRace(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		before []store.Write
		write  string
		fence  int64
		wants  string
	}{
		"a new version":  {[]store.Write{row("k", "v", 1)}, "UPDATE %s SET version = 2, stamp = 2, value = 'new'", 1, "new"},
		"a new row":      {nil, "INSERT INTO %s (key, version, value, codec) VALUES ('k', 2, 'new', '')", 0, "new"},
		"rolled back":    {[]store.Write{row("k", "v", 1)}, "UPDATE %s SET version = 2, stamp = 2; ROLLBACK", 1, "loaded"},
		"the same still": {[]store.Write{row("k", "v", 1)}, "SELECT FROM %s FOR UPDATE", 1, "loaded"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := watch(t)
			if len(test.before) > 0 {
				if _, err := w.set(test.before...)(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			incarnation, looked, err := w.Incarnation(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			tx, err := w.db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback() //nolint:errcheck // it is ended below
			write, rollback := strings.CutSuffix(test.write, "; ROLLBACK")
			if _, err := tx.Exec(fmt.Sprintf(write, w.object("cache_entries"))); err != nil {
				t.Fatal(err)
			}
			load := row("k", "loaded", 9)
			load.Fence, load.Incarnation, load.Looked = test.fence, incarnation, looked
			r := queue(t, t.Context(), w.load(load))
			waitFor(t, "the load waits for the row", func() bool {
				select {
				case <-r.done: // it waits for 100 ms, and this test was asleep
					r = queue(t, t.Context(), w.load(load))
				default:
				}
				return w.waiting()
			})
			if rollback {
				_ = tx.Rollback()
			} else if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if _, err := r.both(t); sqlerr.Locked(err) { // asleep again
				r = queue(t, t.Context(), w.load(load))
			}
			if out := r.get(t); out.Stored[0] != (test.wants == "loaded") || w.value("k") != test.wants {
				t.Errorf("%+v, the row has %q, want %q", out, w.value("k"), test.wants)
			}
		})
	}
}

package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// fuzzFleet is two writers, one of each driver, and a node with a memory.
type fuzzFleet struct {
	db      *sql.DB
	table   string
	writers []*pgcache.Cache
	near    *pgcache.Cache
	value   int
}

func newFuzzFleet(f *testing.F) *fuzzFleet {
	f.Helper()
	o := fuzzOptions(f)
	fl := &fuzzFleet{db: testdb.DB(f), table: o.Schema + ".t_cache_entries", near: nearNode(f, o)}
	for _, driver := range []string{"pgx", "postgres"} {
		fl.writers = append(fl.writers, fuzzNode(f, testdb.Open(f, driver, testdb.DSN(f)), o))
	}
	if err := fl.writers[0].Set(f.Context(), "sentinel", 7); err != nil {
		f.Fatal(err)
	}
	return fl
}

// live are the keys of the rows that have a value.
func (fl *fuzzFleet) live(t *testing.T) string {
	t.Helper()
	rows, err := fl.db.QueryContext(t.Context(), "SELECT key FROM "+fl.table+" WHERE value IS NOT NULL AND key <> 'sentinel' ORDER BY key")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var keys []string
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, fmt.Sprintf("%q", key))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(keys, " ")
}

// refusedKey checks that err refuses key, and says which one.
func refusedKey(t *testing.T, what string, err error, key string) {
	t.Helper()
	var e *pgcache.Error
	switch {
	case !errors.Is(err, pgcache.ErrInvalidKey) || !errors.As(err, &e):
		t.Errorf("%s of %.100q: %v", what, key, err)
	case e.Key != key || !strings.Contains(err.Error(), fmt.Sprintf("%.200q", key)) && key != "":
		t.Errorf("%s of %.100q: the error does not name the key: %v", what, key, err)
	case len(err.Error()) > 2000 || !utf8.ValidString(err.Error()):
		t.Errorf("%s of %.100q: an error of %d bytes", what, key, len(err.Error()))
	}
}

// roundTrip writes, changes and deletes a key through view, which each writer has made; row is what its row's key is to be.
func (fl *fuzzFleet) roundTrip(t *testing.T, key, row string, view func(c *pgcache.Cache) *pgcache.Typed[int]) {
	t.Helper()
	ctx, near := t.Context(), view(fl.near)
	for i, c := range fl.writers {
		here, there := view(c), view(fl.writers[1-i])
		see := func(want int) {
			t.Helper()
			for name, v := range map[string]*pgcache.Typed[int]{"here": here, "there": there} {
				if got, found, err := v.Get(ctx, key); got != want || !found || err != nil {
					t.Fatalf("%s: %q is %v, %v, %v, want %v", name, key, got, found, err, want)
				}
				if m, err := v.GetMany(ctx, []string{"sentinel", key, "absent"}); m[key] != want || err != nil {
					t.Fatalf("%s: %q is %v, %v, want %v", name, key, m, err, want)
				}
			}
			if live := fl.live(t); live != fmt.Sprintf("%q", row) {
				t.Fatalf("the rows are %s, want %q", live, row)
			}
		}
		fl.value += 10
		v := fl.value
		if err := here.Set(ctx, key, v); err != nil {
			t.Fatalf("Set of %q: %v", key, err)
		}
		see(v)
		eventually(t, "the value is in memory", func() bool {
			hits := fl.near.Stats().LocalHits
			got, _, err := near.Get(ctx, key)
			return err == nil && got == v && fl.near.Stats().LocalHits > hits
		})
		before := fl.near.Stats()
		seen := func(want int) {
			t.Helper()
			eventually(t, "the change arrives", func() bool {
				got, found, err := near.Get(ctx, key)
				if err != nil || got != want && got != want-1 {
					t.Fatalf("%q is %v, %v, %v, want %v", key, got, found, err, want)
				}
				return got == want
			})
		}
		if err := here.Set(ctx, key, v+1); err != nil {
			t.Fatal(err)
		}
		seen(v + 1)
		if err := here.SetMany(ctx, map[string]int{key: v + 2}); err != nil {
			t.Fatal(err)
		}
		seen(v + 2)
		see(v + 2)
		if err := here.Delete(ctx, key); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the Delete arrives", func() bool { _, found, err := near.Get(ctx, key); return err == nil && !found })
		if _, found, err := there.Get(ctx, key); found || err != nil {
			t.Fatal(found, err)
		}
		if got, err := there.GetOrSet(ctx, key, func(context.Context) (int, error) { return v + 3, nil }); got != v+3 || err != nil {
			t.Fatal(got, err)
		}
		see(v + 3)
		if err := there.Delete(ctx, key); err != nil {
			t.Fatal(err)
		}
		if after := fl.near.Stats(); after.UnknownMessages != before.UnknownMessages || after.LocalFlushes != before.LocalFlushes {
			t.Fatalf("the key %q made a node forget everything: %+v", key, after)
		}
	}
	if live := fl.live(t); live != "" {
		t.Fatalf("the rows are %s, want none", live)
	}
	want(t, fl.writers[0], "sentinel", 7)
}

func FuzzKey(f *testing.F) {
	fl := newFuzzFleet(f)
	f.Fuzz(func(t *testing.T, key string) {
		if key == "sentinel" || key == "absent" {
			return
		}
		valid := key != "" && len(key) <= pgcache.MaxKeyBytes && utf8.ValidString(key) && !strings.Contains(key, "\x00")
		if valid {
			fl.roundTrip(t, key, key, func(c *pgcache.Cache) *pgcache.Typed[int] { return pgcache.For[int](c) })
			return
		}
		for _, c := range append(fl.writers, fl.near) {
			typed := pgcache.For[int](c)
			_, err := c.Get(t.Context(), key, new(int))
			refusedKey(t, "Get", err, key)
			refusedKey(t, "Set", c.Set(t.Context(), key, 1), key)
			refusedKey(t, "Delete", c.Delete(t.Context(), key), key)
			refusedKey(t, "GetOrSet", c.GetOrSet(t.Context(), key, new(int), noLoad(t)), key)
			refusedKey(t, "SetMany", typed.SetMany(t.Context(), map[string]int{key: 1}), key)
			_, err = typed.GetMany(t.Context(), []string{"sentinel", key})
			refusedKey(t, "GetMany", err, key)
		}
		if live := fl.live(t); live != "" {
			t.Errorf("the rows are %s, want none", live)
		}
	})
}

func FuzzNamespace(f *testing.F) {
	fl := newFuzzFleet(f)
	f.Fuzz(func(t *testing.T, ns string) {
		view := func(c *pgcache.Cache) *pgcache.Typed[int] { return pgcache.For[int](c, pgcache.Namespace(ns)) }
		if ns != "" && len(ns) <= pgcache.MaxKeyBytes/2 && utf8.ValidString(ns) && !strings.ContainsAny(ns, ":\x00") {
			fl.roundTrip(t, "k", ns+":k", view)
			return
		}
		for _, c := range append(fl.writers, fl.near) {
			_, _, err := view(c).Get(t.Context(), "k")
			refusedKey(t, "Get", err, "k")
			refusedKey(t, "Set", view(c).Set(t.Context(), "k", 1), "k")
			refusedKey(t, "Delete", view(c).Delete(t.Context(), "k"), "k")
			if !strings.Contains(err.Error(), "namespace") {
				t.Errorf("the error does not say that it is the namespace: %v", err)
			}
		}
		if live := fl.live(t); live != "" {
			t.Errorf("the rows are %s, want none", live)
		}
	})
}

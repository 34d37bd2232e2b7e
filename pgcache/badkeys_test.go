package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// noLoad is a loader that must not be called.
func noLoad(t *testing.T) func(context.Context) (any, error) {
	return func(context.Context) (any, error) {
		t.Error("the loader is called")
		return nil, errors.New("the loader is called")
	}
}

// keyCalls are all operations on a key. Those of many keys have a good one beside it.
func keyCalls(t *testing.T, c *pgcache.Cache) map[string]func(key string) error {
	ctx := t.Context()
	typed := pgcache.For[int](c)
	load := noLoad(t)
	loadInt := func(ctx context.Context) (int, error) { _, err := load(ctx); return 0, err }
	loadMany := func(ctx context.Context, _ []string) (map[string]int, error) { _, err := load(ctx); return nil, err }
	return map[string]func(key string) error{
		"Get":                func(k string) error { _, err := c.Get(ctx, k, new(int)); return err },
		"Set":                func(k string) error { return c.Set(ctx, k, 1) },
		"GetOrSet":           func(k string) error { return c.GetOrSet(ctx, k, new(int), load) },
		"Delete":             func(k string) error { return c.Delete(ctx, k) },
		"Delete many":        func(k string) error { return c.Delete(ctx, "good", k) },
		"typed Get":          func(k string) error { _, _, err := typed.Get(ctx, k); return err },
		"typed Set":          func(k string) error { return typed.Set(ctx, k, 1) },
		"typed GetOrSet":     func(k string) error { _, err := typed.GetOrSet(ctx, k, loadInt); return err },
		"typed Delete":       func(k string) error { return typed.Delete(ctx, "good", k) },
		"typed GetMany":      func(k string) error { _, err := typed.GetMany(ctx, []string{"good", k}); return err },
		"typed SetMany":      func(k string) error { return typed.SetMany(ctx, map[string]int{"good": 2, k: 1}) },
		"typed GetOrSetMany": func(k string) error { _, err := typed.GetOrSetMany(ctx, []string{"good", k}, loadMany); return err },
	}
}

func TestBadKeys(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		db, wire := openWire(t, driver, testdb.DSN(t))
		c := cl.on(db, nil)
		set(t, c, "good", 1)
		keys := map[string]string{
			"empty": "", "1025 bytes": strings.Repeat("x", 1025), "8 kB": strings.Repeat("x", 8000), "1 MB": strings.Repeat("x", 1<<20),
			"512 runes of 3 bytes": strings.Repeat("\u20ac", 512), "NUL": "a\x00b", "only NUL": "\x00", "invalid UTF-8": "a\xffb",
			"a surrogate": "a\xed\xa0\x80", "cut off": "a\xe2\x82",
		}
		wire.forget()
		for what, key := range keys {
			for name, call := range keyCalls(t, c) {
				err := call(key)
				wantErr(t, err, pgcache.ErrInvalidKey)
				if err != nil && len(err.Error()) > 1000 {
					t.Errorf("%s of a key of %s: an error of %d bytes", name, what, len(err.Error()))
				}
				if s := wire.statements(); len(s) != 0 {
					t.Fatalf("%s of a key that is %s: sent %q", name, what, s)
				}
			}
		}
		// The namespace counts.
		long := pgcache.For[int](c, pgcache.Namespace("ns"))
		if err := long.Set(t.Context(), strings.Repeat("x", 1021), 1); err != nil {
			t.Error(err)
		}
		wire.forget()
		wantErr(t, long.Set(t.Context(), strings.Repeat("x", 1022), 1), pgcache.ErrInvalidKey)
		_, _, err := long.Get(t.Context(), "")
		wantErr(t, err, pgcache.ErrInvalidKey)
		for _, ns := range []string{"", "a:b", ":", "a\x00", "\xff", strings.Repeat("n", 513)} {
			view := pgcache.For[int](c, pgcache.Namespace(ns))
			for name, err := range map[string]error{
				"Set": view.Set(t.Context(), "good", 1), "Delete": view.Delete(t.Context(), "good"), "Delete of none": view.Delete(t.Context()),
				"SetMany": view.SetMany(t.Context(), map[string]int{"good": 2}), "SetMany of none": view.SetMany(t.Context(), nil),
			} {
				if !errors.Is(err, pgcache.ErrInvalidKey) {
					t.Errorf("namespace %.10q: %s: %v", ns, name, err)
				}
			}
			if _, err := view.GetOrSet(t.Context(), "x", func(context.Context) (int, error) { return 1, nil }); !errors.Is(err, pgcache.ErrInvalidKey) {
				t.Errorf("namespace %.10q: GetOrSet: %v", ns, err)
			}
		}
		if s := wire.statements(); len(s) != 0 {
			t.Errorf("sent %q", s)
		}
		want(t, c, "good", 1)
		if n := cl.count("SELECT count(*) FROM " + cl.table()); n != 2 {
			t.Errorf("%d rows", n)
		}
	})
}

// A wrong option of a view makes every call fail, also where the value is in memory.
func TestBadView(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	set(t, c, "k", 1)
	warm(t, c, "k", 1)
	for name, o := range map[string]pgcache.ViewOption{
		"no namespace": pgcache.Namespace(""), "negative TTL": pgcache.TTL(-5), "no codec": pgcache.WithCodec(nil), "bad codec": pgcache.WithCodec(rawCodec{name: "no spaces!"}),
	} {
		view := pgcache.For[int](c, o)
		_, _, err1 := view.Get(t.Context(), "k")
		_, err2 := view.GetOrSet(t.Context(), "k", func(context.Context) (int, error) { return 1, nil })
		_, err3 := view.GetMany(t.Context(), []string{"k"})
		for i, err := range []error{err1, err2, err3, view.Set(t.Context(), "k", 1)} {
			var e *pgcache.Error
			if !errors.As(err, &e) {
				t.Errorf("%s: call %d: %v", name, i, err)
			}
		}
	}
}

func TestStrangeKeys(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		cl.opts.InvalidationWindow = pgcache.Immediate
		a := cl.on(testdb.Open(t, driver, testdb.DSN(t)), nil)
		b := cl.node(func(db *sql.DB, o *pgcache.Options) { o.Listener = calm(pgxdriver.Dial(db)) })
		typed := pgcache.For[int](a)
		keys := []string{
			" ", "'", `"`, `\`, `\\"`, "a\nb\r\t", "\x01\x1f\x7f", "{}", "{a,b}", "NULL", "null", ",", "$1", "%s", "--", "/* */", ";", "a;b", "1:2", ":", "::", ":x",
			"x:", "a:b:c", "5:a0000000000000001;", "*", "2*", "p", "\u202e\u05d0", "\U0001f4a3", "e\u0301", "\u00e9", "\ufeff", "\ufffd", "\ufffe", "K", "k",
			`\x41`, "'; DROP TABLE x; --", strings.Repeat(`"\`, 512),
		}
		all := map[string]int{}
		for i, k := range keys {
			set(t, a, k, i)
			warm(t, b, k, i)
			all[k] = i
		}
		if m, err := typed.GetMany(t.Context(), keys); err != nil || !cmp.Equal(m, all) {
			t.Fatal(err, cmp.Diff(all, m))
		}
		for i, k := range keys { // through a notification of one
			set(t, a, k, 100+i)
		}
		n := uint64(len(keys))
		eventually(t, "b receives all", func() bool { return b.Stats().Invalidations == n })
		for i, k := range keys {
			warm(t, b, k, 100+i)
			all[k] = 1000 + i
		}
		if err := typed.SetMany(t.Context(), all); err != nil { // and of many
			t.Fatal(err)
		}
		eventually(t, "b receives all", func() bool { return b.Stats().Invalidations == 2*n })
		for k, v := range all {
			warm(t, b, k, v)
		}
		if err := a.Delete(t.Context(), keys...); err != nil {
			t.Fatal(err)
		}
		eventually(t, "b receives all", func() bool { return b.Stats().Invalidations == 3*n })
		for _, k := range keys {
			wantNone(t, b, k)
			if v, err := typed.GetOrSet(t.Context(), k, func(context.Context) (int, error) { return 7, nil }); v != 7 || err != nil {
				t.Errorf("%q: %v, %v", k, v, err)
			}
		}
		if m, err := typed.GetOrSetMany(t.Context(), keys, func(_ context.Context, missing []string) (map[string]int, error) {
			t.Errorf("missing %q", missing)
			return nil, nil
		}); err != nil || len(m) != len(keys) {
			t.Error(m, err)
		}
		// By hand, through the trigger.
		for _, k := range keys {
			warm(t, b, k, 7)
		}
		before := b.Stats()
		cl.exec("UPDATE " + cl.table() + " SET value = '8'")
		eventually(t, "b receives all", func() bool { return b.Stats().Invalidations == before.Invalidations+n })
		for _, k := range keys {
			want(t, b, k, 8)
		}
		if after := b.Stats(); after.LocalFlushes != before.LocalFlushes {
			t.Error("a key made b forget everything")
		}
	})
}

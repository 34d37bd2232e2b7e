package drivertest

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/pgcache/go/pgcache"
)

func keys(t *testing.T, b *bundle) {
	ctx := t.Context()
	n, db := b.node(nil), b.node(forgetful)
	view := pgcache.For[[]byte](n.Cache, pgcache.Namespace("na'me {"))
	all := append(awkwardKeys(), longestKeys()...)
	for i, key := range all {
		want := valueOf(key, i)
		var got []byte
		load := func(context.Context) (any, error) { return want, nil }
		never := func(context.Context) (any, error) { return nil, errors.New("it need not be loaded") }
		db.want(t, key, nil)
		must(t, n.Set(ctx, key, want))
		n.want(t, key, want)
		db.want(t, key, want)
		if err := db.GetOrSet(ctx, key, &got, never); err != nil || !bytes.Equal(got, want) {
			t.Errorf("GetOrSet(%.60q) returns %.60q, %v", key, got, err)
		}
		must(t, n.Delete(ctx, key))
		n.want(t, key, nil)
		db.want(t, key, nil)
		if err := n.GetOrSet(ctx, key, &got, load); err != nil || !bytes.Equal(got, want) {
			t.Errorf("GetOrSet(%.60q) returns %.60q, %v", key, got, err)
		}
		db.want(t, key, want)
		if len(key) > 1000 {
			continue // no room for a namespace
		}

		want = valueOf(key, -i)
		full := "na'me {:" + key
		must(t, view.Set(ctx, key, want))
		db.want(t, full, want)
		got, found, err := view.Get(ctx, key)
		if err != nil || !found || !bytes.Equal(got, want) {
			t.Errorf("the view's Get(%.60q) returns %.60q, %v, %v", key, got, found, err)
		}
		must(t, view.Delete(ctx, key))
		db.want(t, full, nil)
		got, err = view.GetOrSet(ctx, key, func(context.Context) ([]byte, error) { return want, nil })
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("the view's GetOrSet(%.60q) returns %.60q, %v", key, got, err)
		}
		db.want(t, full, want)
	}
	// None of them is another one.
	for i, key := range all {
		db.want(t, key, valueOf(key, i))
	}
}

func keysInBulk(t *testing.T, b *bundle) {
	ctx := t.Context()
	n, db := b.node(nil), b.node(forgetful)
	for _, c := range []struct {
		namespace []pgcache.ViewOption
		keys      []string
	}{
		{nil, append(awkwardKeys(), longestKeys()...)},
		{[]pgcache.ViewOption{pgcache.Namespace(`n"\,`)}, awkwardKeys()},
	} {
		view, stored := pgcache.For[[]byte](n.Cache, c.namespace...), pgcache.For[[]byte](db.Cache, c.namespace...)
		fresh, loaded := map[string][]byte{}, map[string][]byte{}
		for i, key := range c.keys {
			fresh[key], loaded[key] = valueOf(key, i), valueOf(key, -i)
		}
		must(t, view.SetMany(ctx, fresh))
		wantMany(t, view, c.keys, fresh)
		wantMany(t, stored, c.keys, fresh)
		must(t, view.Delete(ctx, c.keys...))
		wantMany(t, view, c.keys, nil)
		wantMany(t, stored, c.keys, nil)
		got, err := view.GetOrSetMany(ctx, c.keys, func(_ context.Context, missing []string) (map[string][]byte, error) {
			if len(missing) != len(c.keys) {
				t.Errorf("the loader is asked for %d keys, want %d", len(missing), len(c.keys))
			}
			return loaded, nil
		})
		must(t, err)
		sameMany(t, got, loaded)
		wantMany(t, stored, c.keys, loaded)
	}
}

// keysPublished has one node hold every key in memory while another changes it: each key survives the way through a
// notification.
func keysPublished(t *testing.T, b *bundle) {
	ctx := t.Context()
	writer, holder := b.node(nil), b.node(nil)
	keys := append(awkwardKeys(), longestKeys()...)
	view, held := pgcache.For[[]byte](writer.Cache), pgcache.For[[]byte](holder.Cache)
	write := 0
	next := func() map[string][]byte {
		write++
		all := map[string][]byte{}
		for _, key := range keys {
			all[key] = valueOf(key, write)
		}
		return all
	}
	hold := func(want map[string][]byte) {
		t.Helper()
		for _, key := range keys {
			holder.sees(t, key, want[key])
		}
		eventually(t, "all keys are in memory", func() bool {
			before := holder.Stats().LocalHits
			wantMany(t, held, keys, want)
			return holder.Stats().LocalHits-before == uint64(len(keys))
		})
	}
	now := next()
	must(t, view.SetMany(ctx, now))
	hold(now)
	now = next()
	for key, value := range now { // one statement each
		must(t, writer.Set(ctx, key, value))
	}
	hold(now)
	now = next()
	must(t, view.SetMany(ctx, now)) // one for all
	hold(now)
	now = next()
	for key, value := range now { // by hand: the triggers publish
		b.exec("UPDATE "+b.table()+" SET value = $1::bytea WHERE key = $2::text", value, key)
	}
	hold(now)
	must(t, writer.Delete(ctx, keys...))
	for _, key := range keys {
		holder.sees(t, key, nil)
	}
}

// colons: the row "ns:name" is one entry, however it is addressed and wherever else a ':' is.
func colons(t *testing.T, b *bundle) {
	ctx := t.Context()
	n, db := b.node(nil), b.node(forgetful)
	names := []string{":", "::", ":::", ":a:", "a::b", "a:b:c:"}
	for i := range len("abcd") + 1 {
		names = append(names, "abcd"[:i]+":"+"abcd"[i:])
	}
	view := pgcache.For[[]byte](n.Cache, pgcache.Namespace("ns"))
	for i, name := range names {
		must(t, n.Set(ctx, name, valueOf(name, i)))
		must(t, view.Set(ctx, name, valueOf(name, -i-1)))
	}
	for i, name := range names {
		for _, c := range []node{n, db} {
			c.want(t, name, valueOf(name, i))
			c.want(t, "ns:"+name, valueOf(name, -i-1))
		}
	}
	if rows := b.count("SELECT count(*) FROM " + b.table()); rows != 2*len(names) {
		t.Errorf("%d rows, want %d", rows, 2*len(names))
	}
	for _, name := range names {
		must(t, n.Delete(ctx, "ns:"+name))
		if _, found, err := view.Get(ctx, name); found || err != nil {
			t.Errorf("the view still has %q: %v", name, err)
		}
	}
	for i, name := range names {
		n.want(t, name, valueOf(name, i))
	}
}

func badKeys(t *testing.T, b *bundle) {
	ctx := t.Context()
	n := b.start(nil) // no tables: nothing of this may reach the server
	view := pgcache.For[[]byte](n.Cache, pgcache.Namespace("ns"))
	bad := []string{"", "\x00", "a\x00b", "\xff", "a\xc0\xaf", strings.Repeat("x", 1025), strings.Repeat("😀", 257)}
	var got []byte
	for _, key := range bad {
		load := func(context.Context) (any, error) { return []byte{}, nil }
		_, getErr := n.Get(ctx, key, &got)
		_, viewErr := view.GetMany(ctx, []string{"fine", key})
		for op, err := range map[string]error{
			"Get": getErr, "Set": n.Set(ctx, key, []byte{}), "Delete": n.Delete(ctx, key), "GetOrSet": n.GetOrSet(ctx, key, &got, load),
			"GetMany": viewErr, "SetMany": view.SetMany(ctx, map[string][]byte{key: {}}),
		} {
			if !errors.Is(err, pgcache.ErrInvalidKey) {
				t.Errorf("%s(%.20q) returns %v, want ErrInvalidKey", op, key, err)
			}
		}
	}
}

package drivertest

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/msgpack"
	"github.com/pgcache/go/pgcache"
)

func values(t *testing.T, b *bundle) {
	ctx := t.Context()
	n, other, db := b.node(nil), b.node(nil), b.node(forgetful)
	all := awkwardValues()
	for key, value := range all {
		must(t, n.Set(ctx, key, value))
		for _, c := range []node{n, db, other, other} { // the second time from memory
			c.want(t, key, value)
		}
		var got []byte
		if err := n.GetOrSet(ctx, "loaded "+key, &got, func(context.Context) (any, error) { return value, nil }); err != nil || !bytes.Equal(got, value) {
			t.Errorf("GetOrSet of %s returns %.60q, %v", key, got, err)
		}
		db.want(t, "loaded "+key, value)
	}
	for key := range all {
		other.inMemory(t, key)
	}
	// Together: one statement cuts them all out of one parameter.
	keys := slices.Sorted(maps.Keys(all))
	must(t, n.Delete(ctx, keys...))
	must(t, pgcache.For[[]byte](n.Cache, pgcache.Namespace("many")).SetMany(ctx, all))
	wantMany(t, pgcache.For[[]byte](db.Cache, pgcache.Namespace("many")), keys, all)
	_, err := pgcache.For[[]byte](n.Cache).GetOrSetMany(ctx, keys, func(context.Context, []string) (map[string][]byte, error) {
		return all, nil
	})
	must(t, err)
	wantMany(t, pgcache.For[[]byte](db.Cache), keys, all)
}

func codecs(t *testing.T, b *bundle) {
	ctx := t.Context()
	n, db := b.node(nil), b.node(forgetful)
	want := somebody()
	for _, c := range []codec.Codec{codec.JSON{}, codec.Gob{}, msgpack.Codec{}} {
		with := []pgcache.ViewOption{pgcache.Namespace(c.Name()), pgcache.WithCodec(c)}
		people, stored := pgcache.For[person](n.Cache, with...), pgcache.For[person](db.Cache, with...)
		must(t, people.Set(ctx, "set", want))
		_, err := people.GetOrSet(ctx, "loaded", func(context.Context) (person, error) { return want, nil })
		must(t, err)
		for _, key := range []string{"set", "loaded"} {
			for _, view := range []*pgcache.Typed[person]{people, stored} {
				got, found, err := view.Get(ctx, key)
				if err != nil || !found {
					t.Errorf("%s: Get returns %v, %v", c.Name(), found, err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s: %s", c.Name(), diff)
				}
			}
		}
		// Another codec's row is a miss, never a wrong value.
		var got []byte
		if found, err := db.Get(ctx, c.Name()+":set", &got); found || err != nil {
			t.Errorf("%s: read as raw: %q, %v, %v", c.Name(), got, found, err)
		}
	}
}

// nilValues: nothing is a value too, which is found and not loaded again.
func nilValues(t *testing.T, b *bundle) {
	ctx := t.Context()
	for _, c := range []codec.Codec{codec.JSON{}, codec.Gob{}, msgpack.Codec{}} {
		n := b.node(func(o *pgcache.Options) { o.Codec = c })
		db := b.node(func(o *pgcache.Options) { o.Codec = c; forgetful(o) })
		key, loads := c.Name(), 0
		for range 2 {
			var got *person
			must(t, db.GetOrSet(ctx, key+" loaded", &got, func(context.Context) (any, error) {
				loads++
				return (*person)(nil), nil
			}))
			if got != nil {
				t.Errorf("%s: loaded nil and got %v", c.Name(), got)
			}
		}
		if loads != 1 {
			t.Errorf("%s: nil was loaded %d times", c.Name(), loads)
		}
		for name, value := range map[string]any{"nil": nil, "pointer": (*person)(nil)} {
			must(t, n.Set(ctx, key+name, value))
			for _, c := range []node{n, db} {
				var got *person
				if found, err := c.Get(ctx, key+name, &got); !found || err != nil || got != nil {
					t.Errorf("%s %s: Get returns %v, %v, %v", key, name, got, found, err)
				}
			}
		}
		lists := pgcache.For[[]string](n.Cache)
		must(t, lists.SetMany(ctx, map[string][]string{key + "list": nil, key + "long list": {"a"}}))
		got, err := pgcache.For[[]string](db.Cache).GetMany(ctx, []string{key + "list", key + "long list", key + "none"})
		if err != nil || len(got) != 2 || len(got[key+"list"]) != 0 || len(got[key+"long list"]) != 1 {
			t.Errorf("%s: GetMany returns %v, %v", key, got, err)
		}
	}
}

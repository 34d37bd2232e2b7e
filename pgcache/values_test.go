package pgcache_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"

	"github.com/pgcache/go/pgcache"
)

// A stored None looked like a miss: every call took a connection and a lock, and loaded again.
func TestNothingIsAValue(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)
	loads := 0
	nothing := func(context.Context) (any, error) { loads++; return nil, nil }
	for _, c := range []*pgcache.Cache{a, a, b, b} {
		v := &user{Name: "before"}
		if err := c.GetOrSet(t.Context(), "k", &v, nothing); err != nil || v != nil {
			t.Fatal(v, err)
		}
	}
	if loads != 1 {
		t.Errorf("%d loads of nothing", loads)
	}
	var none *user
	set(t, a, "ptr", none)
	v, found, err := pgcache.For[*user](b).Get(t.Context(), "ptr")
	if v != nil || !found || err != nil {
		t.Error(v, found, err)
	}
	// A zero is a value too.
	if _, err := pgcache.For[int](a).GetOrSet(t.Context(), "zero", func(context.Context) (int, error) { return 0, nil }); err != nil {
		t.Fatal(err)
	}
	want(t, b, "zero", 0)
}

// Bytes that did not decode made get raise until they expired.
func TestCorruptBytes(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c, other := cl.node(nil), cl.node(nil)
	caughtUp := cl.follow(other, c, nil)
	for i, corrupt := range []string{`''`, `'\x00'`, `'{"ID":'`, `'"a string"'`, `'{"ID":1} '::bytea || '\xff'`} {
		key := strconv.Itoa(i)
		set(t, c, key, user{ID: 1})
		cl.exec("UPDATE " + cl.table() + " SET value = " + corrupt + "::bytea WHERE key = '" + key + "'")
		caughtUp()
		before := c.Stats().DecodeErrors
		for range 2 {
			var u user
			if found, err := c.Get(t.Context(), key, &u); found || err != nil {
				t.Errorf("%s: %v, %v, %v", corrupt, u, found, err)
			}
			if _, found, err := pgcache.For[user](c).Get(t.Context(), key); found || err != nil {
				t.Errorf("%s, typed: %v, %v", corrupt, found, err)
			}
		}
		if n := c.Stats().DecodeErrors - before; n != 4 {
			t.Errorf("%s: %d decode errors counted", corrupt, n)
		}
		var u user
		if err := c.GetOrSet(t.Context(), key, &u, func(context.Context) (any, error) { return user{ID: 2}, nil }); err != nil || u.ID != 2 {
			t.Errorf("%s: %v, %v", corrupt, u, err)
		}
		if u, found := get[user](t, other, key); !found || u.ID != 2 {
			t.Errorf("%s: GetOrSet did not overwrite it: %v, %v", corrupt, u, found)
		}
	}
}

// Hits in memory handed out the caller's own mutable object; and what came from memory was of another type than what came
// from the database.
func TestNobodyElsesValue(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	typed := pgcache.For[*user](c)
	plain := pgcache.For[map[string][]int](c)
	mine := &user{Name: "Ann", Roles: []string{"x"}}
	set(t, c, "u", mine)
	mine.Name, mine.Roles[0] = "changed", "changed"
	for range 4 {
		u, found, err := typed.Get(t.Context(), "u")
		if !found || err != nil || u.Name != "Ann" || u.Roles[0] != "x" {
			t.Fatal(u, found, err)
		}
		u.Name, u.Roles[0] = "changed", "changed"
		var v user
		if v, _ = get[user](t, c, "u"); v.Name != "Ann" || v.Roles[0] != "x" {
			t.Fatal(v)
		}
		v.Roles[0] = "changed"
	}
	for range 3 {
		m, err := plain.GetOrSet(t.Context(), "m", func(context.Context) (map[string][]int, error) { return map[string][]int{"a": {1}}, nil })
		if err != nil || m["a"][0] != 1 {
			t.Fatal(m, err)
		}
		m["a"][0] = 2
	}
	// What waiters of one load get is not one value either.
	l := newLoader(map[string][]int{"a": {1}})
	var results []func() map[string][]int
	for range 3 {
		results = append(results, async(t, func() map[string][]int {
			var m map[string][]int
			if err := c.GetOrSet(t.Context(), "m2", &m, l.load); err != nil {
				t.Error(err)
			}
			return m
		}))
	}
	l.wait(t)
	l.release()
	for i, result := range results {
		m := result()
		if m["a"][0] != 1 {
			t.Errorf("waiter %d got another's change", i)
		}
		m["a"][0] = 100
	}
	// From memory and from the database: the same types, whatever is asked for.
	set(t, c, "any", []any{1, "x", map[string]any{"y": nil}})
	remote, _ := get[any](t, c, "any")
	local, _ := get[any](t, c, "any")
	if fmt.Sprintf("%#v", remote) != fmt.Sprintf("%#v", local) {
		t.Errorf("from the database %#v, from memory %#v", remote, local)
	}
}

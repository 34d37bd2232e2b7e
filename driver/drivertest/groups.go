package drivertest

import (
	"context"
	"fmt"
	"testing"

	"github.com/pgcache/go/pgcache"
)

// groups removes tags, a prefix and a namespace: what was stored is gone on both nodes, and nothing else is.
func groups(t *testing.T, b *bundle) {
	ctx := t.Context()
	n, other, db := b.node(nil), b.node(nil), b.node(forgetful)
	view := func(n node) *pgcache.Typed[[]byte] {
		return pgcache.For[[]byte](n.Cache, pgcache.Namespace("group"), pgcache.Tags("all"))
	}
	fill := func() {
		for i := range 4 {
			must(t, view(n).Set(ctx, fmt.Sprint(i), []byte("v"), pgcache.Tags(fmt.Sprint("tag ", i, `"\,{}'`))))
		}
		must(t, n.Set(ctx, "apart", []byte("v")))
		for _, n := range []node{n, other} {
			for i := range 4 {
				_, _, err := view(n).Get(ctx, fmt.Sprint(i))
				must(t, err)
			}
		}
	}
	check := func(what, left string) {
		t.Helper()
		found := func(n node) (keys string) {
			for i := range 4 {
				_, ok, err := view(n).Get(ctx, fmt.Sprint(i))
				must(t, err)
				if ok {
					keys += fmt.Sprint(i)
				}
			}
			return keys
		}
		for _, n := range []node{n, db} {
			if got := found(n); got != left {
				t.Errorf("%s: %q is left, want %q", what, got, left)
			}
		}
		eventually(t, what+": the other node has lost it", func() bool { return found(other) == left })
		var v []byte
		if ok, err := other.Get(ctx, "apart", &v); err != nil || !ok {
			t.Errorf("%s: another entry is gone: %v", what, err)
		}
	}
	fill()
	must(t, n.DeleteTags(ctx, `tag 1"\,{}'`, "none"))
	check("a tag", "023")
	must(t, n.DeletePrefix(ctx, "group:2"))
	check("a prefix", "03")
	must(t, view(n).Clear(ctx))
	check("a namespace", "")
	fill()
	check("stored again", "0123")
	must(t, n.DeleteTags(ctx, "all"))
	check("the tag of the view", "")
	// A loader that runs has read what is removed meanwhile.
	v, err := view(n).GetOrSet(ctx, "0", func(ctx context.Context) ([]byte, error) { return []byte("old"), other.DeleteTags(ctx, "all") })
	if err != nil || string(v) != "old" {
		t.Error(v, err)
	}
	check("a load", "")
}

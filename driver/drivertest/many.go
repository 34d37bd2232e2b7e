package drivertest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/pgcache/go/pgcache"
)

// severalStatements writes more rows and more bytes than go into one statement, empty values among large ones, and reads
// them in one.
func severalStatements(t *testing.T, b *bundle) {
	const rows, large = 2500, 900 << 10
	ctx := t.Context()
	n, other, db := b.node(nil), b.node(nil), b.node(forgetful)
	all := map[string][]byte{}
	for i := range rows {
		value := []byte{}
		switch {
		case i%250 == 7: // ten of them: 9 MB
			value = bytes.Repeat([]byte{byte(i), 0, 0xff}, large/3)
		case i%5 != 0:
			value = fmt.Appendf(nil, "%d\x00\\", i)
		}
		all[fmt.Sprintf("'%d", i)] = value
	}
	keys := slices.Sorted(maps.Keys(all))
	in := func(n node) *pgcache.Typed[[]byte] { return pgcache.For[[]byte](n.Cache, pgcache.Namespace("many")) }
	must(t, in(n).SetMany(ctx, all))
	wantMany(t, in(db), slices.Concat(keys, []string{"none", keys[0], keys[1]}), all)
	for key, value := range all {
		all[key] = value[:min(len(value), 20)]
	}
	must(t, in(n).SetMany(ctx, all)) // over rows that exist
	for _, n := range []node{n, other, db} {
		wantMany(t, in(n), keys, all)
	}
	must(t, in(n).Delete(ctx, keys...))
	for _, n := range []node{n, db} {
		wantMany(t, in(n), keys, nil)
	}
	eventually(t, "the other node has lost them all", func() bool {
		got, err := in(other).GetMany(ctx, keys)
		must(t, err)
		return len(got) == 0
	})
}

// someOfMany: only absent keys reach the loader, what it returns is stored, and what it leaves out is not there.
func someOfMany(t *testing.T, b *bundle) {
	const rows = 2500
	ctx := t.Context()
	n, db := b.node(nil), b.node(forgetful)
	view := pgcache.For[[]byte](n.Cache)
	there, want := map[string][]byte{}, map[string][]byte{}
	var keys, absent []string
	for i := range rows {
		key := fmt.Sprintf("%04d", i)
		keys = append(keys, key)
		switch i % 5 {
		case 0, 1:
			there[key] = valueOf(key, 1)
			want[key] = there[key]
		case 2, 3:
			absent = append(absent, key)
			want[key] = valueOf(key, 2)
		default: // the loader does not know it
			absent = append(absent, key)
		}
	}
	must(t, pgcache.For[[]byte](db.Cache).SetMany(ctx, there))
	got, err := view.GetOrSetMany(ctx, append(keys, keys[:10]...), func(_ context.Context, missing []string) (map[string][]byte, error) {
		slices.Sort(missing)
		if !slices.Equal(missing, absent) {
			t.Errorf("the loader is asked for %d keys, want the %d that are absent", len(missing), len(absent))
		}
		loaded := map[string][]byte{"not asked for": {}}
		for _, key := range missing {
			if value, ok := want[key]; ok {
				loaded[key] = value
			}
		}
		return loaded, nil
	})
	must(t, err)
	sameMany(t, got, want)
	wantMany(t, pgcache.For[[]byte](db.Cache), append(keys, "not asked for"), want)
}

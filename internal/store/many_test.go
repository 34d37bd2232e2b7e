package store_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/pgcache/go/internal/notify"
)

// named is what a flush says: how many keys it names, the prefixes, and whether everything is meant.
type named struct {
	keys     int
	prefixes string
	all      bool
}

// TestManyKeys: what a flush sends is bounded. Of a namespace with many keys the whole is named, and the keys of others as ever;
// "everything" only where that is not enough.
func TestManyKeys(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		log    [][2]any // number of keys, and how they are made of k
		want   named
		hidden bool
	}{
		"few":                               {log: [][2]any{{1000, "'user:' || k"}}, want: named{keys: 1000}},
		"just too many":                     {log: [][2]any{{1024, "'user:' || k"}}, want: named{keys: 1024}},
		"one namespace":                     {log: [][2]any{{1025, "'user:' || k"}}, want: named{prefixes: "user:"}},
		"one has many, another few":         {log: [][2]any{{5000, "'product:' || k"}, {64, "'user:' || k"}}, want: named{keys: 64, prefixes: "product:"}},
		"two have many":                     {log: [][2]any{{5000, "'product:' || k"}, {65, "'user:' || k"}}, want: named{prefixes: "product: user:"}},
		"keys without a namespace":          {log: [][2]any{{2000, "'product:' || k"}, {900, "'k' || k"}}, want: named{keys: 900, prefixes: "product:"}},
		"too many without a namespace":      {log: [][2]any{{2000, "'product:' || k"}, {1025, "'k' || k"}}, want: named{all: true}},
		"an empty namespace":                {log: [][2]any{{2000, "':' || k"}}, want: named{all: true}},
		"many small ones":                   {log: [][2]any{{2000, "k || ':x'"}}, want: named{all: true}},
		"a key that is a namespace":         {log: [][2]any{{2000, "'product:' || k"}, {1, "'product'"}, {1, "'product:'"}}, want: named{keys: 1, prefixes: "product:"}},
		"large keys":                        {log: [][2]any{{100, "'product:' || k || repeat('x', 900)"}, {3, "'user:' || k"}}, want: named{keys: 3, prefixes: "product:"}},
		"all keys":                          {log: [][2]any{{2000, "'product:' || k"}, {1, "''"}}, want: named{all: true}},
		"odd names":                         {log: [][2]any{{2000, "'a''b%_\\é:' || k"}}, want: named{prefixes: "a'b%_\\é:"}},
		"hidden keys, which have no prefix": {log: [][2]any{{2000, "'product:' || k"}}, want: named{all: true}, hidden: true},
		"more namespaces than fit":          {log: [][2]any{{70_000, "repeat('n', 900) || k % 100 || ':' || k"}}, want: named{all: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := watch(t)
			recorder := w.listen()
			if test.hidden {
				w.exec("UPDATE " + w.object("cache_state") + " SET key_secret = sha256('secret')")
			}
			n := int64(0)
			for _, l := range test.log {
				w.log(l[0].(int), 1, l[1].(string))
				n += int64(l[0].(int))
			}
			f := w.flush()
			if f.Changes != n || f.Messages > 8 {
				t.Errorf("%d changes in %d messages, want %d in 8 at the most", f.Changes, f.Messages, n)
			}
			p := recorder.published()
			slices.Sort(p.prefixes)
			if got := (named{len(p.items), strings.Join(p.prefixes, " "), p.all}); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			if p.longest > notify.MaxPayload {
				t.Errorf("a message of %d bytes", p.longest)
			}
		})
	}
}

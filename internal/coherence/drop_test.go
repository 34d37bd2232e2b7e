package coherence

import (
	"testing"

	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// What is dropped is not served, and nothing that is under way brings it back.
func TestDrop(t *testing.T) {
	t.Parallel()
	for says, underWay := range map[string]func(tr *Tracker) (ends func()){
		"an entry": func(tr *Tracker) func() {
			if !fill(tr, k1, 1, 0) {
				t.Fatal("it is not kept")
			}
			return func() {}
		},
		"a read": func(tr *Tracker) func() {
			f := tr.BeginReadAlone(k1)
			return func() { f.Finish(store.Row{Version: 1}, nil, entryOf(1)) }
		},
		"a write": func(tr *Tracker) func() {
			w := tr.BeginWrite(k1, 1, nil)
			return func() { w.Finish(entryOf(1), 0) }
		},
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			tr := newTracker(localcache.New(localcache.Options{MaxEntries: 10}))
			fill(tr, k2, 2, 0)
			ends := underWay(tr)
			tr.Drop(k1)
			ends()
			if v := hit(tr, k1); v != 0 {
				t.Errorf("version %d is served", v)
			}
			if hit(tr, k2) != 2 {
				t.Error("another key went with it")
			}
			if !fill(tr, k1, 3, 0) {
				t.Error("what is read afterwards is not kept")
			}
		})
	}
}

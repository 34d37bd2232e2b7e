package coherence

import (
	"testing"
	"time"

	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// slowMemory does something once after it has found an entry and before it returns it: a Get may be interrupted there for any time.
type slowMemory struct {
	memory
	meanwhile func()
}

func (m *slowMemory) Get(k Key) *localcache.Entry {
	e, f := m.memory.Get(k), m.meanwhile
	if m.meanwhile = nil; f != nil {
		f()
	}
	return e
}

// TestHitThatTakesLong: a Get that began while there was no trust serves nothing, also where it sees that there is trust again: that was
// given for what was evicted in between.
func TestHitThatTakesLong(t *testing.T) {
	t.Parallel()
	for says, look := range map[string]func(tr *Tracker) *localcache.Entry{
		"hit":   func(tr *Tracker) *localcache.Entry { return tr.Hit(k1, Now()) },
		"stale": func(tr *Tracker) *localcache.Entry { return tr.Stale(k2, Now()) },
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			local := &slowMemory{memory: memory{}}
			tr := newTracker(local)
			fill(tr, k1, 1, 0)
			tr.BeginReadAlone(k2).Finish(store.Row{Version: 1}, nil, &localcache.Entry{Version: 1, Deadline: Now()})
			if look(tr) == nil {
				t.Fatal("nothing is kept")
			}
			tr.TrustPulse(time.Now())
			local.meanwhile = func() {
				publish(t, tr, k1, 2)
				publish(t, tr, k2, 2)
				tr.TrustPulse(time.Now().Add(farAway))
			}
			if e := look(tr); e != nil {
				t.Errorf("version %d, which was replaced before", e.Version)
			}
		})
	}
}

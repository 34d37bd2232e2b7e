package coherence

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// A key that many read at once must find its way into memory, and back into it after a change, however long a read takes:
// reads that are under way side by side must not keep each other out for ever.
func TestHotKeyIsKept(t *testing.T) {
	t.Parallel()
	for name, latency := range map[string]time.Duration{
		"near": 300 * time.Microsecond, "far": 8 * time.Millisecond, "farther": 30 * time.Millisecond,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tr := newTracker(localcache.New(localcache.Options{}))
				var version, reads atomic.Int64
				var stop atomic.Bool
				version.Store(1)
				read := func(f *Read) {
					reads.Add(1)
					half := latency/2 + rand.N(latency/2) // there, and back
					time.Sleep(half)
					row := store.Row{Version: version.Load()}
					time.Sleep(half)
					f.Finish(row, nil, &localcache.Entry{Version: row.Version, Deadline: Now() + int64(time.Hour)})
				}
				var wg sync.WaitGroup
				for i := range 100 {
					wg.Go(func() {
						for !stop.Load() {
							time.Sleep(rand.N(latency))
							if tr.Hit(k1, Now()) != nil {
								continue
							}
							if i == 0 {
								read(tr.BeginReadAlone(k1))
							} else if f, leader := tr.BeginRead(k1); leader {
								read(f)
							} else {
								<-f.Done()
							}
						}
					})
				}
				for v := int64(1); v <= 5; v++ {
					version.Store(v)
					time.Sleep(latency / 3) // the notification is on its way
					if err := tr.Apply(notify.Message{Body: one(k1.Name, v)}, func(string) Key { return k1 }); err != nil {
						t.Error(err)
					}
					before := reads.Load()
					time.Sleep(20 * latency)
					if got := hit(tr, k1); got != v {
						t.Errorf("version %d: after 20 round trips and %d reads, version %d is in memory", v, reads.Load()-before, got)
					}
				}
				stop.Store(true)
				wg.Wait()
			})
		})
	}
}

package coherence

import (
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// TestConcurrent hammers one key from many goroutines, for the race detector and for whatever only real concurrency
// brings. Commits are numbered: floor is the oldest that a Get which begins now may return, by P1, P3 and P4.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	const readers, writers = 4, 2
	rounds := 3000
	if testing.Short() || underRace {
		rounds = 1000
	}
	local := localcache.New(localcache.Options{})
	tr := newTracker(local)
	var (
		mu    sync.Mutex // the database
		row   store.Row  // Server is the number of the commit
		queue []store.Row
		some  = sync.NewCond(&mu)
		over  bool

		floor         atomic.Int64
		hits          atomic.Int64
		wg, publishes sync.WaitGroup
	)
	raise := func(commit int64) {
		for {
			old := floor.Load()
			if commit <= old || floor.CompareAndSwap(old, commit) {
				return
			}
		}
	}
	entry := func(r store.Row) *localcache.Entry {
		return &localcache.Entry{Version: r.Version, Size: int(r.Server), Deadline: math.MaxInt64}
	}
	commit := func(version int64) store.Row {
		mu.Lock()
		defer mu.Unlock()
		row = store.Row{Version: version, Server: row.Server + 1}
		queue = append(queue, row)
		some.Signal()
		return row
	}
	returned := func(how string, commit, least int64) {
		if commit < least {
			t.Errorf("a %s returned commit %d, although %d was known before it began", how, commit, least)
		}
		raise(commit)
	}
	read := func(f *Read) store.Row {
		mu.Lock()
		r := row
		mu.Unlock()
		f.Finish(r, nil, entry(r))
		return r
	}
	get := func() {
		least := floor.Load()
		if e := tr.Hit(k1, Now()); e != nil {
			hits.Add(1)
			returned("hit", int64(e.Size), least)
			return
		}
		for {
			f, leader := tr.BeginRead(k1)
			if leader {
				returned("read", read(f).Server, least)
				return
			}
			<-f.Done()
			if r, err := f.Result(); err == nil {
				returned("joined read", r.Server, least)
				return
			}
		}
	}
	commit(1)
	publishes.Go(func() {
		for {
			mu.Lock()
			for len(queue) == 0 && !over {
				some.Wait()
			}
			if len(queue) == 0 {
				mu.Unlock()
				return
			}
			if rand.IntN(200) == 0 { // the connection is lost, and found again
				tr.Down()
				queue = queue[:0]
				tr.TrustListener(time.Now().Add(farAway))
				tr.TrustPulse(time.Now().Add(farAway))
				mu.Unlock()
				continue
			}
			n := queue[0]
			queue = queue[1:]
			mu.Unlock()
			publish(t, tr, k1, n.Version)
			raise(n.Server)
		}
	})
	for range readers {
		wg.Go(func() {
			for range rounds {
				get()
				if rand.IntN(8) == 0 {
					least := floor.Load()
					returned("read alone", read(tr.BeginReadAlone(k1)).Server, least)
				}
				if e := tr.Hit(k1, Now()); e != nil && rand.IntN(8) == 0 {
					tr.Replace(k1, e, &localcache.Entry{Size: e.Size})
				}
			}
		})
	}
	for range writers {
		wg.Go(func() {
			for range rounds / 10 {
				version := rand.Int64()
				w := tr.BeginWrite(k1, version, nil)
				r := commit(version)
				w.Finish(entry(r), 0)
				raise(r.Server)
				get()
				commit(rand.Int64()) // another's
				for range 10 {
					get()
				}
			}
		})
	}
	wg.Wait()
	mu.Lock()
	over = true
	some.Signal()
	mu.Unlock()
	publishes.Wait()
	if hits.Load() == 0 {
		t.Error("there was not one hit")
	}
	if e := tr.Hit(k1, Now()); e != nil && int64(e.Size) != row.Server {
		t.Errorf("everything was published, and commit %d of %d is still served", e.Size, row.Server)
	}
}

package drivertest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pgcache/go/pgcache"
)

// counters: each caller's part counts once, on all nodes together.
func counters(t *testing.T, b *bundle) {
	const callers, rounds = 8, 10
	ctx := t.Context()
	nodes := []node{b.node(nil), b.node(nil)}
	seen := make([]bool, 1+len(nodes)*callers*rounds)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, n := range nodes {
		for range callers {
			wg.Go(func() {
				for range rounds {
					got, err := n.Increment(ctx, "n", 1, pgcache.TTL(time.Hour))
					mu.Lock()
					if err != nil || got < 1 || int(got) >= len(seen) || seen[got] {
						t.Errorf("Increment returns %d, %v", got, err)
					} else {
						seen[got] = true
					}
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	if got, err := nodes[0].Increment(ctx, "n", -int64(len(seen)-1)); got != 0 || err != nil {
		t.Errorf("Increment returns %d, %v", got, err)
	}
}

// conditionalWrites: one of many stores what is absent, no update is lost, and a new TTL leaves the value as it is.
func conditionalWrites(t *testing.T, b *bundle) {
	ctx := t.Context()
	nodes := []node{b.node(nil), b.node(nil)}
	var mu sync.Mutex
	won := map[string]int{}
	var wg sync.WaitGroup
	for i, n := range nodes {
		for range 4 {
			wg.Go(func() {
				for round := range 10 {
					key := fmt.Sprint("absent'", round)
					stored, err := n.SetIfAbsent(ctx, key, []byte{0, byte(i)})
					if err != nil {
						t.Errorf("SetIfAbsent returns %v", err)
					}
					if stored {
						mu.Lock()
						won[key]++
						mu.Unlock()
					}
				}
			})
		}
	}
	wg.Wait()
	if len(won) != 10 {
		t.Errorf("stored: %v", won)
	}
	for key, n := range won {
		if n != 1 {
			t.Errorf("%s was stored %d times", key, n)
		}
	}
	for i := range 4 {
		view := pgcache.For[[]byte](nodes[i%2].Cache, pgcache.Namespace("list"))
		_, err := view.Update(ctx, "k", func(old []byte, found bool) ([]byte, error) {
			if found != (i > 0) {
				t.Errorf("update %d finds it: %v", i, found)
			}
			return append(old, byte(i)), nil
		})
		must(t, err)
		found, err := view.Touch(ctx, "k", time.Hour)
		must(t, err)
		e, there, err := view.GetEntry(ctx, "k")
		must(t, err)
		if !found || !there || len(e.Value) != i+1 || e.ExpiresIn > time.Hour || e.ExpiresIn < 59*time.Minute {
			t.Errorf("after update %d: %v, %v, %+v", i, found, there, e)
		}
	}
}

// keysAndEntries: in order, over more than a page.
func keysAndEntries(t *testing.T, b *bundle) {
	ctx := t.Context()
	n := b.node(nil)
	view := pgcache.For[[]byte](n.Cache, pgcache.Namespace("it's%"))
	all := map[string][]byte{}
	for i := range 1200 {
		all[fmt.Sprintf("%04d", i)] = fmt.Append(nil, i)
	}
	must(t, view.SetMany(ctx, all))
	must(t, n.Set(ctx, "it'sx", []byte{1}))
	i := 0
	for e, err := range view.Entries(ctx) {
		must(t, err)
		if e.Key != fmt.Sprintf("%04d", i) || string(e.Value) != fmt.Sprint(i) {
			t.Fatalf("entry %d is %q: %q", i, e.Key, e.Value)
		}
		i++
	}
	k := 0
	for key, err := range n.Keys(ctx, "it's%:") {
		must(t, err)
		if want := fmt.Sprintf("it's%%:%04d", k); key != want {
			t.Fatalf("key %d is %q", k, key)
		}
		k++
	}
	if i != len(all) || k != len(all) {
		t.Errorf("%d entries and %d keys, want %d", i, k, len(all))
	}
}

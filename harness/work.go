package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// owner is the writing node that alone writes a key, where there is one.
func (f *fleet) owner(key int) int { return key / 2 % len(f.writers) }

// resting keys are left alone for a while, in turns: what is stale in some memory must not be saved by the next write.
func (f *fleet) resting(key int) bool {
	const rest = 5 * time.Second
	turn := key / 4
	if h := f.keys[key]; h.kind == grouped {
		turn = h.team // removed together
	}
	return (int(clock()/rest)+turn)%4 == 0
}

// worker is one goroutine that uses a node.
type worker struct {
	*fleet
	*node
	tally
	first bool // of its node: what the node owns is written by this one, in one order
}

// work does what the node is for until stop.
func (w *worker) work(ctx context.Context, stop <-chan struct{}) {
	writes := w.id < len(w.writers)
	mine := w.mine()
	for {
		pause := time.NewTimer(time.Duration(rand.ExpFloat64() * float64(w.cfg.pause)))
		select {
		case <-stop:
			pause.Stop()
			return
		case <-pause.C:
		}
		if w.cfg.more && rand.N(3) == 0 {
			w.workMore(ctx)
		} else if writes && rand.N(4) > 0 {
			w.change(ctx, mine[rand.N(len(mine))])
		} else {
			w.look(ctx, rand.N(w.cfg.keys))
		}
		w.ops.Add(1)
	}
}

// change writes a key.
func (w *worker) change(ctx context.Context, key int) {
	if w.resting(key) {
		return
	}
	dice := rand.N(100)
	switch {
	case kindOf(key) == sourced:
		w.update(ctx, key)
	case dice < 10:
		w.remove(ctx, key)
	case dice < 20:
		w.setMany(ctx, key)
	case dice < 40 && kindOf(key) == shared:
		w.atOnce(func() { w.set(ctx, key) }, func() { w.set(ctx, key) }) // whose is kept?
	default:
		w.set(ctx, key)
	}
	w.get(ctx, key) // its own write, at once
}

// mine are the keys that this worker may write: the shared ones, and as often those that are its node's alone.
func (w *worker) mine() (keys []int) {
	var alone []int
	for key := range w.cfg.keys {
		if kindOf(key) == shared {
			keys = append(keys, key)
		} else if w.first && w.owner(key) == w.id {
			alone = append(alone, key)
		}
	}
	for n := len(keys); len(alone) > 0 && len(keys) < 2*n; {
		keys = append(keys, alone...)
	}
	return keys
}

// look reads a key.
func (w *worker) look(ctx context.Context, key int) {
	dice := rand.N(100)
	switch {
	case kindOf(key) == sourced && dice < 60:
		w.getOrSet(ctx, key)
	case kindOf(key) == sourced && dice < 70:
		w.getOrSetMany(ctx, key)
	case dice < 80:
		w.get(ctx, key)
	case dice < 90:
		w.getMany(ctx, key)
	default:
		// Several statements for one key, of which the first to begin may be the last to end.
		w.atOnce(func() { w.get(ctx, key) }, func() { w.getMany(ctx, key); w.get(ctx, key) })
		w.get(ctx, key)
	}
}

func (w *worker) atOnce(these ...func()) {
	var wg sync.WaitGroup
	for _, this := range these {
		wg.Go(this)
	}
	wg.Wait()
}

// some returns key and a few others that pass.
func (w *worker) some(key, n int, pass func(key int) bool) []int {
	keys := []int{key}
	for _, k := range rand.Perm(w.cfg.keys) {
		if len(keys) < n && k != key && pass(k) {
			keys = append(keys, k)
		}
	}
	return keys
}

func (w *worker) anyTTL() time.Duration {
	switch rand.N(5) {
	case 0:
		return 0
	case 1:
		return w.cfg.ttl / 8
	}
	return w.cfg.ttl
}

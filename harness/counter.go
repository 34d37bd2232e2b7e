package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgcache/go/pgcache"
)

// counter is a number that nodes add one to, by Increment and by Update: what each gets back is its own, and none is lost.
type counter struct {
	name      string
	own, seen []atomic.Int64 // of every node: the largest that it has made, and that it has shown

	mu    sync.Mutex
	begun int
	acks  []time.Duration // in the order of time
	taken map[int64]int   // by which node each number was made
}

func newCounter(name string, nodes int) *counter {
	return &counter{name: name, own: make([]atomic.Int64, nodes), seen: make([]atomic.Int64, nodes)}
}

// count adds one, or reads.
func (w *worker) count(ctx context.Context, c *counter, writes bool) {
	if !writes || rand.N(3) == 0 {
		w.readCounter(ctx, c)
		return
	}
	c.mu.Lock()
	c.begun++
	c.mu.Unlock()
	start := clock()
	var n int64
	var err error
	if rand.N(4) == 0 {
		n, err = w.views.counts.Update(ctx, c.name, func(old int64, _ bool) (int64, error) { return old + 1, nil })
	} else {
		n, err = w.cache.Increment(ctx, c.name, 1, pgcache.TTL(pgcache.NoExpiry))
	}
	w.add(&w.writes, clock()-start)
	switch {
	case errors.Is(err, pgcache.ErrUpdateConflict):
		c.mu.Lock()
		c.begun-- // it was not done
		c.mu.Unlock()
		return
	case err != nil:
		w.book.fail(err)
		return
	}
	w.activity.counted.Add(1)
	c.mu.Lock()
	least, most := int64(c.by(start))+1, int64(c.begun)
	other, twice := c.taken[n]
	if c.taken == nil {
		c.taken = map[int64]int{}
	}
	c.taken[n] = w.id
	c.acks = append(c.acks, clock())
	c.mu.Unlock()
	r := read{node: w.id, op: "Increment", start: start, end: clock()}
	switch {
	case twice:
		w.book.breach(c.breach(r, n, fmt.Sprintf("another number: node %d has it", other)))
	case n < least || n > most:
		w.book.breach(c.breach(r, n, fmt.Sprintf("%d to %d", least, most)))
	}
	raise(&c.own[w.id], n)
	w.readCounter(ctx, c)
}

// by is how many were acknowledged before t.
func (c *counter) by(t time.Duration) int {
	return sort.Search(len(c.acks), func(i int) bool { return c.acks[i] >= t })
}

func (w *worker) readCounter(ctx context.Context, c *counter) {
	r := read{node: w.id, op: "Get", start: clock()}
	own, seen := c.own[w.id].Load(), c.seen[w.id].Load()
	applied, down := w.parts[0].recorder.state(w.logged(shared))
	n, found, err := w.views.counts.Get(ctx, c.name)
	r.end = clock()
	if err != nil {
		w.book.fail(err)
		return
	}
	if r.applied, r.down = applied, down; !found {
		applied = 0 // as in judge
	}
	c.mu.Lock()
	asked := int64(0)
	if down {
		asked = int64(c.by(r.start))
	}
	floors := []struct {
		promise string
		least   int64
	}{{"P3", own}, {"P4", seen}, {"P5", asked}, {"P1", int64(c.by(applied))}, {"P2", int64(c.by(r.start - bound))}}
	most := int64(c.begun)
	c.mu.Unlock()
	if n > most {
		w.book.breach(c.breach(r, n, fmt.Sprintf("at most %d", most)))
	}
	for _, f := range floors {
		if n < f.least {
			b := c.breach(r, n, fmt.Sprintf("%d or more", f.least))
			b.promise = f.promise
			w.book.breach(b)
			return
		}
	}
	raise(&c.seen[w.id], n)
}

func (c *counter) breach(r read, n int64, expected string) *breach {
	return &breach{promise: "count", key: c.name, read: r, came: fmt.Sprint(n), expected: expected}
}

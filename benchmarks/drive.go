package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

type kind int

const (
	reading kind = iota
	writing
)

// An operation is what a caller does, again and again.
type operation func(ctx context.Context, c *caller) (kind, error)

// caller is one of the goroutines that use a node.
type caller struct {
	id   int
	node Node
	rand *rand.Rand
	did  [2]histogram
}

func newCaller(id int, n Node) *caller {
	return &caller{id: id, node: n, rand: rand.New(rand.NewPCG(uint64(id), 2026))}
}

// run does op until stop; what began while measuring counts.
func (c *caller) run(ctx context.Context, op operation, measuring, stop *atomic.Bool) error {
	last := clock()
	for !stop.Load() {
		counts := measuring.Load()
		k, err := op(ctx, c)
		if err != nil {
			return err
		}
		now := clock()
		if counts {
			c.did[k].add(now - last)
		}
		last = now
	}
	return nil
}

// drive lets callers use each node for warmup and then for duration. Each does its next operation as soon as it has the
// answer to its last: ops/s are what the fleet can do.
func (b *bench) drive(ctx context.Context, nodes []Node, callers int, op operation) (metrics, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var measuring, stop atomic.Bool
	var wg sync.WaitGroup
	all := make([]*caller, 0, len(nodes)*callers)
	for _, n := range nodes {
		for range callers {
			c := newCaller(len(all), n)
			all = append(all, c)
			wg.Go(func() {
				if err := c.run(ctx, op, &measuring, &stop); err != nil {
					cancel(fmt.Errorf("caller %d: %w", c.id, err))
				}
			})
		}
	}
	pause(ctx, b.cfg.warmup)
	ps := b.servers.processes(nodes[0])
	used := cpuOf(ps)
	before, begun := sumStats(nodes), clock()
	measuring.Store(true)
	pause(ctx, b.cfg.duration)
	measuring.Store(false)
	elapsed := clock() - begun
	after := sumStats(nodes)
	used = cpuOf(ps) - used
	stop.Store(true)
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}

	var did [2]histogram
	for _, c := range all {
		for k := range did {
			did[k].merge(&c.did[k])
		}
	}
	m := after.since(before, elapsed)
	m.add(did[reading].metrics("read", elapsed)).add(did[writing].metrics("write", elapsed))
	m["ops"] = float64(did[reading].n+did[writing].n) / elapsed.Seconds()
	return m.add(perOperation(used, did[reading].n+did[writing].n)), nil
}

func sumStats(nodes []Node) Stats { return (&fleet{nodes: nodes}).stats() }

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// takeTurns lets one caller use one node at a time, all in turns of turnTime, until each has had duration: for
// differences of some percent, which the moods of a machine would hide from measurements one after the other.
func (b *bench) takeTurns(ctx context.Context, nodes []Node, op operation) ([]metrics, error) {
	const turnTime = 50 * time.Millisecond
	rounds := max(1, int(b.cfg.duration/turnTime))
	callers := make([]*caller, len(nodes))
	for i, n := range nodes {
		callers[i] = newCaller(i, n)
	}
	spent, used := make([]time.Duration, len(nodes)), make([]time.Duration, len(nodes))
	for range rounds {
		for i, c := range callers {
			// Flushes and invalidations of the turn before come to rest, and the first operation warms up.
			pause(ctx, 5*time.Millisecond)
			if _, err := op(ctx, c); err != nil {
				return nil, err
			}
			ps := b.servers.processes(nodes[i])
			cpu := cpuOf(ps)
			begun := clock()
			for last := begun; last < begun+turnTime; {
				k, err := op(ctx, c)
				if err != nil {
					return nil, err
				}
				now := clock()
				c.did[k].add(now - last)
				last = now
			}
			spent[i] += clock() - begun
			used[i] += cpuOf(ps) - cpu
		}
	}
	out := make([]metrics, len(nodes))
	for i, c := range callers {
		out[i] = c.did[reading].metrics("read", spent[i]).add(c.did[writing].metrics("write", spent[i])).
			add(perOperation(used[i], c.did[reading].n+c.did[writing].n))
	}
	return out, ctx.Err()
}

// preload sets all names through the nodes, many at a time.
func (b *bench) preload(ctx context.Context, nodes []Node, names []string) error {
	const callers = 64
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for ctx.Err() == nil {
				n := int(next.Add(1)) - 1
				if n >= len(names) {
					return
				}
				if err := nodes[i%len(nodes)].Set(ctx, names[n], stamp{n: uint32(n)}.value(b.cfg.valueBytes)); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// setAny overwrites a key chosen by pick with a new value.
func (b *bench) setAny(names []string, pick func(c *caller) int) operation {
	// The same bytes each time: making values is nobody's figure.
	value := stamp{}.value(b.cfg.valueBytes)
	return func(ctx context.Context, c *caller) (kind, error) {
		return writing, c.node.Set(ctx, names[pick(c)], value)
	}
}

// getAny reads a key chosen by pick, which must be there.
func getAny(names []string, pick func(c *caller) int) operation {
	return func(ctx context.Context, c *caller) (kind, error) {
		name := names[pick(c)]
		_, found, err := c.node.Get(ctx, name)
		if err == nil && !found {
			err = fmt.Errorf("%s is not there", name)
		}
		return reading, err
	}
}

// uniform chooses any of n.
func uniform(n int) func(c *caller) int { return func(c *caller) int { return c.rand.IntN(n) } }

// zipf chooses few of n most of the time: the key of rank k with a probability that falls with k^-1.1. It is drawn in
// advance, because drawing costs more than a hit in memory.
func zipf(n int) func(c *caller) int {
	z := rand.NewZipf(rand.New(rand.NewPCG(1, 2026)), 1.1, 1, uint64(n-1))
	drawn := make([]int32, 1<<18)
	for i := range drawn {
		drawn[i] = int32(z.Uint64())
	}
	return func(c *caller) int { return int(drawn[c.rand.IntN(len(drawn))]) }
}

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// seedLoad is the benchmark of the Python library that this one began as a port of: nodes with one caller each, which
// pauses between operations.
type seedLoad struct {
	writers, readers      int
	writes, reads         int // of each
	keys                  int
	ttl                   time.Duration
	writePause, readPause time.Duration // at most
}

func (l seedLoad) takes(wire bool) time.Duration {
	read := 4 * time.Millisecond
	if wire {
		read = 5 * time.Millisecond
	}
	return time.Duration(l.reads)*read*11/10 + time.Duration(l.writers+l.readers)*15*time.Millisecond
}

// fleetBackends are those of the shapes with several nodes.
var fleetBackends = []string{pgCache, pgRefresh, pgNoLocal, pgNoNotify, pgPerWrite, valkey, rueidisCSC}

var seedColumns = []column{
	ms("write mean", "write.mean_us"), ms("p50", "write.p50_us"), ms("p95", "write.p95_us"), ms("p99", "write.p99_us"), ops("writes/s", "write.ops"),
	ms("read mean", "read.mean_us"), ms("p50", "read.p50_us"), ms("p95", "read.p95_us"), ms("p99", "read.p99_us"), ops("reads/s", "read.ops"),
	percent("hits", "hits"), percent("local", "hit.local"),
	percent("stale reads", "stale.share"), millis("staleness p99", "stale.p99_ms"), millis("of stale ones", "stale.behind_p99_ms"),
	millis("largest", "stale.max_ms"), cpuColumn,
}

const seedAbout = "16 writing and 32 reading nodes, each with its own pool and listener, 400 writes and 800 reads each on 64 keys, TTL 5 s, pauses " +
	"up to 5 ms and 2 ms between them, after a tenth of that unmeasured. Staleness is measured: how long before a read began the value that it found had been replaced for certain."

var seedShape = shape{
	name: "seed", about: seedAbout, backends: fleetBackends, columns: seedColumns,
	plan: func(b *bench) plan {
		return plan{steps: b.each("", fleetBackends, b.cfg.sizes.seed.takes(false), func(ctx context.Context, be Backend) (metrics, error) {
			return b.seed(ctx, be, false)
		})}
	},
}

var seedNetworkShape = shape{
	name: "seed-network",
	about: "The same through a TCP proxy before each server that adds 1.5 ms and up to 0.5 ms more to every round trip, half of it in each direction; " +
		"notifications travel through it too.",
	backends: fleetBackends,
	columns:  append(seedColumns[:len(seedColumns):len(seedColumns)], ms("round trip", "wire_us")),
	plan: func(b *bench) plan {
		return plan{most: 3, steps: b.each("", fleetBackends, b.cfg.sizes.seed.takes(true), func(ctx context.Context, be Backend) (metrics, error) {
			return b.seed(ctx, be, true)
		})}
	},
}

func (b *bench) seed(ctx context.Context, be Backend, wire bool) (metrics, error) {
	l := b.cfg.sizes.seed
	setup := Setup{TTL: l.ttl, Keys: l.keys, Wire: wire}
	return with(ctx, be, setup, same(l.writers+l.readers, 1), func(f *fleet) (metrics, error) {
		h := newHistory(l.keys)
		if _, err := l.part(10).round(ctx, f.nodes, h, b.cfg.valueBytes); err != nil {
			return nil, err
		}
		ps := b.servers.processes(f.nodes[0])
		used := cpuOf(ps)
		m, err := l.round(ctx, f.nodes, h, b.cfg.valueBytes)
		if err == nil {
			m.add(perOperation(cpuOf(ps)-used, uint64(m["write.count"]+m["read.count"])))
		}
		if err != nil || !wire {
			return m, err
		}
		// What the link adds is measured too: reads of a key that is in nobody's memory.
		d, err := roundTrip(ctx, f.nodes[0])
		m["wire_us"] = micros(d)
		return m, err
	})
}

// part is a fraction of the load, to warm up: a new session reads catalogs and plans its first statements.
func (l seedLoad) part(n int) seedLoad {
	l.writes, l.reads = max(1, l.writes/n), max(1, l.reads/n)
	return l
}

// roundTrip is the median time of reading a key that is not there.
func roundTrip(ctx context.Context, n Node) (time.Duration, error) {
	var h histogram
	for i := range 30 {
		begun := clock()
		if _, _, err := n.Get(ctx, key(1_000_000+i)); err != nil {
			return 0, err
		}
		h.add(clock() - begun)
	}
	return h.quantile(.5), nil
}

// seedNode is what one node of a round has done.
type seedNode struct {
	node       Node
	did        histogram
	begun, end time.Duration
	hits       int
	writes     []write
	reads      []read
	err        error
}

// round lets every node do its share once. history knows the rounds before on the same nodes.
func (l seedLoad) round(ctx context.Context, nodes []Node, h *history, valueBytes int) (metrics, error) {
	names := keys(l.keys)
	all := make([]*seedNode, len(nodes))
	before := sumStats(nodes)
	var wg sync.WaitGroup
	for i, n := range nodes {
		s := &seedNode{node: n}
		all[i] = s
		wg.Go(func() {
			s.begun = clock()
			if i < l.writers {
				s.err = l.write(ctx, s, names, uint32(i), h.next(uint32(i)), valueBytes)
			} else {
				s.err = l.read(ctx, s, names)
			}
			s.end = clock()
		})
	}
	wg.Wait()
	var errs []error
	for _, s := range all {
		errs = append(errs, s.err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}

	writers, readers := all[:l.writers], all[l.writers:]
	for i, s := range writers {
		h.add(uint32(i), s.writes)
	}
	var age ages
	hits := 0
	for _, s := range readers {
		hits += s.hits
		if err := age.judge(h, s.reads); err != nil {
			return nil, err
		}
	}
	elapsed := max(span(writers), span(readers))
	m := sumStats(nodes).since(before, elapsed)
	m.add(merged(writers, "write")).add(merged(readers, "read")).add(age.metrics())
	m["hits"] = float64(hits) / float64(l.readers*l.reads)
	return m, nil
}

func (l seedLoad) write(ctx context.Context, s *seedNode, names []string, writer, n uint32, valueBytes int) error {
	for range l.writes {
		k := rand.IntN(len(names))
		begun := clock()
		if err := s.node.Set(ctx, names[k], stamp{writer, n, begun}.value(valueBytes)); err != nil {
			return fmt.Errorf("writer %d: %w", writer, err)
		}
		acked := clock()
		s.did.add(acked - begun)
		s.writes = append(s.writes, write{k, begun, acked})
		n++
		pause(ctx, rand.N(l.writePause))
	}
	return ctx.Err()
}

func (l seedLoad) read(ctx context.Context, s *seedNode, names []string) error {
	for range l.reads {
		k := rand.IntN(len(names))
		begun := clock()
		value, found, err := s.node.Get(ctx, names[k])
		if err != nil {
			return err
		}
		s.did.add(clock() - begun)
		if found {
			s.hits++
			got, err := readStamp(value)
			if err != nil {
				return err
			}
			s.reads = append(s.reads, read{k, begun, got})
		}
		pause(ctx, rand.N(l.readPause))
	}
	return ctx.Err()
}

// span is the time from the first begin to the last end.
func span(nodes []*seedNode) time.Duration {
	first, last := never, time.Duration(0)
	for _, s := range nodes {
		first, last = min(first, s.begun), max(last, s.end)
	}
	return last - first
}

func merged(nodes []*seedNode, kind string) metrics {
	var h histogram
	for _, s := range nodes {
		h.merge(&s.did)
	}
	return h.metrics(kind, span(nodes))
}

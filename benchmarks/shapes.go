package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A shape is one workload and one table.
type shape struct {
	name     string
	about    string   // above the table
	backends []string // in the order of a repetition
	columns  []column
	plan     func(b *bench) plan
}

// shapes are in the order of the output. Those that take longest come last.
var shapes []shape

func init() {
	shapes = []shape{
		seedShape, seedNetworkShape, serviceShape, writeShape, fleetShape, idleShape, readShape, hitShape, pqShape, poolShape, missShape, txShape, watchShape, shardShape, hotShape,
		memoryShape, groupsShape, sizeShape, soakShape,
	}
}

func shapeNames() (names []string) {
	for _, s := range shapes {
		names = append(names, s.name)
	}
	return names
}

// sizes are the dimensions of the shapes.
type sizes struct {
	seed           seedLoad
	keys           int // of service, write and read
	nodes, callers int // of service and write
	listening      []int
	sessions       []int // of fleet
	idle           []int // nodes
	readCallers    []int
	hitKeys        int
	missCallers    int
	hitTime        time.Duration
	memoryEntries  int
	groups         []int // entries of each
	txCallers      int
	shards         []int // servers
	shardCallers   int   // of a node
}

func fullSizes() sizes {
	return sizes{
		seed: seedLoad{
			writers: 16, readers: 32, writes: 400, reads: 800, keys: 64, ttl: 5 * time.Second,
			writePause: 5 * time.Millisecond, readPause: 2 * time.Millisecond,
		},
		keys: 10_000, nodes: 4, callers: 32, listening: []int{4, 16, 48, 128}, sessions: []int{5, 48, 128, 512, 1000}, idle: []int{50, 300}, readCallers: []int{1, 8, 64, 256},
		hitKeys: 1024, missCallers: 64, hitTime: time.Second, memoryEntries: 200_000,
		groups: []int{1000, 1_000_000}, txCallers: 32, shards: []int{1, 2, 4}, shardCallers: 128,
	}
}

func quickSizes() sizes {
	s := fullSizes()
	s.seed.writers, s.seed.readers, s.seed.writes, s.seed.reads = 2, 4, 20, 40
	s.keys, s.nodes, s.callers = 200, 2, 4
	s.listening, s.readCallers, s.sessions = []int{2, 4}, []int{1, 8}, []int{3, 8}
	s.idle = []int{3}
	s.hitKeys, s.hitTime, s.memoryEntries, s.missCallers = 64, 5*time.Millisecond, 2000, 8
	s.groups, s.txCallers, s.shards, s.shardCallers = []int{50, 500}, 4, []int{1, 2}, 8
	return s
}

// hour is the TTL where expiry is not the point.
const hour = time.Hour

// with opens a fleet of b for one measurement.
func with(ctx context.Context, be Backend, s Setup, callers []int, do func(f *fleet) (metrics, error)) (m metrics, err error) {
	f, err := openFleet(ctx, be, s, callers)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.close(ctx)) }()
	return do(f)
}

var serviceShape = shape{
	name: "service",
	about: "4 nodes x 32 callers on 10,000 keys chosen by Zipf (exponent 1.1), 95 % reads, every caller as fast as it can. " +
		"Local caches hold all keys.",
	backends: fleetBackends,
	columns: []column{
		ops("ops/s", "ops"), ops("reads/s", "read.ops"), ops("writes/s", "write.ops"),
		ms("read mean", "read.mean_us"), ms("p50", "read.p50_us"), ms("p95", "read.p95_us"), ms("p99", "read.p99_us"),
		ms("write mean", "write.mean_us"), ms("p50", "write.p50_us"), ms("p95", "write.p95_us"), ms("p99", "write.p99_us"),
		percent("local hits", "hit.local"), cpuColumn,
	},
	plan: func(b *bench) plan {
		return plan{steps: b.each("", fleetBackends, b.cfg.duration+b.cfg.warmup+time.Second, b.service)}
	},
}

func (b *bench) service(ctx context.Context, be Backend) (metrics, error) {
	z := b.cfg.sizes
	names := keys(z.keys)
	pick := zipf(z.keys)
	get, set := getAny(names, pick), b.setAny(names, pick)
	return with(ctx, be, Setup{TTL: hour, Keys: z.keys}, same(z.nodes, z.callers), func(f *fleet) (metrics, error) {
		if err := b.preload(ctx, f.nodes, names); err != nil {
			return nil, err
		}
		return b.drive(ctx, f.nodes, z.callers, func(ctx context.Context, c *caller) (kind, error) {
			if c.rand.IntN(100) < 95 {
				return get(ctx, c)
			}
			return set(ctx, c)
		})
	})
}

var writeBackends = []string{pgCache, pgNever, pgPerWrite, valkey, rueidisRaw}

var writeShape = shape{
	name: "write",
	about: "4 nodes x 32 callers that overwrite 10,000 keys, every caller as fast as it can, while so many nodes listen (the writing ones " +
		"included). For Redis the number is of no account: SET publishes nothing. Nor does postgres-local-never, whose entries nobody keeps in memory.",
	backends: writeBackends,
	columns: []column{
		ops("writes/s", "write.ops"), ms("mean", "write.mean_us"), ms("p50", "write.p50_us"), ms("p95", "write.p95_us"), ms("p99", "write.p99_us"),
		count("flushes/s", "flushes"), count("messages/s", "messages"), cpuColumn,
	},
	plan: func(b *bench) (p plan) {
		for _, n := range b.cfg.sizes.listening {
			takes := b.cfg.duration + b.cfg.warmup + time.Second + time.Duration(n)*15*time.Millisecond
			p.steps = append(p.steps, b.each(listeningLine(n), writeBackends, takes, func(ctx context.Context, be Backend) (metrics, error) {
				return b.write(ctx, be, n)
			})...)
		}
		return p
	},
}

func listeningLine(n int) string { return fmt.Sprint(n, " listening") }

func (b *bench) write(ctx context.Context, be Backend, listening int) (metrics, error) {
	z := b.cfg.sizes
	callers := same(z.nodes, z.callers)
	if be.Name() != valkey && be.Name() != rueidisRaw {
		callers = append(callers, same(max(0, listening-z.nodes), 0)...)
	}
	names := keys(z.keys)
	return with(ctx, be, Setup{TTL: hour, Keys: z.keys}, callers, func(f *fleet) (metrics, error) {
		writers := f.nodes[:z.nodes]
		if err := b.preload(ctx, writers, names); err != nil {
			return nil, err
		}
		return b.drive(ctx, writers, z.callers, b.setAny(names, uniform(z.keys)))
	})
}

var readShape = shape{
	name: "read",
	about: "One node reads 10,000 keys without a local cache, every caller as fast as it can. With one caller, beside it: one that sets, and the " +
		"bare prepared SELECT and upsert through the same database/sql and driver; they take turns of 50 ms.",
	backends: []string{pgNoLocal, valkey, rueidisRaw, pgBare, pgCache, pgPerWrite},
	columns: []column{
		ops("reads/s", "read.ops"), ms("mean", "read.mean_us"), ms("p50", "read.p50_us"), ms("p95", "read.p95_us"), ms("p99", "read.p99_us"),
		ops("writes/s", "write.ops"), ms("mean", "write.mean_us"), ms("p50", "write.p50_us"), ms("p95", "write.p95_us"), ms("p99", "write.p99_us"), cpuColumn,
	},
	plan: func(b *bench) (p plan) {
		for _, n := range b.cfg.sizes.readCallers {
			if n == 1 {
				p.steps = append(p.steps,
					b.turns(getOne, []string{pgBare, pgNoLocal, valkey, rueidisRaw}, true),
					b.turns(setOne, []string{pgBare, pgCache, pgNever, pgPerWrite, valkey}, false))
				continue
			}
			p.steps = append(p.steps, b.each(callersLine(n), []string{pgNoLocal, valkey, rueidisRaw}, b.cfg.duration+b.cfg.warmup+time.Second,
				func(ctx context.Context, be Backend) (metrics, error) { return b.read(ctx, be, n) })...)
		}
		return p
	},
}

const (
	getOne = "Get, 1 caller"
	setOne = "Set, 1 caller"
)

func callersLine(n int) string { return fmt.Sprintf("Get, %d callers", n) }

func (b *bench) read(ctx context.Context, be Backend, callers int) (metrics, error) {
	names := keys(b.cfg.sizes.keys)
	return with(ctx, be, Setup{TTL: hour, Keys: len(names)}, []int{callers}, func(f *fleet) (metrics, error) {
		if err := b.preload(ctx, f.nodes, names); err != nil {
			return nil, err
		}
		return b.drive(ctx, f.nodes, callers, getAny(names, uniform(len(names))))
	})
}

// turns is the step of a line with one caller for each backend. gets says whether it reads or overwrites.
func (b *bench) turns(line string, backends []string, gets bool) step {
	names := keys(b.cfg.sizes.keys)
	takes := time.Duration(len(backends)) * (b.cfg.duration*11/10 + time.Second)
	return step{line, takes, func(ctx context.Context) (samples []Sample, err error) {
		var nodes []Node
		for _, name := range backends {
			be := b.backend(name)
			if be == nil {
				continue
			}
			f, err := openFleet(ctx, be, Setup{TTL: hour, Keys: len(names)}, []int{1})
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, f.close(ctx)) }()
			nodes = append(nodes, f.nodes[0])
			samples = append(samples, Sample{Line: line, Backend: name})
		}
		// Only now: to open one of Redis' backends empties Redis.
		for _, n := range nodes {
			if err := b.preload(ctx, []Node{n}, names); err != nil {
				return nil, err
			}
		}
		op := b.setAny(names, uniform(len(names)))
		if gets {
			op = getAny(names, uniform(len(names)))
		}
		all, err := b.takeTurns(ctx, nodes, op)
		for i := range all {
			samples[i].Metrics = all[i]
		}
		return samples, err
	}}
}

var pqShape = shape{
	name:     "pq",
	about:    "lib/pq (with PrepareStatements) beside pgx, in the shapes of the tables above.",
	backends: []string{pgNoLocal, pgNoLocPQ, pgCache, pgCachePQ},
	columns: []column{
		ops("ops/s", "ops"), ops("reads/s", "read.ops"), ms("mean", "read.mean_us"), ms("p50", "read.p50_us"), ms("p99", "read.p99_us"),
		ops("writes/s", "write.ops"), ms("mean", "write.mean_us"), ms("p50", "write.p50_us"), ms("p99", "write.p99_us"),
	},
	plan: func(b *bench) (p plan) {
		z := b.cfg.sizes
		takes := b.cfg.duration + b.cfg.warmup + time.Second
		local, remote := []string{pgCache, pgCachePQ}, []string{pgNoLocal, pgNoLocPQ}
		many := z.readCallers[min(2, len(z.readCallers)-1)]
		p.steps = append(p.steps, b.turns(getOne, remote, true), b.turns(setOne, local, false))
		p.steps = append(p.steps, b.each(callersLine(many), remote, takes, func(ctx context.Context, be Backend) (metrics, error) {
			return b.read(ctx, be, many)
		})...)
		p.steps = append(p.steps, b.each("write, "+listeningLine(z.nodes), local, takes, func(ctx context.Context, be Backend) (metrics, error) {
			return b.write(ctx, be, z.nodes)
		})...)
		p.steps = append(p.steps, b.each("service", local, takes, b.service)...)
		p.steps = append(p.steps, b.each("seed", local, z.seed.takes(false), func(ctx context.Context, be Backend) (metrics, error) {
			return b.seed(ctx, be, false)
		})...)
		return p
	},
}

package main

import (
	"context"
	"time"
)

// poolIdle is how many idle connections the backends of poolShape keep; as with sql.Open, none bounds the open ones.
var poolIdle = map[string]int{pgDefaultPool: 2, pgTenIdle: 10}

var poolBackends = []string{pgDefaultPool, pgTenIdle}

var poolShape = shape{
	name: "pool",
	about: "A node with 64 callers on 10,000 keys, half of them Sets, without a local cache: on a pool as sql.Open makes it, which keeps two idle " +
		"connections, and on one that keeps ten.",
	backends: poolBackends,
	columns: []column{
		ops("ops/s", "ops"), ops("reads/s", "read.ops"), ms("p50", "read.p50_us"), ms("p99", "read.p99_us"),
		ops("writes/s", "write.ops"), ms("p50", "write.p50_us"), ms("p99", "write.p99_us"),
	},
	plan: func(b *bench) plan {
		callers := b.cfg.sizes.readCallers[min(2, len(b.cfg.sizes.readCallers)-1)]
		return plan{most: 3, steps: b.each("mixed load", poolBackends, b.cfg.duration+b.cfg.warmup+time.Second,
			func(ctx context.Context, be Backend) (metrics, error) { return b.mixed(ctx, be, callers) })}
	},
}

func (b *bench) mixed(ctx context.Context, be Backend, callers int) (metrics, error) {
	names := keys(b.cfg.sizes.keys)
	return with(ctx, be, Setup{TTL: hour, Keys: len(names)}, []int{callers}, func(f *fleet) (metrics, error) {
		if err := b.preload(ctx, f.nodes, names); err != nil {
			return nil, err
		}
		return b.drive(ctx, f.nodes, callers, b.halfSets(names))
	})
}

// halfSets reads or overwrites a key, one as often as the other.
func (b *bench) halfSets(names []string) operation {
	get, set := getAny(names, uniform(len(names))), b.setAny(names, uniform(len(names)))
	return func(ctx context.Context, c *caller) (kind, error) {
		if c.rand.IntN(2) == 0 {
			return get(ctx, c)
		}
		return set(ctx, c)
	}
}

package main

import (
	"context"
	"errors"
	"sync"
	"time"
)

var fleetShapeBackends = []string{pgCache, pgFixed}

// fleetShape is what a large fleet costs: each flush wakes every listening session.
var fleetShape = shape{
	name: "fleet",
	about: "4 nodes x 32 callers that overwrite 10,000 keys, every caller as fast as it can, while so many sessions listen on the channel: the four " +
		"nodes', and bare ones that read what comes and do nothing with it. The lag is from the acknowledgement of a Set, one every 20 ms, until one of " +
		"the bare sessions has the next message that names its key, a prefix of it, or everything.",
	backends: fleetShapeBackends,
	columns: []column{
		ops("writes/s", "write.ops"), ms("p50", "write.p50_us"), ms("p99", "write.p99_us"), ms("lag p50", "lag.p50_us"), ms("lag p99", "lag.p99_us"),
		count("flushes/s", "flushes"), inBytes("sent/s", "sent"), percent("server CPU, of a core", "server.cpu"),
	},
	plan: func(b *bench) (p plan) {
		p.most = 3
		for _, n := range b.cfg.sizes.sessions {
			takes := b.cfg.duration + b.cfg.warmup + 3*time.Second + time.Duration(n)*5*time.Millisecond
			p.steps = append(p.steps, b.each(listeningLine(n), fleetShapeBackends, takes, func(ctx context.Context, be Backend) (metrics, error) {
				return b.fleet(ctx, be, n)
			})...)
		}
		return p
	},
}

// settle is how long the callers work before what counts: the window finds its length meanwhile.
const settle = 3 * time.Second

func (b *bench) fleet(ctx context.Context, be Backend, sessions int) (metrics, error) {
	z := b.cfg.sizes
	names := keys(z.keys)
	return with(ctx, be, Setup{TTL: hour, Keys: z.keys}, same(z.nodes, z.callers), func(f *fleet) (m metrics, err error) {
		if err := b.preload(ctx, f.nodes, names); err != nil {
			return nil, err
		}
		l, err := listenBare(ctx, f.store.(*pgStore), sessions-z.nodes)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, l.close()) }()
		probing, stop := context.WithCancel(ctx)
		defer stop()
		var probes sync.WaitGroup
		probes.Go(func() { l.probe(probing, f.nodes[0]) })
		was := b.cfg.warmup
		if b.cfg.duration > settle/3 {
			b.cfg.warmup = settle
		}
		defer func() { b.cfg.warmup = was }()
		set := b.setAny(names, uniform(z.keys))
		var once sync.Once
		began := clock()
		var cpu, bytes float64
		m, err = b.drive(ctx, f.nodes, z.callers, func(ctx context.Context, c *caller) (kind, error) {
			if clock()-began >= b.cfg.warmup {
				once.Do(func() {
					cpu, bytes = b.servers.pgProcess.cpu().Seconds(), float64(l.bytes.Load())
					l.measuring.Store(true)
				})
			}
			return set(ctx, c)
		})
		if err != nil {
			return nil, err
		}
		took := (clock() - began - b.cfg.warmup).Seconds()
		stop()
		probes.Wait()
		m["server.cpu"], m["sent"] = (b.servers.pgProcess.cpu().Seconds()-cpu)/took, (float64(l.bytes.Load())-bytes)/took
		return m.add(l.lag.metrics("lag", time.Duration(took*float64(time.Second)))), nil
	})
}

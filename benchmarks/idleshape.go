package main

import (
	"context"
	"fmt"
	"time"

	"github.com/pgcache/go/internal/inside"
)

var idleShape = shape{
	name: "idle",
	about: "So many nodes listen, with some entries in memory, and nobody reads or writes: heartbeats of their listeners and their pulses are what the server " +
		"has to do. Each node has three connections: its listener's, its session's, and an idle one in its pool. Nodes that were used within " +
		"five minutes pulse every two seconds, those that were not twice a minute.",
	backends: []string{pgCache},
	columns: []column{
		percent("server CPU, of a core", "idle.cpu"), millis("server CPU of a node, a minute", "idle.node"), ops("statements/s", "idle.statements"),
	},
	plan: func(b *bench) (p plan) {
		p.most = 1
		for _, n := range b.cfg.sizes.idle {
			takes := b.idleTime() + 10*time.Second + time.Duration(n)*100*time.Millisecond
			for _, idle := range []bool{false, true} {
				line := fmt.Sprint(n, " nodes, used lately")
				if idle {
					line = fmt.Sprint(n, " nodes, idle")
				}
				p.steps = append(p.steps, b.each(line, []string{pgCache}, takes, func(ctx context.Context, be Backend) (metrics, error) {
					return b.idle(ctx, be, n, idle)
				})...)
			}
		}
		return p
	},
}

// idleTime is long enough for many pulses.
func (b *bench) idleTime() time.Duration { return 20 * b.cfg.duration }

func (b *bench) idle(ctx context.Context, be Backend, nodes int, idle bool) (metrics, error) {
	names := keys(100)
	return with(ctx, be, Setup{TTL: hour, Keys: len(names)}, same(nodes, 0), func(f *fleet) (m metrics, err error) {
		if err := b.preload(ctx, f.nodes[:1], names); err != nil {
			return nil, err
		}
		for _, n := range f.nodes {
			if _, _, err := n.Get(ctx, names[0]); err != nil {
				return nil, err
			}
			if idle {
				inside.Of(n.(*pgNode).cache).IdleAfter(time.Nanosecond)
			}
		}
		pause(ctx, min(b.idleTime(), 5*time.Second)) // what they have begun is over
		p := b.servers.pgProcess
		transactions := func() (n float64) {
			err = b.servers.admin.QueryRowContext(ctx, "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()").Scan(&n)
			return n
		}
		used, before, begun := p.cpu(), transactions(), clock()
		if err != nil {
			return nil, err
		}
		pause(ctx, b.idleTime())
		took := (clock() - begun).Seconds()
		m = metrics{"idle.statements": (transactions() - before) / took}
		if used := (p.cpu() - used).Seconds(); used > 0 {
			m["idle.cpu"], m["idle.node"] = used/took, used/took*60_000/float64(nodes)
		}
		return m, err
	})
}

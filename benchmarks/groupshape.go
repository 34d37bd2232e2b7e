package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

var groupsShape = shape{
	name: "groups",
	about: "All entries with a tag are removed, or all whose keys begin with a prefix, while 16 callers on another node overwrite 1,000 other keys of the table, " +
		"each with pauses up to 5 ms. Removal: DeleteTags or DeletePrefix, until it returns. Elsewhere: from then until a third node, which " +
		"held an entry in memory, finds none. Longest write: of the callers beside, in as much time before the removal and from its begin on. " +
		"Notifications: messages that name the group, or say \"everything\".",
	backends: []string{pgCache},
	columns: []column{
		ms("removal", "remove.us"), ms("elsewhere", "elsewhere.us"), ms("longest write before", "alone.max_us"), ms("with it", "beside.max_us"),
		ms("write p99 before", "alone.p99_us"), ms("with it", "beside.p99_us"), count("notifications", "messages"),
	},
	plan: func(b *bench) plan {
		be := b.backend(pgCache)
		if be == nil {
			return plan{}
		}
		g := &groupsRun{b: b, backend: be}
		p := plan{most: 3, setup: g.setup, cleanup: g.cleanup}
		for i, n := range b.cfg.sizes.groups {
			p.takes += time.Second + time.Duration(n)*fillTime
			for _, kind := range []string{"tag", "prefix"} {
				line := fmt.Sprintf("%s, %s entries", kind, thousands(float64(n)))
				p.steps = append(p.steps, step{line, 2*b.cfg.duration + 300*time.Millisecond, func(ctx context.Context) ([]Sample, error) {
					m, err := g.remove(ctx, g.fleets[i], kind)
					return []Sample{{Line: line, Backend: pgCache, Metrics: m}}, err
				}})
			}
		}
		return p
	},
}

// groupsRun is tables with groups of several sizes, which stay for all repetitions.
type groupsRun struct {
	b       *bench
	backend Backend
	fleets  []*fleet
}

// The group of each table: all its rows but for those that the callers beside overwrite.
const (
	groupTag    = "group"
	groupPrefix = prefix + "group-"
	groupWrites = 1000 // other keys
)

func (g *groupsRun) setup(ctx context.Context) error {
	for _, n := range g.b.cfg.sizes.groups {
		// The one that removes, the one with callers beside, the one that listens.
		f, err := openFleet(ctx, g.backend, Setup{TTL: hour, Keys: groupWrites}, []int{1, groupCallers, 1})
		if err != nil {
			return err
		}
		g.fleets = append(g.fleets, f)
		s := f.store.(*pgStore)
		if err := s.fill(ctx, groupPrefix, groupTag, n, g.b.cfg.valueBytes); err != nil {
			return err
		}
		if err := g.b.preload(ctx, f.nodes[1:2], keys(groupWrites)); err != nil {
			return err
		}
		if _, err := s.servers.admin.ExecContext(ctx, "VACUUM ANALYZE "+s.schema+".cache_entries"); err != nil {
			return err
		}
	}
	_, err := g.b.servers.admin.ExecContext(ctx, "CHECKPOINT")
	return err
}

func (g *groupsRun) cleanup(ctx context.Context) error {
	var err error
	for _, f := range g.fleets {
		err = errors.Join(err, f.close(ctx))
	}
	g.fleets = nil
	return err
}

const groupCallers = 16

func (g *groupsRun) remove(ctx context.Context, f *fleet, kind string) (m metrics, err error) {
	b, s := g.b, f.store.(*pgStore)
	remover, beside, other := f.nodes[0].(*pgNode), f.nodes[1], f.nodes[2]
	// Without the records of the last repetition the rows are as they were.
	if _, err := s.servers.admin.ExecContext(ctx, "TRUNCATE "+s.schema+".cache_groups"); err != nil {
		return nil, err
	}
	held := groupPrefix + fmt.Sprintf("%08d", 0)
	if err := inMemory(ctx, other, held); err != nil {
		return nil, err
	}
	l, err := listenBare(ctx, s, 1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.close()) }()

	var removing, stop atomic.Bool
	var wg sync.WaitGroup
	var alone, with histogram
	var mu sync.Mutex
	var failed error
	set := b.setAny(keys(groupWrites), uniform(groupWrites))
	for i := range groupCallers {
		c := newCaller(i, beside)
		wg.Go(func() {
			var did [2]histogram
			for !stop.Load() {
				begun := clock()
				_, err := set(ctx, c)
				took := clock() - begun
				if err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
					break
				}
				n := 0
				if removing.Load() { // also a write that was under way when the removal began
					n = 1
				}
				did[n].add(took)
				pause(ctx, time.Duration(c.rand.Int64N(int64(5*time.Millisecond))))
			}
			mu.Lock()
			defer mu.Unlock()
			alone.merge(&did[0])
			with.merge(&did[1])
		})
	}
	pause(ctx, b.cfg.duration)
	before := l.groups.Load()
	removing.Store(true)
	begun := clock()
	if kind == "tag" {
		err = remover.cache.DeleteTags(ctx, groupTag)
	} else {
		err = remover.cache.DeletePrefix(ctx, groupPrefix)
	}
	took := clock() - begun
	var elsewhere time.Duration
	if err == nil {
		elsewhere, err = gone(ctx, other, held)
	}
	pause(ctx, b.cfg.duration-(clock()-begun))
	stop.Store(true)
	wg.Wait()
	if err := errors.Join(err, failed, ctx.Err()); err != nil {
		return nil, err
	}
	m = metrics{"remove.us": micros(took), "elsewhere.us": micros(elsewhere), "messages": float64(l.groups.Load() - before)}
	return m.add(alone.metrics("alone", b.cfg.duration)).add(with.metrics("beside", b.cfg.duration)), nil
}

// inMemory has a node hold a key in memory. A write may have come in between: then it reads again.
func inMemory(ctx context.Context, n Node, key string) error {
	for range 100 {
		hits := n.Stats().LocalHits
		if _, found, err := n.Get(ctx, key); err != nil || !found {
			return errors.Join(err, fmt.Errorf("%s is not there", key))
		}
		if n.Stats().LocalHits > hits {
			return nil
		}
	}
	return fmt.Errorf("%s does not stay in memory", key)
}

// gone is how long it takes until a node finds a key no more.
func gone(ctx context.Context, n Node, key string) (time.Duration, error) {
	begun := clock()
	for {
		_, found, err := n.Get(ctx, key)
		if err == nil && found && clock()-begun > 10*time.Second {
			err = fmt.Errorf("%s is still there", key)
		}
		if err != nil || !found {
			return clock() - begun, err
		}
		pause(ctx, 50*time.Microsecond)
		if err := ctx.Err(); err != nil {
			return 0, err
		}
	}
}

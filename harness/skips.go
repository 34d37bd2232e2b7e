package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pgcache/go/internal/shardmap"
)

// A skip is a Move that leaves something out, done by plain SQL under a fleet at work. The checker must notice that keys have moved
// without it.
type skip struct {
	name string
	rare bool // with few writes: a write of a key that moves removes it everywhere
	move func(ctx context.Context, f *fleet, names []string) error
}

var skips = []skip{
	{"keys go from one shard to another in one step", false, func(ctx context.Context, f *fleet, names []string) error {
		return f.record(ctx, 2, names, nil)
	}},
	{"nobody waits until all nodes know that keys move", false, func(ctx context.Context, f *fleet, names []string) error {
		return errors.Join(f.record(ctx, 1, f.shardMap, names), f.record(ctx, 1, names, nil))
	}},
	{"one shard is not told that keys move", false, func(ctx context.Context, f *fleet, names []string) error {
		if err := f.record(ctx, 2, names, nil, f.schemas()[0]); err != nil {
			return err
		}
		time.Sleep(leaseEnds)
		return nil
	}},
	{"a shard that gets keys back has its old rows of them", true, func(ctx context.Context, f *fleet, names []string) error {
		if err := f.record(ctx, 1, f.shardMap, names); err != nil {
			return err
		}
		time.Sleep(leaseEnds)
		return f.record(ctx, 1, names, nil)
	}},
}

// record does what a step of a Move records: steps later, the map is now, and keys are moving to the map next.
func (f *fleet) record(ctx context.Context, steps int, now, next []string, schemas ...string) error {
	to := ""
	if next != nil {
		to = shardmap.Text(next)
	}
	if schemas == nil {
		schemas = f.schemas()
	}
	for _, schema := range schemas {
		_, err := f.db.ExecContext(ctx, "UPDATE "+schema+".cache_state SET shard_epoch = shard_epoch + $1, shard_map = $2, shard_next = $3", steps, shardmap.Text(now), to)
		if err != nil {
			return fmt.Errorf("record a map: %w", err)
		}
	}
	return nil
}

// testSkips gives each skip a fleet, and returns an error unless it is noticed in time.
func testSkips(ctx context.Context, cfg config, dsn string, skips []skip, patience time.Duration, out io.Writer) (missed error) {
	cfg.selftest, cfg.duration, cfg.move = false, patience, 100*time.Millisecond
	for _, s := range skips {
		if err := s.noticed(ctx, cfg, dsn, out); err != nil {
			missed = errors.Join(missed, fmt.Errorf("planted that %s: %w", s.name, err))
		}
	}
	return missed
}

func (s skip) noticed(ctx context.Context, cfg config, dsn string, out io.Writer) error {
	if s.rare {
		cfg.pause, cfg.ttl = time.Second, time.Hour
	}
	f, err := start(ctx, cfg, dsn)
	if err == nil {
		f.mover = func(ctx context.Context, names []string) error { return s.move(ctx, f, names) }
		working, stop := context.WithCancel(ctx)
		defer stop()
		_, err = f.run(working, func(float64) {
			if breaches, _ := f.book.total(); breaches > 0 {
				stop()
			}
		})
	}
	if breaches, _ := f.book.total(); err == nil && breaches == 0 {
		err = fmt.Errorf("not noticed within %v", cfg.duration)
	}
	if err == nil {
		say(out, "%s noticed: %s\n", f.book.summary(), s.name)
	}
	return errors.Join(err, f.stop(context.WithoutCancel(ctx)))
}

// skipPatience is how long a skip may go unnoticed: for two Moves, there and back.
const skipPatience = 40 * time.Second

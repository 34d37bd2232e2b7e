package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pgcache/go/codec"
)

const (
	timeEvery  = 25 * time.Millisecond
	rowsEvery  = 50 * time.Millisecond
	cleanEvery = 500 * time.Millisecond
)

// result is what a run has found.
type result struct {
	took  time.Duration
	tally *tally
	rows  int     // rows judged
	live  float64 // the share of the time that nodes listened
}

// run lets the fleet work for a while and judges everything that it answers. The end of ctx ends it early, in good order.
func (f *fleet) run(ctx context.Context, progress func(share float64)) (result, error) {
	// The operations themselves are never called off: what an operation did that gave up would be unknown.
	work := context.WithoutCancel(ctx)
	f.seed(work)
	began := clock()
	res := result{tally: &tally{}}

	stop := make(chan struct{})
	var workers sync.WaitGroup
	var all []*worker
	for _, n := range f.nodes() {
		for i := range 2 {
			w := &worker{fleet: f, node: n, first: i == 0}
			all = append(all, w)
			workers.Go(func() { w.work(work, stop) })
		}
	}

	background, stopBackground := context.WithCancel(work)
	defer stopBackground()
	disturbing, stopDisturbing := context.WithCancel(background)
	defer stopDisturbing()
	var others sync.WaitGroup
	mover := f.startOthers(background, disturbing, &others, &res.rows)
	res.live = f.watch(ctx, began, progress)
	stopDisturbing()
	close(stop)
	workers.Wait()
	mover.Wait()
	res.took = clock() - began
	for _, w := range all {
		res.tally.merge(&w.tally)
	}

	// When all is quiet, every node must have the newest of everything, and so must the table.
	err := f.settle(work)
	stopBackground()
	others.Wait()
	if err != nil {
		return res, err
	}
	return res, errors.Join(
		f.each(func(n *node) error { f.readAll(work, n); return nil }),
		f.judgeRows(work, &res.rows),
	)
}

// startOthers starts what goes on beside the workers: until background ends, the time is published, rows are judged and what has
// expired is removed; until disturbing ends, the watched table is changed, listeners are ended and keys are moved. rows counts the rows
// judged. A Move that has begun is brought to its end, for which mover waits.
func (f *fleet) startOthers(background, disturbing context.Context, others *sync.WaitGroup, rows *int) (mover *sync.WaitGroup) {
	others.Go(func() { f.every(background, timeEvery, f.publishTime) })
	others.Go(func() {
		f.every(background, rowsEvery, func(ctx context.Context) error { return f.judgeRows(ctx, rows) })
	})
	others.Go(func() {
		f.every(background, cleanEvery, func(ctx context.Context) error {
			_, err := f.writers[0].cache.Cleanup(ctx) // what has expired, at once: the next write of a key is silent
			return err
		})
	})
	if f.cfg.more {
		others.Go(func() { f.every(disturbing, updateEvery, f.updateSource) })
	}
	if f.cfg.kill > 0 {
		others.Go(func() { f.every(disturbing, f.cfg.kill, f.killListener) })
	}
	mover = &sync.WaitGroup{}
	if f.cfg.move > 0 {
		mover.Go(func() {
			f.every(disturbing, f.cfg.move, func(ctx context.Context) error { return f.move(context.WithoutCancel(ctx)) })
		})
	}
	return mover
}

// watch returns when the run is over, with the share of the time that nodes listened.
func (f *fleet) watch(ctx context.Context, began time.Duration, progress func(share float64)) (live float64) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var listening, looks int
	for clock()-began < f.cfg.duration && ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		for _, n := range f.nodes() {
			for _, p := range n.parts {
				if _, down := p.recorder.state(true); !down {
					listening++
				}
				looks++
			}
		}
		progress(min(1, float64(clock()-began)/float64(f.cfg.duration)))
	}
	return float64(listening) / float64(max(1, looks))
}

// seed writes every key once.
func (f *fleet) seed(ctx context.Context) {
	for key := range f.cfg.keys {
		w := &worker{fleet: f, node: f.writers[f.owner(key)], first: true}
		if kindOf(key) == sourced {
			w.update(ctx, key)
		} else {
			w.set(ctx, key)
		}
	}
	for _, key := range f.of(resilient, nil) {
		w := &worker{fleet: f, node: f.writers[0]}
		w.changeSource(ctx, key)
	}
}

// settle waits until every node listens and has applied everything.
func (f *fleet) settle(ctx context.Context) error {
	if err := f.ready(ctx); err != nil {
		return fmt.Errorf("after the run: %w", err)
	}
	last := clock()
	return f.each(func(n *node) error {
		for deadline := last + 30*time.Second; clock() < deadline; time.Sleep(timeEvery) {
			if !slices.ContainsFunc(n.parts, func(p *part) bool {
				applied, down := p.recorder.state(f.logged(shared))
				if f.cfg.more {
					logged, _ := p.recorder.state(f.logged(fromTable))
					applied = min(applied, logged)
				}
				return applied < last || down
			}) {
				return nil
			}
		}
		return errors.New("nothing was applied for 30 s after the run")
	})
}

// readAll reads every key on a node.
func (f *fleet) readAll(ctx context.Context, n *node) {
	w := &worker{fleet: f, node: n}
	for key := range f.cfg.keys {
		if kindOf(key) == sourced {
			w.getOrSet(ctx, key)
		}
		w.get(ctx, key)
	}
	for key := f.cfg.keys; key < f.plantedAt; key++ {
		w.lookMore(ctx, key)
		w.get(ctx, key)
	}
	for _, c := range f.counters {
		w.readCounter(ctx, c)
	}
}

// every does something again and again until ctx ends.
func (f *fleet) every(ctx context.Context, d time.Duration, do func(ctx context.Context) error) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if ctx.Err() != nil {
			return // both have come
		}
		if err := do(ctx); err != nil && ctx.Err() == nil {
			f.book.fail(fmt.Errorf("the harness itself: %w", err))
		}
	}
}

// logged says whether changes of keys of a kind go through the change log. Triggers of watched tables always write there.
func (f *fleet) logged(k kind) bool { return f.cfg.transport != immediate || k == fromTable }

// publishTime publishes the time to every node, in each way that changes take; see recorder.
func (f *fleet) publishTime(ctx context.Context) error {
	for _, schema := range f.schemas() {
		if f.logged(shared) || f.cfg.more {
			_, err := f.db.ExecContext(ctx, "INSERT INTO "+schema+".cache_changes (key, version) VALUES ($1, $2)", chimeKey, int64(clock()))
			if err != nil {
				return err
			}
		}
		if !f.logged(shared) {
			if _, err := f.db.ExecContext(ctx, "SELECT pg_notify($1, $2)", schema, timeMessage(clock())); err != nil {
				return err
			}
		}
	}
	return nil
}

// killListener ends the session of a node that listens. A session's last statement shows which one it is: LISTEN, or the
// empty one that is its heartbeat.
func (f *fleet) killListener(ctx context.Context) error {
	res, err := f.db.ExecContext(ctx, `SELECT pg_terminate_backend(pid) FROM (
		SELECT pid FROM pg_stat_activity WHERE application_name LIKE $1 || ' node-%' AND (query LIKE 'LISTEN%' OR query = ';')
		ORDER BY random() LIMIT 1) listener`, f.name)
	if err != nil {
		return fmt.Errorf("end a listener's session: %w", err)
	}
	n, err := res.RowsAffected()
	f.kills.Add(n)
	return err
}

func (f *fleet) codec() codec.Codec { return codecs[f.cfg.codec] }

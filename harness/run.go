package main

import (
	"context"
	"errors"
	"fmt"
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

	background, quiet := context.WithCancel(work)
	defer quiet()
	var others sync.WaitGroup
	others.Go(func() { f.every(background, timeEvery, f.publishTime) })
	others.Go(func() {
		f.every(background, rowsEvery, func(ctx context.Context) error { return f.judgeRows(ctx, &res.rows) })
	})
	others.Go(func() {
		f.every(background, cleanEvery, func(ctx context.Context) error {
			_, err := f.writers[0].cache.Cleanup(ctx) // what has expired, at once: the next write of a key is silent
			return err
		})
	})
	updates, still := context.WithCancel(background)
	defer still()
	if f.cfg.more {
		others.Go(func() { f.every(updates, updateEvery, f.updateSource) })
	}
	kills, peace := context.WithCancel(work)
	defer peace()
	if f.cfg.kill > 0 {
		others.Go(func() { f.every(kills, f.cfg.kill, f.killListener) })
	}

	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var live, looks int
	for clock()-began < f.cfg.duration && ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		for _, n := range f.nodes() {
			if _, down := n.recorder.state(true); !down {
				live++
			}
			looks++
		}
		progress(min(1, float64(clock()-began)/float64(f.cfg.duration)))
	}
	peace()
	still()
	close(stop)
	workers.Wait()
	res.took, res.live = clock()-began, float64(live)/float64(max(1, looks))
	for _, w := range all {
		res.tally.merge(&w.tally)
	}

	// When all is quiet, every node must have the newest of everything, and so must the table.
	err := f.settle(work)
	quiet()
	others.Wait()
	if err != nil {
		return res, err
	}
	return res, errors.Join(
		f.each(func(n *node) error { f.readAll(work, n); return nil }),
		f.judgeRows(work, &res.rows),
	)
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
			applied, down := n.recorder.state(f.logged(shared))
			if f.cfg.more {
				logged, _ := n.recorder.state(f.logged(fromTable))
				applied = min(applied, logged)
			}
			if applied >= last && !down {
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
		if err := do(ctx); err != nil && ctx.Err() == nil {
			f.book.fail(fmt.Errorf("the harness itself: %w", err))
		}
	}
}

// logged says whether changes of keys of a kind go through the change log. Triggers of watched tables always write there.
func (f *fleet) logged(k kind) bool { return f.cfg.transport != immediate || k == fromTable }

// publishTime publishes the time to every node, in each way that changes take; see recorder.
func (f *fleet) publishTime(ctx context.Context) error {
	if f.logged(shared) || f.cfg.more {
		_, err := f.db.ExecContext(ctx, "INSERT INTO "+f.name+".cache_changes (key, version) VALUES ($1, $2)", chimeKey, int64(clock()))
		if err != nil || f.logged(shared) {
			return err
		}
	}
	_, err := f.db.ExecContext(ctx, "SELECT pg_notify($1, $2)", f.name, timeMessage(clock()))
	return err
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

// judgeRows judges the table: what is in it must never be older than the last acknowledged write, whoever stored it.
func (f *fleet) judgeRows(ctx context.Context, judged *int) error {
	r := read{node: table, op: "SELECT", start: clock(), down: true}
	rows, err := f.db.QueryContext(ctx, `SELECT key, value FROM `+f.table()+`
		WHERE value IS NOT NULL AND codec <> '!none' AND NOT `+f.name+`.cache_dead(key, tags, seen)
			AND (expires_at IS NULL OR expires_at > clock_timestamp()) AND NOT starts_with(key, 'counter:')`)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // rows.Err has said it
	found := map[string]value{}
	for rows.Next() {
		var key string
		var data []byte
		var v value
		if err := rows.Scan(&key, &data); err != nil {
			return err
		}
		if err := f.codec().Unmarshal(data, &v); err != nil {
			return fmt.Errorf("the row of %q does not decode: %w", key, err)
		}
		found[key] = v
	}
	if err := rows.Err(); err != nil {
		return err
	}
	r.end = clock()
	for _, h := range f.keys {
		r.value, r.found = found[h.name], false
		_, r.found = found[h.name]
		if verdict := h.judge(r); verdict.breach != nil {
			f.book.breach(verdict.breach)
		} else if r.found {
			h.saw(r.value.N, r.start, r.end)
		}
		*judged++
	}
	return nil
}

func (f *fleet) codec() codec.Codec { return codecs[f.cfg.codec] }

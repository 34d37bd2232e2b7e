package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgcache/go/internal/pgserver"
)

// failing says what operations may return an error while faults are injected. None may afterwards.
type failing int

const (
	nothing        failing = iota
	writes                 // what is no Get, GetMany or GetOrSet
	victims                // what a node does whose links are disturbed, but no GetOrSet
	allButGetOrSet         // a GetOrSet loads and returns without the database
	all
)

const (
	// usual is the bound of P2 whatever goes wrong between a commit and a node; afterFailover, where a node's listener
	// stays on a living old server.
	usual         = 4 * time.Second
	afterFailover = 10 * time.Second
	// recovery is how long a node may take to listen again when all faults are over.
	recovery = 20 * time.Second
	keysEach = 24
)

// scenario is a fleet and what is done to it: one row of the report.
type scenario struct {
	name     string
	inject   fault         // nil: none
	hold     time.Duration // how long a fault lasts on average
	pause    time.Duration // between two faults, on average
	least    time.Duration // how long the scenario needs
	specs    []spec
	fails    failing
	quiet    bool                                                       // only the first node writes, and seldom: the others have hits in memory and nothing else
	bound    time.Duration                                              // 0: the usual
	disk     bool                                                       // the server has a small file system of its own
	settings map[string]string                                          // of a server of its own
	version  int                                                        // the oldest major version of the server
	why      string                                                     // ... and the reason
	hand     func(ctx context.Context, r *run, h *history, n int) error // writes by hand, in place of half of the writes
	lie      func(n *node, h *history, q *read)                         // changes what was read: for the self-test
}

// fault injects one fault and returns what ends it, or nil if it ends by itself.
type fault func(ctx context.Context, r *run) (undo func() error, err error)

// run is a scenario under way.
type run struct {
	scenario
	*fleet
	server   *pgserver.Server
	book     book
	pause    time.Duration // of a reader between two operations, on average
	settling atomic.Bool
	folder   string         // where the server's small file system is
	later    []func() error // when all is over, the last one first
}

// result is a row of the report.
type result struct {
	scenario string
	skipped  string // why
	err      error  // it could not be run
	book     *book
	took     time.Duration
}

func (r *result) bad() bool { return r.err != nil || r.book != nil && r.book.violations > 0 }

// perform runs a scenario.
func (s scenario) perform(ctx context.Context, server *pgserver.Server, folder string, length, pause, slack time.Duration) result {
	start := clock()
	r := &run{scenario: s, server: server, folder: folder, pause: pause}
	if r.bound == 0 {
		r.bound = usual
	}
	r.bound += slack
	if r.specs == nil {
		r.specs = listening
	}
	var err error
	name := "f_" + strings.ToLower(rand.Text()[:10])
	r.fleet, err = startFleet(ctx, name, server.DSN, r.specs, keysEach, r.quiet)
	if err == nil {
		err = r.work(ctx, max(length, s.least))
	}
	err = errors.Join(err, r.fleet.stop(context.WithoutCancel(ctx)))
	for _, f := range slices.Backward(r.later) {
		err = errors.Join(err, f())
	}
	return result{scenario: s.name, err: err, book: &r.book, took: clock() - start}
}

// work lets the fleet work for a while under faults, and looks at what is left of them.
func (r *run) work(ctx context.Context, length time.Duration) error {
	for _, h := range r.keys {
		r.write(h)
	}
	working, stop := context.WithTimeout(ctx, length)
	defer stop()
	var workers sync.WaitGroup
	for _, nodes := range r.byPrefix() {
		for i, h := range nodes[0].keys {
			workers.Go(func() { r.keyWriter(working, i, h) })
		}
	}
	for _, n := range r.fleet.nodes {
		for range 2 {
			workers.Go(func() { r.reader(working, n) })
		}
	}
	looking, stopLooking := context.WithCancel(ctx)
	defer stopLooking()
	var looks sync.WaitGroup
	looks.Go(func() {
		for wait(looking, 100*time.Millisecond) {
			_ = r.judgeRows(looking) // it can't look through every fault
		}
	})
	err := r.injectAll(working)
	workers.Wait()
	r.settling.Store(true)
	if err == nil {
		err = r.settle(ctx)
	}
	stopLooking()
	looks.Wait()
	return err
}

// injectAll injects faults until ctx ends.
func (r *run) injectAll(ctx context.Context) error {
	if r.inject == nil {
		<-ctx.Done()
		return nil
	}
	var last error
	// The first one comes soon, also where there is little time, and so does the next where one failed: a statement that
	// locks several tables can be the victim of a deadlock with the fleet's own.
	soon := min(r.scenario.pause, time.Second/2)
	for next := soon; wait(ctx, cmp.Or(next, spread(r.scenario.pause))); {
		// A fault that has begun is seen through: half of one would be there for ever.
		undo, err := r.inject(context.WithoutCancel(ctx), r)
		next = 0
		if err == nil {
			r.book.fault()
		} else {
			next, last = soon, err
		}
		if undo == nil {
			continue
		}
		wait(ctx, r.hold/2+spread(r.hold/2))
		if err := undo(); err != nil {
			return fmt.Errorf("end a fault: %w", err)
		}
	}
	if r.book.faults == 0 {
		return errors.Join(errors.New("no fault was injected"), last)
	}
	return nil
}

// settle waits until all nodes listen again. Then each must have the same as the table within the bound.
func (r *run) settle(ctx context.Context) error {
	start := clock()
	ready, cancel := context.WithTimeout(ctx, recovery)
	err := r.each(func(n *node) error { return n.Ready(ready) })
	cancel()
	if err != nil {
		r.book.violate(&violation{"recovery", fmt.Sprintf("not ready %v after the last fault: %v", recovery, err)})
	}
	deadline := start + r.bound + time.Second
	for {
		begun := clock()
		differs, err := r.differs(ctx)
		if err == nil && differs == "" {
			return r.judgeRows(ctx)
		}
		if begun > deadline {
			if err != nil {
				return fmt.Errorf("after the last fault: %w", err)
			}
			r.book.violate(&violation{"P2", fmt.Sprintf("%v after the last fault: %s", r.bound+time.Second, differs)})
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// differs compares what every node reads with the table and says the first difference.
func (r *run) differs(ctx context.Context) (string, error) {
	for prefix, nodes := range r.byPrefix() {
		rows, _, err := r.rows(ctx, prefix)
		if err != nil {
			return "", err
		}
		for _, n := range nodes {
			for i, h := range n.keys {
				q := r.ask(n, "Get", i)
				v, found, err := n.Get(ctx, h.name)
				r.operation(n, "Get", q.start, err)
				if err != nil {
					return "", err
				}
				r.judge(n, i, q, v, found)
				if want, there := rows[h.name]; found != there || v != want {
					return fmt.Sprintf("%v reads %d of key %q (found: %v), the table has %d (found: %v)", n, v.N, h.name, found, want.N, there), nil
				}
			}
		}
	}
	return "", nil
}

// rows reads the table.
func (f *fleet) rows(ctx context.Context, prefix string) (_ map[string]value, start time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	start = clock()
	rows, err := f.data.Load().QueryContext(ctx, "SELECT key, value FROM "+f.schema+"."+prefix+"cache_entries WHERE value IS NOT NULL AND NOT "+f.schema+"."+prefix+"cache_dead(key, tags, seen)")
	if err != nil {
		return nil, start, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err has said it
	found := map[string]value{}
	for rows.Next() {
		var key string
		var data []byte
		if err := rows.Scan(&key, &data); err != nil {
			return nil, start, err
		}
		var v value
		if err := json.Unmarshal(data, &v); err != nil {
			return nil, start, fmt.Errorf("the row of %q: %w", key, err)
		}
		found[key] = v
	}
	return found, start, rows.Err()
}

// some returns a random one.
func some[T any](of []T) T { return of[mrand.N(len(of))] }

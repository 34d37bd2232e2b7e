package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/internal/testdb"
)

// This file has the faults of links, and of a node as a whole.

// onLinks does something with one link, or both, of a node that has some.
func onLinks(which func(n *node) []*testdb.Proxy, do func(p *testdb.Proxy)) fault {
	return func(_ context.Context, r *run) (func() error, error) {
		n := r.linked()
		n.victim.Store(true)
		links := which(n)
		for _, p := range links {
			do(p)
		}
		return func() error {
			for _, p := range links {
				p.Thaw()
				p.Restore()
				p.Delay(0)
			}
			return nil
		}, nil
	}
}

// linked is a node that has links.
func (r *run) linked() *node {
	for {
		if n := some(r.fleet.nodes); n.pool != nil {
			return n
		}
	}
}

func bothLinks(n *node) []*testdb.Proxy  { return []*testdb.Proxy{n.pool, n.listen} }
func poolLink(n *node) []*testdb.Proxy   { return []*testdb.Proxy{n.pool} }
func listenLink(n *node) []*testdb.Proxy { return []*testdb.Proxy{n.listen} }

// eitherLink is both or the listener's alone.
func eitherLink(n *node) []*testdb.Proxy { return bothLinks(n)[rand.N(2):] }

func freezeHalf(d testdb.Direction) func(p *testdb.Proxy) {
	return func(p *testdb.Proxy) { p.FreezeHalf(d) }
}

// clearFrozen has a node begin a Clear and freezes its links while it is at it: whatever it holds by then must end by itself.
func clearFrozen(ctx context.Context, r *run) (func() error, error) {
	n := r.linked()
	n.victim.Store(true)
	cleared := make(chan struct{})
	go func() {
		defer close(cleared)
		_, _ = empty(n.Clear)(ctx, r) // it may fail
	}()
	time.Sleep(rand.N(4 * time.Millisecond))
	for _, p := range bothLinks(n) {
		p.Freeze()
	}
	return func() error {
		for _, p := range bothLinks(n) {
			p.Thaw()
		}
		<-cleared
		return nil
	}, nil
}

// process is a node in a process of its own.
func (r *run) process() *node {
	for {
		if n := some(r.fleet.nodes); n.child != nil {
			return n
		}
	}
}

// stopNode stops a process that is a node.
func stopNode(_ context.Context, r *run) (func() error, error) {
	n := r.process()
	n.victim.Store(true) // what it has begun may be past its timeout when it goes on
	cmd, _ := n.child.process()
	if err := sendSignal(cmd.Process.Pid, sigStop); err != nil {
		return nil, err
	}
	return func() error { return sendSignal(cmd.Process.Pid, sigCont) }, nil
}

// killNode kills a process that is a node, with all that it had begun, and starts another in its place.
func killNode(_ context.Context, r *run) (func() error, error) {
	n := r.process()
	n.victim.Store(true)
	if err := n.child.kill(); err != nil {
		return nil, err
	}
	return n.child.start, nil
}

// killWaiting kills a node whose write waits for a row, which is let go only after that.
func killWaiting(ctx context.Context, r *run) (func() error, error) {
	n := r.process()
	var own []*history
	for _, h := range n.keys {
		if h.owner == n {
			own = append(own, h)
		}
	}
	release, err := holdTx(ctx, r.admin, true, "SELECT FROM "+r.table("entries")+" WHERE key = $1 FOR UPDATE", some(own).name)
	if err != nil {
		return nil, err
	}
	time.Sleep(time.Second)
	n.victim.Store(true)
	err = n.child.kill()
	return func() error { return errors.Join(release(), n.child.start()) }, err
}

// failover leads the pools to another server, which has the tables without their rows, as a standby has of UNLOGGED tables.
// The old one lives on, and the nodes' listeners are still connected to it.
//
// The new one takes its time for each answer until the fault ends. afterLook: it comes when a node has just looked which
// server its pool leads to, which it does from time to time where nothing else shows it.
func failover(delay time.Duration, afterLook bool) fault {
	return func(ctx context.Context, r *run) (func() error, error) { return r.failover(ctx, delay, afterLook) }
}

func (r *run) failover(ctx context.Context, delay time.Duration, afterLook bool) (func() error, error) {
	if r.book.faults > 0 {
		return nil, errors.New("only once")
	}
	other, err := pgserver.StartWith(ctx, pgserver.Config{Own: true})
	if err != nil {
		return nil, err
	}
	r.later = append(r.later, other.Close)
	to, err := startFleet(ctx, r.schema, other.DSN, r.specs[:1], 0, false)
	r.later = append(r.later, func() error { return errors.Join(to.stop(ctx)) })
	if err != nil {
		return nil, err
	}
	var id string
	if err := r.admin.QueryRowContext(ctx, "SELECT id FROM "+r.table("state")).Scan(&id); err != nil {
		return nil, err
	}
	if _, err := to.admin.ExecContext(ctx, "UPDATE "+r.table("state")+" SET id = $1", id); err != nil {
		return nil, err
	}
	between, err := testdb.StartProxy(to.roleDSN())
	if err != nil {
		return nil, err
	}
	r.later = append(r.later, func() error { between.Close(); return nil })
	between.Delay(delay)
	if err := r.fillPools(ctx); err != nil {
		return nil, err
	}
	for seen := !afterLook; !seen; time.Sleep(5 * time.Millisecond) {
		err := r.admin.QueryRowContext(ctx, `SELECT count(*) > 0 FROM pg_stat_activity
			WHERE usename = $1 AND query LIKE '%name: Server %' AND query_start > clock_timestamp() - interval '50 ms'`, r.schema).Scan(&seen)
		if err != nil {
			return nil, err
		}
	}
	done := r.wipe()
	if err := errors.Join(r.front.Lead(between.DSN()), r.listenProxy.Lead(to.roleDSN())); err != nil {
		return nil, err
	}
	// The session of each node for pulses and flushes stays on the old server too: nobody notices before the pool is looked at.
	const pools = "SELECT pid FROM pg_stat_activity WHERE usename = $1 AND NOT " + listeners + ` AND pid NOT IN (
		SELECT DISTINCT ON (application_name) pid FROM pg_stat_activity WHERE usename = $1 AND query ~ 'AS behind|cache_flush'
		ORDER BY application_name, query_start DESC)`
	for left := 1; left > 0; {
		err := r.admin.QueryRowContext(ctx, "SELECT count(pg_terminate_backend(pid)) FROM ("+pools+") p", r.schema).Scan(&left)
		if err != nil {
			return nil, err
		}
	}
	r.data.Store(to.admin)
	done(true)
	return func() error { between.Delay(0); return nil }, nil
}

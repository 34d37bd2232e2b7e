package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Backend is one way to cache, as the tables name it. A further one needs no more than these three interfaces.
type Backend interface {
	Name() string
	// Open makes an empty store for one measurement.
	Open(ctx context.Context, s Setup) (Store, error)
}

// Setup is what a measurement asks of a store.
type Setup struct {
	TTL  time.Duration // of every value that is set
	Keys int           // how many there are; a local cache has room for all
	Wire bool          // reach the server through the slow link
}

// Store is what the nodes of a fleet share.
type Store interface {
	// OpenNode connects a node that so many callers will use at once. One with 0 callers only listens.
	OpenNode(ctx context.Context, callers int) (Node, error)
	// Close removes what was stored. All nodes have been closed.
	Close(ctx context.Context) error
}

// Node stands for one process of a fleet. It shares nothing with the others but the server.
type Node interface {
	Get(ctx context.Context, key string) (value string, found bool, err error)
	Set(ctx context.Context, key, value string) error
	Stats() Stats
	Close() error
}

// Stats are what a node knows of itself. A backend leaves out what it does not have.
type Stats struct {
	LocalHits, RemoteHits, Misses uint64
	Flushes, Messages, Refreshed  uint64
}

// The backends of the tables.
const (
	pgCache       = "postgres-cache"
	pgRefresh     = "postgres-cache-refresh"
	pgNoLocal     = "postgres-no-local-cache"
	pgNoNotify    = "postgres-no-notify"
	pgPerWrite    = "postgres-notify-per-write"
	pgCachePQ     = "postgres-cache-pq"
	pgNoLocPQ     = "postgres-no-local-cache-pq"
	pgDefaultPool = "postgres-default-pool"
	pgTenIdle     = "postgres-ten-idle"
	pgFixed       = "postgres-fixed-window"
	pgNever       = "postgres-local-never"
	pgBare        = "bare statement"
	pgShards      = "postgres-shards"
	noCache       = "no cache"
	valkey        = "valkey"
	rueidisCSC    = "valkey-rueidis"
	rueidisRaw    = "valkey-rueidis-no-cache"
)

var backendNames = []string{
	pgCache, pgRefresh, pgNoLocal, pgNoNotify, pgPerWrite, pgCachePQ, pgNoLocPQ, pgDefaultPool, pgTenIdle, pgFixed, pgNever, pgShards, watchNone, watchKey, watchTag, pgBare, noCache, valkey, rueidisCSC, rueidisRaw,
}

// fleet is the nodes of one measurement.
type fleet struct {
	store Store
	nodes []Node
}

// openFleet opens a store and one node for each element of callers.
func openFleet(ctx context.Context, b Backend, s Setup, callers []int) (*fleet, error) {
	store, err := b.Open(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("%s: open: %w", b.Name(), err)
	}
	f := &fleet{store: store, nodes: make([]Node, len(callers))}
	errs := make([]error, len(callers))
	slots := make(chan struct{}, 16) // as many connect at a time
	var wg sync.WaitGroup
	for i, n := range callers {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if f.nodes[i], errs[i] = store.OpenNode(ctx, n); errs[i] != nil {
				f.nodes[i], errs[i] = nil, fmt.Errorf("%s: open node %d: %w", b.Name(), i, errs[i])
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, f.close(ctx))
	}
	return f, nil
}

func (f *fleet) close(ctx context.Context) error {
	errs := f.closeNodes()
	// Also after Ctrl-C nothing is left on a server that is not ours.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return errors.Join(errs, f.store.Close(ctx))
}

func (f *fleet) closeNodes() error {
	errs := make([]error, len(f.nodes))
	var wg sync.WaitGroup
	for i, n := range f.nodes {
		if n != nil {
			wg.Go(func() { errs[i] = n.Close() })
		}
	}
	wg.Wait()
	f.nodes = nil
	return errors.Join(errs...)
}

// stats is the sum over all nodes.
func (f *fleet) stats() (sum Stats) {
	for _, n := range f.nodes {
		s := n.Stats()
		sum.LocalHits += s.LocalHits
		sum.RemoteHits += s.RemoteHits
		sum.Misses += s.Misses
		sum.Flushes += s.Flushes
		sum.Messages += s.Messages
		sum.Refreshed += s.Refreshed
	}
	return sum
}

// since is what happened between before and s, in elapsed.
func (s Stats) since(before Stats, elapsed time.Duration) metrics {
	m := metrics{}
	found := float64(s.LocalHits - before.LocalHits + s.RemoteHits - before.RemoteHits)
	if asked := found + float64(s.Misses-before.Misses); asked > 0 {
		m["hit.rate"] = found / asked
		m["hit.local"] = float64(s.LocalHits-before.LocalHits) / asked
	}
	if s.Flushes > 0 {
		m["flushes"] = float64(s.Flushes-before.Flushes) / elapsed.Seconds()
		m["messages"] = float64(s.Messages-before.Messages) / elapsed.Seconds()
		m["refreshed"] = float64(s.Refreshed-before.Refreshed) / elapsed.Seconds()
	}
	return m
}

// same returns n times v.
func same(n, v int) []int { return slices.Repeat([]int{v}, n) }

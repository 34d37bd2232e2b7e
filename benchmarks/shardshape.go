package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/localcache"
	"github.com/pgcache/go/pgcache"
)

var shardBackends = []string{pgNoLocal, pgShards}

// shardShape is what it costs to spread the keys over several servers while one would do.
var shardShape = shape{
	name: "shards",
	about: "So many servers, all on this machine and each with a data directory of its own, and 512 callers on 4 nodes: half of the operations are Sets, on " +
		"10,000 keys chosen uniformly, without a local cache. postgres-no-local-cache is a Cache on the first of them. Server CPU is that of all servers in use.",
	backends: shardBackends,
	columns: []column{
		ops("ops/s", "ops"), ops("reads/s", "read.ops"), ms("p50", "read.p50_us"), ms("p99", "read.p99_us"),
		ops("writes/s", "write.ops"), ms("p50", "write.p50_us"), ms("p99", "write.p99_us"), cpuColumn,
	},
	plan: func(b *bench) plan {
		s := &shardRun{b: b}
		p := plan{setup: s.setup, cleanup: s.cleanup, takes: 10 * time.Second}
		takes := b.cfg.duration + b.cfg.warmup + 3*time.Second
		add := func(n int, backend string) {
			if line := serversLine(n); b.wants(backend) {
				p.steps = append(p.steps, step{line + ", " + backend, takes, func(ctx context.Context) ([]Sample, error) {
					m, err := s.measure(ctx, n, backend == pgShards)
					return []Sample{{Line: line, Backend: backend, Metrics: m}}, err
				}})
			}
		}
		add(1, pgNoLocal)
		for _, n := range b.cfg.sizes.shards {
			add(n, pgShards)
		}
		return p
	},
}

func serversLine(n int) string {
	if n == 1 {
		return "1 server"
	}
	return fmt.Sprint(n, " servers")
}

// ownServer is a server of a shape, beside that of the others.
type ownServer struct {
	pg      *pgserver.Server
	admin   *sql.DB
	process process
}

// startOwn starts a server with the usual settings but for those in other.
func startOwn(ctx context.Context, other map[string]string) (s ownServer, err error) {
	all := maps.Clone(settings)
	maps.Copy(all, other)
	if s.pg, err = pgserver.StartWith(ctx, pgserver.Config{Own: true, Settings: all}); err != nil {
		return s, err
	}
	if s.admin, err = openDB("pgx", s.pg.DSN, 2); err != nil {
		return s, errors.Join(err, s.pg.Close())
	}
	s.process = findPostgres(ctx, s.admin)
	return s, nil
}

func (s ownServer) close() error { return errors.Join(s.admin.Close(), s.pg.Close()) }

// shardRun is the servers, which stay for all repetitions.
type shardRun struct {
	b       *bench
	servers []ownServer
}

func (s *shardRun) setup(ctx context.Context) error {
	most := 1
	for _, n := range s.b.cfg.sizes.shards {
		most = max(most, n)
	}
	for len(s.servers) < most {
		one, err := startOwn(ctx, map[string]string{"shared_buffers": "256MB", "max_connections": "200"})
		if err != nil {
			return err
		}
		s.servers = append(s.servers, one)
	}
	return nil
}

func (s *shardRun) cleanup(context.Context) (err error) {
	for _, one := range s.servers {
		err = errors.Join(err, one.close())
	}
	s.servers = nil
	return err
}

// measure lets the nodes work on the first n servers, by a Cache on the one or by Shards.
func (s *shardRun) measure(ctx context.Context, n int, sharded bool) (m metrics, err error) {
	z := s.b.cfg.sizes
	store := &shardStore{servers: s.servers[:n], sharded: sharded, schema: newSchema(), log: slog.New(slog.NewTextHandler(s.b.progress, nil))}
	names := keys(z.keys)
	f := &fleet{store: store}
	defer func() { err = errors.Join(err, f.close(ctx)) }()
	// The map is recorded before the nodes look for it: without one they warn.
	first := *store
	first.log = slog.New(slog.DiscardHandler)
	node, err := first.OpenNode(ctx, 0)
	if err != nil {
		return nil, err
	}
	if err := node.Close(); err != nil {
		return nil, err
	}
	for range z.nodes {
		node, err := store.OpenNode(ctx, z.shardCallers)
		if err != nil {
			return nil, err
		}
		f.nodes = append(f.nodes, node)
	}
	if err := s.b.preload(ctx, f.nodes, names); err != nil {
		return nil, err
	}
	return s.b.drive(ctx, f.nodes, z.shardCallers, s.b.halfSets(names))
}

// shardStore is a schema on each of some servers.
type shardStore struct {
	servers []ownServer
	sharded bool
	schema  string
	log     *slog.Logger
}

func (s *shardStore) OpenNode(ctx context.Context, _ int) (_ Node, err error) {
	n := &shardNode{}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	var shards []pgcache.Shard
	for i, server := range s.servers {
		db, err := openDB("pgx", server.pg.DSN, callerConns)
		if err != nil {
			return nil, err
		}
		n.dbs, n.servers = append(n.dbs, db), append(n.servers, server.process)
		cache, err := pgcache.New(db, pgcache.Options{
			Codec: raw{}, DefaultTTL: hour, Schema: s.schema, Local: localcache.None(), Timeout: 30 * time.Second, Logger: s.log,
		})
		if err != nil {
			return nil, err
		}
		if err := cache.Migrate(ctx); err != nil { // before the Shards look for their map
			return nil, errors.Join(err, cache.Close())
		}
		n.caches = append(n.caches, cache)
		shards = append(shards, pgcache.Shard{Name: fmt.Sprint("shard-", i), Cache: cache})
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if !s.sharded {
		n.view = pgcache.For[string](n.caches[0])
		return n, n.caches[0].Ready(ctx)
	}
	all, err := pgcache.NewShards(shards...)
	if err != nil {
		return nil, err
	}
	n.view = pgcache.ForShards[string](all)
	return n, errors.Join(all.Migrate(ctx), all.Ready(ctx))
}

func (s *shardStore) Close(ctx context.Context) (err error) {
	for _, server := range s.servers {
		_, dropped := server.admin.ExecContext(ctx, "DROP SCHEMA IF EXISTS "+s.schema+" CASCADE")
		err = errors.Join(err, dropped)
	}
	return err
}

// shardNode is one process with a pool for each server.
type shardNode struct {
	view interface {
		Get(ctx context.Context, key string) (string, bool, error)
		Set(ctx context.Context, key, value string, opts ...pgcache.Option) error
	}
	caches  []*pgcache.Cache
	dbs     []*sql.DB
	servers []process
}

func (n *shardNode) Get(ctx context.Context, key string) (string, bool, error) {
	return n.view.Get(ctx, key)
}

func (n *shardNode) Set(ctx context.Context, key, value string) error {
	return n.view.Set(ctx, key, value)
}

func (n *shardNode) Stats() (sum Stats) {
	for _, c := range n.caches {
		s := c.Stats()
		sum.RemoteHits += s.RemoteHits
		sum.Misses += s.Misses
	}
	return sum
}

// Close closes what was opened, also where opening has failed on the way. Shards close their Caches and nothing else.
func (n *shardNode) Close() (err error) {
	for _, c := range n.caches {
		err = errors.Join(err, c.Close())
	}
	for _, db := range n.dbs {
		err = errors.Join(err, db.Close())
	}
	return err
}

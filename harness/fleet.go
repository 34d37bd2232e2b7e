package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx"
	_ "github.com/lib/pq"              // database/sql driver "postgres"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/driver/pqdriver"
	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/localcache"
	"github.com/pgcache/go/pgcache"
)

// fleet is many nodes in one process that share nothing but a database, and what the harness knows about them.
type fleet struct {
	cfg     config
	name    string  // of the schema, the channel and the sessions
	db      *sql.DB // the harness's own, for publishing the time, looking at rows and ending sessions
	keys    []*history
	writers []*node
	readers []*node
	book    book
	ops     atomic.Int64
	kills   atomic.Int64

	counters  []*counter
	plantedAt int // the first key that the selftest spoils
	activity  activity

	// Of a fleet over shards.
	owners   owners
	shardMap []string                                        // the names of the shards in the map in force
	whole    bool                                            // it has all shards
	mover    func(ctx context.Context, names []string) error // introduces a map: a Move, or a skip of the selftest
}

// node is one process of a fleet: a pool, a listener and a cache of its own.
type node struct {
	id     int
	parts  []*part // of each shard, or the only one
	cache  cache
	single *pgcache.Cache  // the same, of a node without shards
	shards *pgcache.Shards // and of one with shards

	typed   view[value] // with the full names of keys, as the cache itself has them
	sourced view[value] // in the namespace of the keys that are loaded
	views   views

	// Of every key: the latest begin of a write of this node that was acknowledged, and of a write that it has shown.
	own, seen []atomic.Int64
}

func (f *fleet) nodes() []*node {
	return append(f.writers[:len(f.writers):len(f.writers)], f.readers...)
}

// start brings up a fleet on the server that dsn names. stop must be called, also after an error.
func start(ctx context.Context, cfg config, dsn string) (f *fleet, err error) {
	f = &fleet{cfg: cfg, name: "harness_" + strings.ToLower(rand.Text()[:12])}
	f.mover = f.moveByNode
	for i := range cfg.keys {
		h := &history{name: fmt.Sprint(kindOf(i), ":", i), kind: kindOf(i)}
		if kindOf(i) == sourced {
			h.source = &source{}
		}
		f.keys = append(f.keys, h)
	}
	if cfg.more {
		f.keys = append(f.keys, f.moreKeys()...)
	}
	f.plantedAt = len(f.keys)
	if cfg.selftest {
		for i, p := range cfg.plants() {
			h := &history{name: fmt.Sprint("planted:", i)}
			if p.kind != "" {
				h.name = fmt.Sprint(p.kind, ":planted", i)
				h.kind, h.team = p.kind, -1-i
			}
			if p.kind == fromTable || p.kind == resilient {
				h.source = &source{}
			}
			f.keys = append(f.keys, h)
		}
	}
	if f.db, err = sql.Open("pgx", withName(dsn, f.name)); err != nil {
		return f, err
	}
	f.db.SetMaxOpenConns(harnessConns)
	conns, err := f.connsPerNode(ctx)
	if err != nil {
		return f, err
	}
	for _, schema := range f.schemas() {
		if _, err := f.db.ExecContext(ctx, "CREATE SCHEMA "+schema); err != nil {
			return f, fmt.Errorf("create a schema: %w", err)
		}
	}
	for id := range cfg.writers + cfg.readers {
		n, err := f.newNode(id, dsn, conns)
		if err != nil {
			return f, err
		}
		if id < cfg.writers {
			f.writers = append(f.writers, n)
		} else {
			f.readers = append(f.readers, n)
		}
	}
	if err := f.writers[0].cache.Migrate(ctx); err != nil {
		return f, err
	}
	f.shardMap, f.whole = f.shardsIn(-1), true
	if cfg.more && cfg.shards == 0 {
		if err := f.watchTable(ctx); err != nil {
			return f, fmt.Errorf("watch a table: %w", err)
		}
	}
	return f, f.ready(ctx)
}

func (f *fleet) newNode(id int, dsn string, conns int) (n *node, err error) {
	n = &node{id: id, own: make([]atomic.Int64, len(f.keys)), seen: make([]atomic.Int64, len(f.keys))}
	var shards []pgcache.Shard
	for i, schema := range f.schemas() {
		// Nodes share nothing, and those of one DSN would share a connection of lib/pq: each part's differs.
		p, err := f.newPart(withName(dsn, fmt.Sprintf("%s node-%d %d", f.name, id, i)), schema, conns)
		if err != nil {
			return nil, errors.Join(err, n.close())
		}
		n.parts, shards = append(n.parts, p), append(shards, pgcache.Shard{Name: shardName(i), Cache: p.cache})
	}
	if f.cfg.shards == 0 {
		n.single = n.parts[0].cache
		n.cache = n.single
	} else if n.shards, err = pgcache.NewShards(shards...); err != nil {
		return nil, errors.Join(err, n.close())
	} else {
		n.cache = n.shards
	}
	n.typed = viewOf[value](n)
	n.sourced = viewOf[value](n, pgcache.Namespace(string(sourced)))
	n.views = f.viewsOf(n)
	return n, nil
}

// newPart connects to one server.
func (f *fleet) newPart(dsn, schema string, conns int) (p *part, err error) {
	p = &part{recorder: &recorder{}}
	if f.cfg.driver == "pq" {
		p.db, err = sql.Open("postgres", dsn)
		p.recorder.Listener = pqdriver.Listener(dsn)
	} else if p.db, err = sql.Open("pgx", dsn); err == nil {
		p.recorder.Listener = pgxdriver.Listener(p.db)
	}
	if err != nil {
		return nil, err
	}
	if f.cfg.transport == polled {
		p.recorder.Listener = listener.Poll(0)
	}
	var window time.Duration // the default
	if f.cfg.transport == immediate {
		window = pgcache.Immediate
	}
	p.db.SetMaxOpenConns(conns)
	p.db.SetMaxIdleConns(conns)
	var local localcache.Cache // the default
	if f.cfg.soak > 0 {
		local = localcache.New(localcache.Options{MaxEntries: soakEntries})
	}
	p.cache, err = pgcache.New(p.db, pgcache.Options{
		Local: local, Codec: codecs[f.cfg.codec], DefaultTTL: f.cfg.ttl, Schema: schema, Channel: schema, Listener: p.recorder,
		InvalidationWindow: window,
		Timeout:            30 * time.Second, // a machine that is too small is slow, not wrong
		Logger:             slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, errors.Join(err, p.db.Close())
	}
	return p, nil
}

// close ends a node, also one that has not come up.
func (n *node) close() (err error) {
	if n.shards != nil {
		err = n.shards.Close()
	}
	for _, p := range n.parts {
		err = errors.Join(err, p.cache.Close(), p.db.Close())
	}
	return err
}

const (
	harnessConns = 4
	mostConns    = 6 // for each node: its listener, its lock session, and callers
	leastConns   = 4
)

// connsPerNode divides what the server has to give.
func (f *fleet) connsPerNode(ctx context.Context) (int, error) {
	var limit, used int
	err := f.db.QueryRowContext(ctx, `SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
		(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> $1)`, f.name).Scan(&limit, &used)
	if err != nil {
		return 0, fmt.Errorf("ask the server for its limits: %w", err)
	}
	nodes := (f.cfg.writers + f.cfg.readers) * len(f.schemas())
	listener := 0
	if f.cfg.driver == "pq" {
		listener = 1 // beside the pool
	}
	free := limit - used - harnessConns
	conns := min(free/nodes-listener, mostConns)
	if conns < leastConns {
		return 0, fmt.Errorf("%d nodes need %d connections, %d each, and the server has %d to spare: lower -writers and -readers, or raise its max_connections",
			nodes, nodes*(leastConns+listener), leastConns+listener, max(free, 0))
	}
	return conns, nil
}

// each does something for all nodes at once, and returns what went wrong.
func (f *fleet) each(do func(n *node) error) error {
	nodes := f.nodes()
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			if err := do(n); err != nil {
				errs[i] = fmt.Errorf("node %d: %w", n.id, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// ready waits until all nodes listen.
func (f *fleet) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return f.each(func(n *node) error { return n.cache.Ready(ctx) })
}

// stop takes the fleet down and its schema away. It says what was left behind.
func (f *fleet) stop(ctx context.Context) error {
	err := errors.Join(f.each((*node).close), f.owners.close())
	if f.db == nil {
		return err
	}
	_, drop := f.db.ExecContext(ctx, "DROP SCHEMA IF EXISTS "+strings.Join(f.schemas(), ", ")+" CASCADE")
	return errors.Join(err, drop, f.leftovers(ctx), f.db.Close())
}

// leftovers reports sessions of nodes that are still there although all was closed. The server takes a moment to notice.
func (f *fleet) leftovers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		var left int
		err := f.db.QueryRowContext(ctx, "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE $1 || ' node-%'", f.name).Scan(&left)
		if left == 0 && err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, fmt.Errorf("%d sessions of closed nodes are left on the server", left))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// withName is dsn with a name for its sessions.
func withName(dsn, name string) string { return pgserver.WithParam(dsn, "application_name", name) }

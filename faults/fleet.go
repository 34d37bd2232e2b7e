package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq" // database/sql driver "postgres"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/driver/pqdriver"
	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// spec says what a node is made of. The zero value is a pool of pgx that listens on one of its connections.
type spec struct {
	Pool      string        // "": pgx, or "pq", or "pgxpool"
	AsIs      bool          // the pool as sql.Open makes it, without limits
	Window    time.Duration // 0: the default
	Poll      bool
	Refresh   bool
	Durable   bool
	Prefix    string            // caches with different prefixes share nothing but the channel
	Channel   string            // "": its own
	Params    map[string]string // of the DSN
	Links     bool              // its connections lead through proxies
	Behind    bool              // its connections lead through the proxies that a failover turns to another server
	Child     bool              // it lives in a process of its own
	ConnLives time.Duration     // how long a connection is used; 0: for ever
}

const connsPerNode = 8

// cache is what a node can do, in this process or in another.
type cache interface {
	Get(ctx context.Context, key string) (value, bool, error)
	GetMany(ctx context.Context, keys []string) (map[string]value, error)
	GetOrSet(ctx context.Context, key string, load func(context.Context) (value, error)) (value, error)
	Set(ctx context.Context, key string, v value) error
	Delete(ctx context.Context, key string) error
	Clear(ctx context.Context) error
	Ready(ctx context.Context) error
	Close() error
}

// node is one process of a fleet: a pool, a listener and a cache of its own.
type node struct {
	id int
	spec
	cache
	keys         []*history     // those of its prefix
	own, seen    []atomic.Int64 // of every key: the newest of its own acknowledged writes, and of those that it has shown; +1
	pool, listen *testdb.Proxy  // its links
	child        *child
	victim       atomic.Bool // its links were disturbed
}

func (n *node) String() string {
	how := cmp.Or(n.Pool, "pgx")
	switch {
	case n.Poll:
		how += " poll"
	case n.Window == pgcache.Immediate:
		how += " immediate"
	case n.Window != 0:
		how += " " + n.Window.String()
	}
	return fmt.Sprintf("node %d (%s)", n.id, how)
}

// local is a cache in this process.
type local struct {
	*pgcache.Typed[value]
	c     *pgcache.Cache
	db    *sql.DB
	after func()
}

func (l *local) Get(ctx context.Context, key string) (value, bool, error) {
	return l.Typed.Get(ctx, key)
}

func (l *local) GetMany(ctx context.Context, keys []string) (map[string]value, error) {
	return l.Typed.GetMany(ctx, keys)
}

func (l *local) GetOrSet(ctx context.Context, key string, load func(context.Context) (value, error)) (value, error) {
	return l.Typed.GetOrSet(ctx, key, load)
}

func (l *local) Set(ctx context.Context, key string, v value) error { return l.Typed.Set(ctx, key, v) }
func (l *local) Delete(ctx context.Context, key string) error       { return l.c.Delete(ctx, key) }
func (l *local) Clear(ctx context.Context) error                    { return l.c.Clear(ctx) }
func (l *local) Ready(ctx context.Context) error                    { return l.c.Ready(ctx) }

func (l *local) Close() error {
	err := l.c.Close()
	l.db.Close() // lib/pq complains of connections that were dead
	l.after()
	return err
}

// where says how a node reaches its tables.
type where struct {
	Pool, Listen string // DSNs
	Schema       string
}

// open starts a cache in this process.
func (s spec) open(w where) (*local, error) {
	poolDSN, listenDSN := w.Pool, w.Listen
	for k, v := range s.Params {
		poolDSN, listenDSN = pgserver.WithParam(poolDSN, k, v), pgserver.WithParam(listenDSN, k, v)
	}
	l := &local{after: func() {}}
	var hears pgcache.Listener
	var err error
	switch s.Pool {
	case "pq":
		l.db, err = sql.Open("postgres", poolDSN)
		hears = pqdriver.Listener(listenDSN)
	case "pgxpool":
		var pool *pgxpool.Pool
		pool, err = pgxpool.New(context.Background(), pgserver.WithParam(poolDSN, "pool_max_conns", fmt.Sprint(connsPerNode)))
		if err == nil {
			l.db, l.after = stdlib.OpenDBFromPool(pool), pool.Close
			hears = pgxdriver.Listener(l.db)
		}
	default:
		l.db, err = sql.Open("pgx", poolDSN)
		if hears = pgxdriver.Listener(l.db); poolDSN != listenDSN {
			hears = pgxdriver.ListenerDSN(listenDSN)
		}
	}
	if err != nil {
		return nil, err
	}
	if s.Poll {
		hears = listener.Poll(0)
	}
	if !s.AsIs && s.Pool != "pgxpool" {
		l.db.SetMaxOpenConns(connsPerNode)
		l.db.SetMaxIdleConns(connsPerNode)
	}
	l.db.SetConnMaxLifetime(s.ConnLives)
	l.c, err = pgcache.New(l.db, pgcache.Options{
		Schema: w.Schema, Prefix: s.Prefix, Channel: s.Channel, Listener: hears, InvalidationWindow: s.Window, Refresh: s.Refresh,
		Durable: s.Durable, PrepareStatements: s.Pool == "pq", DefaultTTL: pgcache.NoExpiry, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, errors.Join(err, l.db.Close())
	}
	l.Typed = pgcache.For[value](l.c)
	return l, nil
}

// fleet is a few nodes that share nothing but a database.
type fleet struct {
	schema string // its name, and of the role that the nodes have
	dsn    string // the administrator's
	admin  *sql.DB
	nodes  []*node
	keys   []*history
	data   atomic.Pointer[sql.DB] // the administrator's, where the rows are now
	front  *testdb.Proxy          // in front of the server, for pools of nodes that are Behind it
	ears   *testdb.Proxy          // ... and for their listeners
}

// startFleet brings up a fleet on the server that dsn names. stop must be called, also after an error.
func startFleet(ctx context.Context, name, dsn string, specs []spec, keys int, quiet bool) (*fleet, error) {
	f := &fleet{schema: name, dsn: dsn}
	var err error
	if f.admin, err = sql.Open("pgx", pgserver.WithParam(dsn, "default_transaction_read_only", "off")); err != nil {
		return f, err
	}
	f.admin.SetMaxOpenConns(10)
	f.data.Store(f.admin)
	if err := f.exec(ctx, "CREATE ROLE "+name+" LOGIN", "CREATE SCHEMA "+name+" AUTHORIZATION "+name); err != nil {
		return f, err
	}
	if f.front, err = testdb.StartProxy(f.roleDSN()); err != nil {
		return f, err
	}
	if f.ears, err = testdb.StartProxy(f.roleDSN()); err != nil {
		return f, err
	}
	for i, s := range specs {
		n, err := f.start(i, s)
		if err != nil {
			return f, fmt.Errorf("start node %d: %w", i, err)
		}
		f.nodes = append(f.nodes, n)
	}
	if err := f.migrateAll(ctx); err != nil {
		return f, err
	}
	for prefix, nodes := range f.byPrefix() {
		var own []*history
		for i := range keys {
			h := &history{
				name: fmt.Sprintf("%skey-%d", prefix, i), kind: []kind{hot, cold, sourced, hot, cold, hot}[i%6], owner: nodes[i%len(nodes)],
			}
			if quiet {
				h.kind, h.owner = cold, nodes[0]
			}
			own = append(own, h)
		}
		f.keys = append(f.keys, own...)
		for _, n := range nodes {
			n.keys, n.own, n.seen = own, make([]atomic.Int64, keys), make([]atomic.Int64, keys)
		}
	}
	return f, f.each(func(n *node) error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return n.Ready(ctx)
	})
}

// roleDSN is how nodes reach the server.
func (f *fleet) roleDSN() string { return strings.Replace(f.dsn, "//pgcache@", "//"+f.schema+"@", 1) }

func (f *fleet) start(id int, s spec) (n *node, err error) {
	n = &node{id: id, spec: s}
	// Listeners of one DSN would share a connection: each node's differs.
	dsn := pgserver.WithParam(f.roleDSN(), "application_name", fmt.Sprintf("node-%d", id))
	w := where{Pool: dsn, Listen: dsn, Schema: f.schema}
	if s.Behind {
		w.Pool = f.front.DSN()
		w.Listen = pgserver.WithParam(f.ears.DSN(), "application_name", fmt.Sprintf("node-%d", id))
	}
	if s.Links {
		if n.pool, err = testdb.StartProxy(dsn); err != nil {
			return nil, err
		}
		if n.listen, err = testdb.StartProxy(dsn); err != nil {
			return nil, err
		}
		w.Pool, w.Listen = n.pool.DSN(), n.listen.DSN()
	}
	if s.Child {
		n.child, err = startChild(s, w)
		n.cache = n.child
		return n, err
	}
	n.cache, err = s.open(w)
	return n, err
}

// migrateAll makes the tables of all nodes.
func (f *fleet) migrateAll(ctx context.Context) error {
	// Some versions of the migrations need a superuser.
	err := f.exec(ctx, "ALTER ROLE "+f.schema+" SUPERUSER")
	for _, nodes := range f.byPrefix() {
		err = errors.Join(err, f.migrate(ctx, nodes[0].spec))
	}
	return errors.Join(err, f.exec(ctx, "ALTER ROLE "+f.schema+" NOSUPERUSER"))
}

// migrate makes the tables that nodes of a spec need, as the nodes' role.
func (f *fleet) migrate(ctx context.Context, s spec) error {
	s.Poll, s.Pool, s.Params = true, "", nil
	l, err := s.open(where{Pool: f.roleDSN(), Listen: f.roleDSN(), Schema: f.schema})
	if err != nil {
		return err
	}
	return errors.Join(l.c.Migrate(ctx), l.Close())
}

func (f *fleet) exec(ctx context.Context, statements ...string) error {
	for _, s := range statements {
		if _, err := f.admin.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// table is the name of one of the cache's objects.
func (f *fleet) table(name string) string {
	return f.schema + "." + f.nodes[0].Prefix + "cache_" + name
}

// each does something for all nodes at once.
func (f *fleet) each(do func(n *node) error) error {
	errs := make([]error, len(f.nodes))
	var wg sync.WaitGroup
	for i, n := range f.nodes {
		wg.Go(func() {
			if err := do(n); err != nil {
				errs[i] = fmt.Errorf("%v: %w", n, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// stop takes the fleet down and its schema and role away.
func (f *fleet) stop(ctx context.Context) error {
	err := f.each(func(n *node) error { return n.Close() })
	proxies := []*testdb.Proxy{f.front, f.ears}
	for _, n := range f.nodes {
		proxies = append(proxies, n.pool, n.listen)
	}
	for _, p := range proxies {
		if p != nil {
			p.Close()
		}
	}
	if f.admin == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	drop := f.exec(ctx, "DROP SCHEMA IF EXISTS "+f.schema+" CASCADE", "DROP ROLE IF EXISTS "+f.schema)
	return errors.Join(err, drop, f.admin.Close())
}

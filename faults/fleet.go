package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/internal/testdb"
)

// fleet is a few nodes that share nothing but a database.
type fleet struct {
	schema      string // its name, and of the role that the nodes have
	dsn         string // the administrator's
	admin       *sql.DB
	nodes       []*node
	keys        []*history
	data        atomic.Pointer[sql.DB] // the administrator's, where the rows are now
	front       *testdb.Proxy          // in front of the server, for pools of nodes that are Behind it
	listenProxy *testdb.Proxy          // ... and for their listeners
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
	if f.listenProxy, err = testdb.StartProxy(f.roleDSN()); err != nil {
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
				name: fmt.Sprintf("%skey-%d.", prefix, i), kind: []kind{hot, cold, sourced, hot, cold, hot}[i%6], owner: nodes[i%len(nodes)],
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
		w.Pool = pgserver.WithParam(f.front.DSN(), "application_name", fmt.Sprintf("node-%d", id))
		w.Listen = pgserver.WithParam(f.listenProxy.DSN(), "application_name", fmt.Sprintf("node-%d", id))
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
	var err error
	for _, nodes := range f.byPrefix() {
		err = errors.Join(err, f.migrate(ctx, nodes[0].spec))
	}
	return err
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
	proxies := []*testdb.Proxy{f.front, f.listenProxy}
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

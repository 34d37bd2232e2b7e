package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx"
	_ "github.com/lib/pq"              // database/sql driver "postgres"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/driver/pqdriver"
	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/localcache"
	"github.com/pgcache/go/pgcache"
)

// noNotifyTTL is the LocalTTL of postgres-no-notify: how stale it may be instead of listening.
const noNotifyTTL = time.Second

// postgres is pgcache with one set of options.
type postgres struct {
	name   string
	driver string // of database/sql
	listen bool
	adjust func(o *pgcache.Options, s Setup)

	servers *servers
	log     *slog.Logger
}

// postgresBackends are pgcache in several ways.
func postgresBackends(servers *servers, log *slog.Logger, window time.Duration) (out []Backend) {
	add := func(name, driver string, listen bool, adjust func(o *pgcache.Options, s Setup)) {
		out = append(out, &postgres{name, driver, listen, adjust, servers, log})
	}
	full := func(o *pgcache.Options, _ Setup) { o.InvalidationWindow = window }
	none := func(o *pgcache.Options, _ Setup) { o.Local = localcache.None() }
	add(pgCache, "pgx", true, full)
	add(pgRefresh, "pgx", true, func(o *pgcache.Options, _ Setup) {
		o.InvalidationWindow, o.Refresh = cmp.Or(window, 50*time.Millisecond), true
	})
	add(pgNoLocal, "pgx", false, none)
	add(pgNoNotify, "pgx", false, func(o *pgcache.Options, _ Setup) { o.LocalTTL = noNotifyTTL })
	add(pgPerWrite, "pgx", true, func(o *pgcache.Options, _ Setup) { o.InvalidationWindow = pgcache.Immediate })
	add(pgCachePQ, "postgres", true, full)
	add(pgNoLocPQ, "postgres", false, none)
	add(pgDefaultPool, "pgx", false, none)
	add(pgTenIdle, "pgx", false, none)
	add(pgNever, "pgx", true, full)
	add(pgFixed, "pgx", true, func(o *pgcache.Options, _ Setup) {
		o.InvalidationWindow = cmp.Or(window, pgcache.DefaultWindow)
		o.MaxWindow = o.InvalidationWindow
	})
	return out
}

func (p *postgres) Name() string { return p.name }

func (p *postgres) Open(ctx context.Context, setup Setup) (Store, error) {
	s := &pgStore{postgres: p, setup: setup, schema: newSchema()}
	s.dsn = p.servers.dsn(setup.Wire)
	cache, err := pgcache.New(p.servers.admin, pgcache.Options{Schema: s.schema, CleanupInterval: -1, Logger: p.log})
	if err != nil {
		return nil, err
	}
	return s, errors.Join(cache.Migrate(ctx), cache.Close())
}

func newSchema() string { return "bench_" + strings.ToLower(rand.Text()[:10]) }

// pgStore is a schema of its own, so that no measurement meets what another has left in the table.
type pgStore struct {
	*postgres
	setup       Setup
	schema, dsn string
	nodes       atomic.Int64
}

const (
	callerConns = 8 // of a node's pool: what its statements under way take, the listener, upkeep
	listenConns = 4 // of a node that only listens; it uses two of them
)

func (s *pgStore) OpenNode(ctx context.Context, callers int) (Node, error) {
	// A name of its own for each: Listeners of one DSN would share a connection, as they should within one process.
	dsn := pgserver.WithParam(s.dsn, "application_name", fmt.Sprintf("%s node-%d", s.schema, s.nodes.Add(1)))
	db, err := openDB(s.driver, dsn, listenConns)
	if err != nil {
		return nil, err
	}
	if callers > 0 {
		limit(db, callerConns)
	}
	if idle, ok := poolIdle[s.name]; ok {
		db.SetMaxOpenConns(0)
		db.SetMaxIdleConns(idle)
	}
	o := pgcache.Options{
		Codec: raw{}, DefaultTTL: s.setup.TTL, Schema: s.schema, Logger: s.log,
		Local:             localcache.New(localcache.Options{MaxEntries: max(4096, 2*s.setup.Keys)}),
		PrepareStatements: s.driver == "postgres",
		Timeout:           30 * time.Second, // an overloaded machine is slow, not wrong
	}
	s.adjust(&o, s.setup)
	switch {
	case s.listen && s.driver == "pgx":
		o.Listener = pgxdriver.Listener(db)
	case s.listen:
		o.Listener = pqdriver.Listener(dsn)
	}
	cache, err := pgcache.New(db, o)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	var of []pgcache.ViewOption
	if s.name == pgNever {
		of = append(of, pgcache.LocalNever())
	}
	n := &pgNode{db, cache, pgcache.For[string](cache, of...)}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := cache.Ready(ctx); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (s *pgStore) Close(ctx context.Context) error {
	_, err := s.servers.admin.ExecContext(ctx, "DROP SCHEMA IF EXISTS "+s.schema+" CASCADE")
	return err
}

// pgNode is a pool, a listener and a cache of its own.
type pgNode struct {
	db    *sql.DB
	cache *pgcache.Cache
	view  *pgcache.Typed[string]
}

func (n *pgNode) Get(ctx context.Context, key string) (string, bool, error) {
	return n.view.Get(ctx, key)
}

func (n *pgNode) Set(ctx context.Context, key, value string) error {
	return n.view.Set(ctx, key, value)
}

func (n *pgNode) Close() error { return errors.Join(n.cache.Close(), n.db.Close()) }

func (n *pgNode) Stats() Stats {
	s := n.cache.Stats()
	return Stats{s.LocalHits, s.RemoteHits, s.Misses, s.Flushes, s.Messages, s.Refreshed}
}

func openDB(driver, dsn string, conns int) (*sql.DB, error) {
	db, err := sql.Open(driver, dsn)
	if err == nil {
		limit(db, conns)
	}
	return db, err
}

// limit lets db open as many connections as it keeps.
func limit(db *sql.DB, conns int) {
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
}

// raw is the codec of values that are bytes already, which is how Redis' clients see them.
type raw struct{}

func (raw) Name() string { return "raw" }

func (raw) Marshal(v any) ([]byte, error) {
	s, ok := v.(string)
	if !ok {
		return nil, fmt.Errorf("raw: %T is not a string", v)
	}
	return []byte(s), nil
}

func (raw) Unmarshal(data []byte, v any) error {
	s, ok := v.(*string)
	if !ok {
		return fmt.Errorf("raw: %T is not a pointer to a string", v)
	}
	*s = string(data)
	return nil
}

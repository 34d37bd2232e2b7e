package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
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
	HideKeys  bool
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
	c        *pgcache.Cache
	db       *sql.DB
	recorder *recorder
	after    func() // closes what is below db
}

func (l *local) Get(ctx context.Context, key string) (value, bool, error) {
	return l.Typed.Get(ctx, key)
}

func (l *local) GetMany(ctx context.Context, keys []string) (map[string]value, error) {
	return l.Typed.GetMany(ctx, keys)
}

func (l *local) GetOrSet(ctx context.Context, key string, load func(context.Context) (value, error)) (value, error) {
	return l.Typed.GetOrSet(ctx, key, load, tagOf(key))
}

func (l *local) Set(ctx context.Context, key string, v value) error {
	return l.Typed.Set(ctx, key, v, tagOf(key))
}
func (l *local) Delete(ctx context.Context, key string) error { return l.c.Delete(ctx, key) }
func (l *local) Clear(ctx context.Context) error              { return l.c.Clear(ctx) }
func (l *local) Ready(ctx context.Context) error              { return l.c.Ready(ctx) }

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
	var lst pgcache.Listener
	var err error
	switch s.Pool {
	case "pq":
		l.db, err = sql.Open("postgres", poolDSN)
		lst = pqdriver.Listener(listenDSN)
	case "pgxpool":
		var pool *pgxpool.Pool
		pool, err = pgxpool.New(context.Background(), pgserver.WithParam(poolDSN, "pool_max_conns", fmt.Sprint(connsPerNode)))
		if err == nil {
			l.db, l.after = stdlib.OpenDBFromPool(pool), pool.Close
			lst = pgxdriver.Listener(l.db)
		}
	default:
		l.db, err = sql.Open("pgx", poolDSN)
		if lst = pgxdriver.Listener(l.db); poolDSN != listenDSN {
			lst = pgxdriver.ListenerDSN(listenDSN)
		}
	}
	if err != nil {
		return nil, err
	}
	if s.Poll {
		lst = listener.Poll(0)
	}
	l.recorder = &recorder{Listener: lst}
	if !s.AsIs && s.Pool != "pgxpool" {
		l.db.SetMaxOpenConns(connsPerNode)
		l.db.SetMaxIdleConns(connsPerNode)
	}
	l.db.SetConnMaxLifetime(s.ConnLives)
	l.c, err = pgcache.New(l.db, pgcache.Options{
		Schema: w.Schema, Prefix: s.Prefix, Channel: s.Channel, Listener: l.recorder, InvalidationWindow: s.Window, Refresh: s.Refresh,
		Durable: s.Durable, HideKeys: s.HideKeys, PrepareStatements: s.Pool == "pq", DefaultTTL: pgcache.NoExpiry, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, errors.Join(err, l.db.Close())
	}
	l.Typed = pgcache.For[value](l.c)
	return l, nil
}

// Package pools has the recipes of docs/pools.md as a program has them: each block of that page stands here word for
// word, and its tests run them against a real Postgres. It is a module of its own, so that nobody who uses the library
// meets these libraries in their go.sum.
package pools

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/XSAM/otelsql"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/driver/pqdriver"
	"github.com/pgcache/go/pgcache"
)

// App is what a program keeps: its pool, its cache, and how both end.
type App struct {
	DB    *sql.DB
	Cache *pgcache.Cache
	Close func() error
}

// Pgx is a pool of database/sql over pgx.
func Pgx(dsn string) (*App, error) {
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(20)
	db.SetMaxIdleConns(20)
	db.SetConnMaxLifetime(time.Hour)

	cache, err := pgcache.New(db, pgcache.Options{Listener: pgxdriver.Listener(db)})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &App{db, cache, func() error {
		return errors.Join(cache.Close(), db.Close()) // the cache first: it gives its connections back
	}}, nil
}

// Pq is a pool of database/sql over lib/pq.
func Pq(dsn string) (*App, error) {
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(20)
	db.SetMaxIdleConns(20) // as many: prepared statements belong to their connection

	cache, err := pgcache.New(db, pgcache.Options{
		Listener:          pqdriver.Listener(dsn), // one connection beside the pool's
		PrepareStatements: true,                   // not behind PgBouncer in transaction mode
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &App{db, cache, func() error { return errors.Join(cache.Close(), db.Close()) }}, nil
}

// Pgxpool is a *sql.DB on top of the pgxpool that a program has already.
func Pgxpool(ctx context.Context, dsn string) (*App, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	config.MaxConns = 20
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	db := stdlib.OpenDBFromPool(pool) // takes connections of pool, and keeps none of its own while idle

	cache, err := pgcache.New(db, pgcache.Options{Listener: pgxdriver.Listener(db)})
	if err != nil {
		err = errors.Join(err, db.Close())
		pool.Close()
		return nil, err
	}
	return &App{db, cache, func() error {
		err := errors.Join(cache.Close(), db.Close())
		pool.Close() // last: it waits for every connection that is out
		return err
	}}, nil
}

// Otel is a pool whose statements are traced.
func Otel(dsn string) (*App, error) {
	db, err := otelsql.Open("pgx", dsn)
	if err != nil {
		return nil, err
	}
	cache, err := pgcache.New(db, pgcache.Options{
		Listener: pgxdriver.ListenerDSN(dsn), // the wrapper hides pgx's connection, so one of its own
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &App{db, cache, func() error { return errors.Join(cache.Close(), db.Close()) }}, nil
}

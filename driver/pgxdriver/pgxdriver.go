// Package pgxdriver lets a Cache listen through pgx, version 5: on a connection of the pool (Listener), or on one of its own (ListenerDSN).
package pgxdriver

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgcache/go/internal/redact"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// Listener returns a Listener on a connection of db, which must be a pool of pgx's stdlib package: one of the
// connections that MaxOpenConns allows is taken for as long as somebody listens, and discarded afterwards, never given
// back. All Listeners of one db share it. A db that is nil or of another driver is an error of Listen.
//
// Behind a transaction pooler such as PgBouncer use ListenerDSN with a direct connection.
func Listener(db *sql.DB) pgcache.Listener {
	return listener.Shared(poolKey{db}, Dial(db), listener.Config{})
}

// ListenerDSN returns a Listener with a connection of its own to the server that dsn names, a URL or key=value pairs.
// All Listeners of one dsn share it. It is called "pgcache listener" in pg_stat_activity unless dsn says otherwise. A dsn
// that cannot be parsed is an error of Listen.
func ListenerDSN(dsn string) pgcache.Listener {
	return listener.Shared(dsnKey{sha256.Sum256([]byte(dsn))}, DialDSN(dsn), listener.Config{})
}

type (
	poolKey struct{ db *sql.DB }
	dsnKey  struct{ sum [sha256.Size]byte } // a Listener that is printed shows no password
)

// Dial is what Listener connects with, for those who want a listener.Config of their own: listener.New(pgxdriver.Dial(db), cfg). A db
// that is nil or of another driver is a Permanent error, so that Listen returns it.
func Dial(db *sql.DB) listener.Dial {
	return func(ctx context.Context, on func(channel, payload string)) (listener.Conn, error) {
		if db == nil {
			return nil, listener.Permanent(errors.New("the *sql.DB is nil"))
		}
		pooled, err := db.Conn(ctx)
		if err != nil {
			return nil, fmt.Errorf("take a connection from the pool: %w", err)
		}
		// The one way to keep database/sql from using a connection again, or from keeping it for somebody else.
		discard := func() { pooled.Raw(func(any) error { return driver.ErrBadConn }) }

		var pc *pgx.Conn
		err = pooled.Raw(func(dc any) error {
			pc, err = unwrap(dc)
			return err
		})
		if err != nil {
			pooled.Close() // untouched, so the pool can have it back
			return nil, err
		}
		c, err := start(ctx, pc.PgConn(), on, discard)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
}

// DialDSN is what ListenerDSN connects with, for those who want a listener.Config of their own: listener.New(pgxdriver.DialDSN(dsn), cfg).
// A dsn that cannot be parsed is a Permanent error, so that Listen returns it.
func DialDSN(dsn string) listener.Dial {
	return func(ctx context.Context, on func(channel, payload string)) (listener.Conn, error) {
		config, err := pgx.ParseConfig(dsn)
		if err != nil {
			return nil, listener.Permanent(redact.DSN(dsn, err))
		}
		if _, named := config.RuntimeParams["application_name"]; !named {
			config.RuntimeParams["application_name"] = "pgcache listener"
		}
		pc, err := pgx.ConnectConfig(ctx, config)
		if err != nil {
			return nil, err
		}
		c, err := start(ctx, pc.PgConn(), on, func() {})
		if err != nil {
			return nil, err
		}
		return c, nil
	}
}

// unwrap finds pgx's connection in one of database/sql. Drivers that wrap another to trace it customarily have a method
// Raw that returns the other's.
func unwrap(dc any) (*pgx.Conn, error) {
	for inner := dc; ; {
		switch c := inner.(type) {
		case interface{ Conn() *pgx.Conn }: // *stdlib.Conn
			return c.Conn(), nil
		case interface{ Raw() driver.Conn }:
			inner = c.Raw()
		default:
			return nil, listener.Permanent(fmt.Errorf("the *sql.DB is not one of pgx's stdlib: its connections are %T; "+
				"use the Listener of that driver, or ListenerDSN", dc))
		}
	}
}

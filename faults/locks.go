package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// This file has locks that others hold, and connections that they use up.

// holdTx runs a statement in a transaction that stays open. rows: it must have found some.
func holdTx(ctx context.Context, db *sql.DB, rows bool, statement string, args ...any) (func() error, error) {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		return nil, err
	}
	_, err = tx.ExecContext(ctx, "SET LOCAL lock_timeout = '3s'")
	if err == nil {
		var res sql.Result
		if res, err = tx.ExecContext(ctx, statement, args...); err == nil && rows {
			if n, _ := res.RowsAffected(); n == 0 {
				err = errors.New("there was nothing to lock")
			}
		}
	}
	if err != nil {
		return nil, errors.Join(err, tx.Rollback())
	}
	return tx.Rollback, nil
}

// lockTable locks one of the cache's tables.
func lockTable(name, mode string) fault {
	return func(ctx context.Context, r *run) (func() error, error) {
		return holdTx(ctx, r.admin, false, "LOCK TABLE "+r.table(name)+" IN "+mode+" MODE")
	}
}

// lockRow locks the row of one key.
func lockRow(ctx context.Context, r *run) (func() error, error) {
	return holdTx(ctx, r.admin, true, "SELECT FROM "+r.table("entries")+" WHERE key = $1 FOR UPDATE", some(r.keys).name)
}

// lockChanges locks what is in the change log.
func lockChanges(ctx context.Context, r *run) (func() error, error) {
	for range 200 {
		undo, err := holdTx(ctx, r.admin, true, "SELECT FROM "+r.table("changes")+" FOR UPDATE")
		if err == nil {
			return undo, nil
		}
	}
	return nil, errors.New("no row was seen in the change log")
}

// lockAll locks what a flush, a pulse and a Clear use, one after the other.
func lockAll(ctx context.Context, r *run) (func() error, error) {
	return holdTx(ctx, r.admin, false, "LOCK TABLE "+r.table("entries")+", "+r.table("changes")+", "+r.table("state")+" IN ACCESS EXCLUSIVE MODE")
}

// dumping is what a dump does: it reads all tables under one snapshot. Meanwhile somebody clears the cache.
func dumping(ctx context.Context, r *run) (func() error, error) {
	undo, err := holdTx(ctx, r.admin, false, "SELECT count(*) FROM "+r.table("entries")+", "+r.table("changes")+", "+r.table("notices")+", "+r.table("state"))
	if err != nil {
		return nil, err
	}
	if _, err := emptyBy(clearAll)(ctx, r); err != nil {
		return nil, errors.Join(err, undo())
	}
	return undo, nil
}

// takeConnections uses up all connections that the server has for ordinary roles, and ends some of the fleet's.
func takeConnections(ctx context.Context, r *run) (func() error, error) {
	var left int
	err := r.admin.QueryRowContext(ctx, `SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity WHERE usename = $1
		ORDER BY random() LIMIT 8) s`, r.schema).Scan(&left)
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("pgx", r.roleDSN())
	if err != nil {
		return nil, err
	}
	db.SetMaxIdleConns(1000)
	var held []*sql.Conn
	for len(held) < 1000 {
		conn, err := db.Conn(ctx)
		if err != nil {
			break // that was the last one
		}
		held = append(held, conn)
	}
	undo := func() error {
		for _, conn := range held {
			conn.Close()
		}
		return db.Close()
	}
	if len(held) == 0 {
		return nil, errors.Join(errors.New("no connection was left to be taken"), undo())
	}
	return undo, nil
}

// fillPools has all pools make the connections that they may have, as after busy hours.
func (r *run) fillPools(ctx context.Context) error {
	return r.each(func(n *node) error {
		l, ok := n.cache.(*local)
		if !ok {
			return nil
		}
		for range connsPerNode - 1 { // a listener may have one
			conn, err := l.db.Conn(ctx)
			if err != nil {
				return err
			}
			defer conn.Close()
		}
		return nil
	})
}

// takePool holds all connections of a node's pool.
func takePool(ctx context.Context, r *run) (func() error, error) {
	l, ok := some(r.fleet.nodes).cache.(*local)
	if !ok {
		return nil, errors.New("the node lives elsewhere")
	}
	var held []*sql.Conn
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for {
		conn, err := l.db.Conn(ctx)
		if err != nil {
			break
		}
		held = append(held, conn)
	}
	return func() error {
		for _, conn := range held {
			if err := conn.Close(); err != nil {
				return fmt.Errorf("give a connection back: %w", err)
			}
		}
		return nil
	}, nil
}

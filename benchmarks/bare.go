package main

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// bare is the yardstick of the lines with one caller: a table, a prepared SELECT and a prepared upsert, through the same
// database/sql and driver as pgcache. What pgcache takes longer is its own.
type bare struct{ servers *servers }

func (bare) Name() string { return pgBare }

func (b bare) Open(ctx context.Context, s Setup) (Store, error) {
	store := &bareStore{b.servers, s, newSchema()}
	for _, stmt := range []string{
		"CREATE SCHEMA " + store.schema,
		"CREATE UNLOGGED TABLE " + store.table() + ` (key text COLLATE "C" PRIMARY KEY, value bytea, version bigint NOT NULL,
			expires_at timestamptz) WITH (fillfactor = 75)`,
	} {
		if _, err := b.servers.admin.ExecContext(ctx, stmt); err != nil {
			return nil, errors.Join(err, store.Close(ctx))
		}
	}
	return store, nil
}

type bareStore struct {
	servers *servers
	setup   Setup
	schema  string
}

func (s *bareStore) table() string { return s.schema + ".entries" }

func (s *bareStore) Close(ctx context.Context) error {
	_, err := s.servers.admin.ExecContext(ctx, "DROP SCHEMA IF EXISTS "+s.schema+" CASCADE")
	return err
}

func (s *bareStore) OpenNode(ctx context.Context, callers int) (Node, error) {
	db, err := openDB("pgx", s.servers.dsn(s.setup.Wire), max(callers, 1))
	if err != nil {
		return nil, err
	}
	n := &bareNode{db: db, ttl: s.setup.TTL}
	n.get, err = db.PrepareContext(ctx, "SELECT value FROM "+s.table()+" WHERE key = $1")
	if err == nil {
		n.set, err = db.PrepareContext(ctx, "INSERT INTO "+s.table()+` AS c (key, value, version, expires_at)
			VALUES ($1, $2, $3, clock_timestamp() + $4::bigint * interval '1 microsecond')
			ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, version = EXCLUDED.version, expires_at = EXCLUDED.expires_at`)
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

type bareNode struct {
	db       *sql.DB
	get, set *sql.Stmt
	ttl      time.Duration
}

func (n *bareNode) Get(ctx context.Context, key string) (string, bool, error) {
	var value []byte
	err := n.get.QueryRowContext(ctx, key).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	return string(value), err == nil, err
}

func (n *bareNode) Set(ctx context.Context, key, value string) error {
	_, err := n.set.ExecContext(ctx, key, []byte(value), int64(1), n.ttl.Microseconds())
	return err
}

func (n *bareNode) Stats() Stats { return Stats{} }

func (n *bareNode) Close() error {
	var err error
	for _, s := range []*sql.Stmt{n.get, n.set} {
		if s != nil {
			err = errors.Join(err, s.Close())
		}
	}
	return errors.Join(err, n.db.Close())
}

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pgcache/go/internal/pgserver"
)

var txBackends = []string{noCache, pgCache, pgBare, valkey}

var txShape = shape{
	name: "tx",
	about: "A business transaction, durable as the server's settings have it: it changes the balance of one of 10,000 accounts and inserts an order. " +
		"Without a cache; with a Set and a Delete of pgcache in it (WithTx), which are published when it commits; with two upserts of a table of key and value " +
		"in it; with a SET and a DEL of Redis after its commit, which are lost if the process dies in between. Two nodes listen.",
	backends: txBackends,
	columns: []column{
		ops("transactions/s", "write.ops"), ms("mean", "write.mean_us"), ms("p50", "write.p50_us"), ms("p95", "write.p95_us"), ms("p99", "write.p99_us"), cpuColumn,
	},
	plan: func(b *bench) (p plan) {
		for _, n := range []int{1, b.cfg.sizes.txCallers} {
			line := fmt.Sprintf("%d callers", n)
			if n == 1 {
				line = "1 caller"
			}
			for _, name := range txBackends {
				be := b.backend(name)
				if name == noCache && b.wants(name) {
					be = nothing{}
				}
				if be == nil {
					continue
				}
				p.steps = append(p.steps, step{line + ", " + name, b.cfg.duration + b.cfg.warmup + time.Second, func(ctx context.Context) ([]Sample, error) {
					m, err := b.tx(ctx, be, n)
					return []Sample{{Line: line, Backend: name, Metrics: m}}, err
				}})
			}
		}
		return p
	},
}

func (b *bench) tx(ctx context.Context, be Backend, callers int) (m metrics, err error) {
	const accounts = 10_000
	schema := newSchema()
	db, err := openDB("pgx", pgserver.WithParam(b.servers.pg.DSN, "search_path", schema), callers)
	if err != nil {
		return nil, err
	}
	defer func() {
		_, dropped := b.servers.admin.ExecContext(context.WithoutCancel(ctx), "DROP SCHEMA IF EXISTS "+schema+" CASCADE")
		err = errors.Join(err, db.Close(), dropped)
	}()
	for _, statement := range []string{
		"CREATE SCHEMA " + schema,
		"CREATE TABLE " + schema + ".accounts (id int PRIMARY KEY, balance bigint NOT NULL) WITH (fillfactor = 75)",
		"CREATE TABLE " + schema + ".orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account int NOT NULL, amount bigint NOT NULL, at timestamptz NOT NULL DEFAULT now())",
		fmt.Sprintf("INSERT INTO %s.accounts SELECT i, 0 FROM generate_series(0, %d) i", schema, accounts-1),
		"VACUUM ANALYZE " + schema + ".accounts",
	} {
		if _, err := b.servers.admin.ExecContext(ctx, statement); err != nil {
			return nil, err
		}
	}
	return with(ctx, be, Setup{TTL: hour, Keys: 2 * accounts}, []int{callers, 0}, func(f *fleet) (metrics, error) {
		n := &txNode{db: db, bare: be.Name() == pgBare}
		if be.Name() != noCache {
			n.cache = f.nodes[0]
			if err := b.preload(ctx, f.nodes[:1], keys(2*accounts)); err != nil {
				return nil, err
			}
		}
		if s, ok := f.store.(*bareStore); ok {
			n.table = s.table()
		}
		value := stamp{}.value(b.cfg.valueBytes)
		return b.drive(ctx, []Node{n}, callers, func(ctx context.Context, c *caller) (kind, error) {
			// The account's row is locked first: no two transactions meet the keys in different orders.
			return writing, n.order(ctx, c.rand.IntN(accounts), value)
		})
	})
}

// txNode does business transactions, with its cache, if it has one.
type txNode struct {
	nothingNode
	db    *sql.DB
	cache Node
	bare  bool
	table string // of a bareStore
}

func (n *txNode) order(ctx context.Context, account int, value string) error {
	tx, err := n.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a Commit it does nothing, before one the first error counts
	if _, err := tx.ExecContext(ctx, "UPDATE accounts SET balance = balance + $1 WHERE id = $2", 1, account); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO orders (account, amount) VALUES ($1, $2)", account, 1); err != nil {
		return err
	}
	one, other := key(2*account), key(2*account+1)
	if c, ok := n.cache.(*pgNode); ok {
		if err := errors.Join(c.view.WithTx(tx).Set(ctx, one, value), c.view.WithTx(tx).Delete(ctx, other)); err != nil {
			return err
		}
	}
	if n.bare {
		upsert := "INSERT INTO " + n.table + " (key, value, version) VALUES ($1, $2, 1) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value"
		for _, key := range []string{one, other} {
			if _, err := tx.ExecContext(ctx, upsert, key, []byte(value)); err != nil {
				return err
			}
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	if c, ok := n.cache.(*goRedisNode); ok {
		return errors.Join(c.Set(ctx, one, value), c.client.Del(ctx, other).Err())
	}
	return nil
}

// nothing is no cache at all.
type nothing struct{}

func (nothing) Name() string                                { return noCache }
func (nothing) Open(context.Context, Setup) (Store, error)  { return nothing{}, nil }
func (nothing) OpenNode(context.Context, int) (Node, error) { return nothingNode{}, nil }
func (nothing) Close(context.Context) error                 { return nil }

type nothingNode struct{}

func (nothingNode) Get(context.Context, string) (string, bool, error) { return "", false, nil }
func (nothingNode) Set(context.Context, string, string) error         { return nil }
func (nothingNode) Stats() Stats                                      { return Stats{} }
func (nothingNode) Close() error                                      { return nil }

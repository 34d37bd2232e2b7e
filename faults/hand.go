package main

import (
	"context"
	"fmt"
	"math/rand/v2"
)

// This file has what others do to the rows: by hand, or from another service.

type handler = func(ctx context.Context, r *run, h *history, n int) error

// byHand writes rows in all the ways that occur to somebody with psql. setup comes first in the same transaction.
func byHand(setup string) handler {
	return func(ctx context.Context, r *run, h *history, n int) error {
		tx, err := r.admin.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback() //nolint:errcheck // it is committed, or there is another error
		if setup != "" {
			if _, err := tx.ExecContext(ctx, setup); err != nil {
				return err
			}
		}
		do := func(statement string, args ...any) (int64, error) {
			res, err := tx.ExecContext(ctx, fmt.Sprintf(statement, r.table("entries")), args...)
			if err != nil {
				return 0, err
			}
			return res.RowsAffected()
		}
		var done int64
		if w := h.writes[n]; w.gone || h.kind == sourced {
			done, err = do("DELETE FROM %s WHERE key = $1", h.name)
			if err == nil && done == 0 && h.kind == sourced {
				// There was nothing that a loader under way could be distinguished from: whoever needs that calls cache_delete.
				_, err = tx.ExecContext(ctx, "SELECT "+r.table("delete")+"($1)", h.name)
			}
		} else {
			data := h.value(n).encoded()
			switch rand.N(6) {
			case 0:
				done, err = do("UPDATE %s SET value = $2, expires_at = NULL, codec = 'json' WHERE key = $1", h.name, data)
			case 1:
				done, err = do("UPDATE %s SET value = $2, version = version + 1, expires_at = NULL, codec = 'json' WHERE key = $1", h.name, data)
			case 2:
				done, err = do("UPDATE %s SET value = $2, version = 0, expires_at = NULL, codec = 'json' WHERE key = $1", h.name, data)
			case 3:
				if _, err = do("DELETE FROM %s WHERE key = $1", h.name); err == nil {
					_, err = do("UPDATE %s SET value = $2, expires_at = NULL, codec = 'json' WHERE key = $1", h.name, data)
				}
			case 4:
				_, err = tx.ExecContext(ctx, "SELECT "+r.table("set")+"($1, $2)", h.name, data)
				done = 1
			}
			if err == nil && done == 0 { // the natural upsert of another service
				_, err = do(`INSERT INTO %s AS c (key, value, version) VALUES ($1, $2, $3) ON CONFLICT (key) DO UPDATE
					SET value = EXCLUDED.value, version = EXCLUDED.version, expires_at = NULL, codec = 'json'`, h.name, data, rand.N(3))
			}
		}
		if err != nil {
			return err
		}
		return tx.Commit()
	}
}

// empty removes all rows in some way. The sources of keys that are loaded change before, as with a Delete.
func empty(how func(ctx context.Context) error) fault {
	return emptyBy(func(ctx context.Context, _ *run) error { return how(ctx) })
}

func emptyBy(how func(ctx context.Context, r *run) error) fault {
	return func(ctx context.Context, r *run) (func() error, error) {
		numbers := map[*history]int{}
		for _, h := range r.keys {
			if h.kind == sourced {
				h.writing.Lock()
				defer h.writing.Unlock()
				numbers[h] = h.begin(false)
			}
		}
		done := r.wipe()
		if err := how(ctx, r); err != nil {
			return nil, err
		}
		done(true)
		for h, n := range numbers {
			h.done(n)
		}
		return nil, nil
	}
}

func truncate(ctx context.Context, r *run) error {
	return r.exec(ctx, "TRUNCATE "+r.table("entries"))
}

// deleteAll also calls cache_delete for keys that had no row. The DELETE did not see them, as a loader that stores meanwhile inserts them:
//
//	loader: reads the source (v0)             stores v0
//	source: v1    DELETE: snapshot, no row               COMMIT
func deleteAll(ctx context.Context, r *run) error {
	tx, err := r.admin.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // it is committed, or there is another error
	rows, err := tx.QueryContext(ctx, "DELETE FROM "+r.table("entries")+" RETURNING key")
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // rows.Err has said it
	deleted := map[string]bool{}
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return err
		}
		deleted[key] = true
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, h := range r.keys {
		if h.kind == sourced && !deleted[h.name] {
			if _, err := tx.ExecContext(ctx, "SELECT "+r.table("delete")+"($1)", h.name); err != nil {
				return err
			}
		}
	}
	return tx.Commit()
}

func clearAll(ctx context.Context, r *run) error { return some(r.fleet.nodes).Clear(ctx) }

// anew drops the cache's tables and has them made again.
func anew(ctx context.Context, r *run) error {
	if err := r.exec(ctx, "DROP SCHEMA "+r.schema+" CASCADE", "CREATE SCHEMA "+r.schema+" AUTHORIZATION "+r.schema); err != nil {
		return err
	}
	return r.migrateAll(ctx)
}

// both does one after the other. Neither has anything to undo.
func both(first, second fault) fault {
	return func(ctx context.Context, r *run) (func() error, error) {
		if _, err := first(ctx, r); err != nil {
			return nil, err
		}
		return second(ctx, r)
	}
}

// rewrite runs a statement on the table of entries.
func rewrite(statement string) fault {
	return func(ctx context.Context, r *run) (func() error, error) {
		return nil, r.exec(ctx, fmt.Sprintf(statement, r.table("entries")))
	}
}

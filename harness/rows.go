package main

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/pgcache/go/internal/shardmap"
)

// judgeRows judges the table: what is in it must never be older than the last acknowledged write, whoever stored it. Of shards, it
// is the row of the shard that has the key, all seen at one moment.
func (f *fleet) judgeRows(ctx context.Context, judged *int) error {
	r := read{node: table, op: "SELECT", start: clock(), down: true}
	tx, err := f.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // it has read
	owner, err := f.recordedOwner(ctx, tx)
	if err != nil {
		return err
	}
	found := map[string]value{}
	for i, schema := range f.schemas() {
		if err := f.rows(ctx, tx, schema, func(key string, v value) {
			if owner(key) == i {
				found[key] = v
			}
		}); err != nil {
			return err
		}
	}
	r.end = clock()
	for _, h := range f.keys {
		r.value, r.found = found[h.name], false
		_, r.found = found[h.name]
		if verdict := h.judge(r); verdict.breach != nil {
			f.book.breach(verdict.breach)
		} else if r.found {
			h.saw(r.value.N, r.start, r.end)
		}
		*judged++
	}
	return nil
}

// rows are the values in the table of one schema.
func (f *fleet) rows(ctx context.Context, tx *sql.Tx, schema string, each func(key string, v value)) error {
	rows, err := tx.QueryContext(ctx, `SELECT key, value FROM `+schema+`.cache_entries
		WHERE value IS NOT NULL AND codec <> '!none' AND NOT `+schema+`.cache_dead(key, tags, seen)
			AND (expires_at IS NULL OR expires_at > clock_timestamp()) AND NOT starts_with(key, 'counter:')`)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // rows.Err has said it
	for rows.Next() {
		var key string
		var data []byte
		var v value
		if err := rows.Scan(&key, &data); err != nil {
			return err
		}
		if err := f.codec().Unmarshal(data, &v); err != nil {
			return fmt.Errorf("the row of %q does not decode: %w", key, err)
		}
		each(key, v)
	}
	return rows.Err()
}

// recordedOwner says which shard has a key, by the map in force of the latest state that a server has recorded. While keys move that is
// the map before: these rows are read until all nodes have followed the step, and every write deletes there too.
func (f *fleet) recordedOwner(ctx context.Context, tx *sql.Tx) (owner func(key string) int, err error) {
	if f.cfg.shards == 0 {
		return func(string) int { return 0 }, nil
	}
	latest, names := int64(-1), []string(nil)
	for _, schema := range f.schemas() {
		var epoch int64
		var text string
		if err := tx.QueryRowContext(ctx, "SELECT shard_epoch, shard_map FROM "+schema+".cache_state").Scan(&epoch, &text); err != nil {
			return nil, err
		}
		if epoch > latest {
			if names, err = shardmap.Parse(text); err != nil {
				return nil, err
			}
			latest = epoch
		}
	}
	s, err := f.owners.of(names)
	return func(key string) int { return shardNumber(s.Owner(key)) }, err
}

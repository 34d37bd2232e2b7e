package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"

	"github.com/pgcache/go/pgcache"
)

// updateEvery is how often somebody changes a row of the watched table.
const updateEvery = 30 * time.Millisecond

// watchTable makes the table from which watched keys are loaded, and has it watched.
func (f *fleet) watchTable(ctx context.Context) error {
	_, err := f.db.ExecContext(ctx, "CREATE TABLE "+f.source()+" (id text PRIMARY KEY, n int NOT NULL)")
	if err != nil {
		return err
	}
	for _, key := range f.of(fromTable, nil) {
		h := f.keys[key]
		n := h.begin(somebody, false, 0)
		if _, err := f.db.ExecContext(ctx, "INSERT INTO "+f.source()+" VALUES ($1, $2)", bare(h.name), n); err != nil {
			return err
		}
		h.done(n)
	}
	return f.writers[0].single.WatchTable(ctx, pgcache.TableWatch{Table: f.source(), Keys: []string{"watched:{id}"}, Tags: []string{"row:{id}"}})
}

func (f *fleet) source() string { return f.name + ".harness_source" }

// updateSource changes some rows of the watched table in one transaction, as somebody does who knows of no cache.
func (f *fleet) updateSource(ctx context.Context) error {
	keys := f.of(fromTable, func(k int) bool { return k < f.plantedAt && !f.resting(k) })
	rand.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	keys = keys[:min(len(keys), 1+rand.N(2))]
	if len(keys) == 0 {
		return nil
	}
	tx, err := f.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // it is over, or there is another error
	numbers := make([]int, len(keys))
	for i, key := range keys {
		numbers[i] = f.keys[key].prepare(somebody, false, clock())
		if _, err := tx.ExecContext(ctx, "UPDATE "+f.source()+" SET n = $2 WHERE id = $1", bare(f.keys[key].name), numbers[i]); err != nil {
			return err
		}
	}
	time.Sleep(rand.N(10 * time.Millisecond))
	if rand.N(4) == 0 {
		return tx.Rollback()
	}
	for i, key := range keys {
		f.keys[key].start(numbers[i])
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	for i, key := range keys {
		f.keys[key].done(numbers[i])
	}
	f.activity.updates.Add(1)
	return nil
}

// loadWatched is a GetOrSet whose loader reads the watched table.
func (w *worker) loadWatched(ctx context.Context, key int) {
	h := w.keys[key]
	w.read("GetOrSet", []int{key}, func() (map[int]value, error) {
		v, err := w.typed.GetOrSet(ctx, h.name, func(ctx context.Context) (v value, err error) {
			var n int
			if err := w.parts[0].db.QueryRowContext(ctx, "SELECT n FROM "+w.source()+" WHERE id = $1", bare(h.name)).Scan(&n); err != nil {
				return v, fmt.Errorf("the loader: %w", err)
			}
			v = h.loadedAs(n)
			time.Sleep(rand.N(15 * time.Millisecond))
			return v, nil
		}, pgcache.TTL(pgcache.NoExpiry), pgcache.Tags("row:"+bare(h.name)))
		return map[int]value{key: v}, err
	})
}

// serialization says that a transaction under REPEATABLE READ met another, which is nobody's fault.
func serialization(err error) bool {
	var a *pgconn.PgError
	var b *pq.Error
	return errors.As(err, &a) && strings.HasPrefix(a.Code, "40") || errors.As(err, &b) && strings.HasPrefix(string(b.Code), "40")
}

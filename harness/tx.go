package main

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pgcache/go/pgcache"
)

// inTx writes in a transaction, which commits or is rolled back.
func (w *worker) inTx(ctx context.Context) {
	mine := w.of(grouped, func(k int) bool { return k < w.plantedAt && w.ownsMore(k) && !w.resting(k) })
	rand.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
	mine = mine[:min(len(mine), 1+rand.N(3))]
	slices.Sort(mine)
	removed := rand.N(3 * teams)
	if removed < teams && w.restingTeam(removed) || removed >= teams && len(mine) == 0 {
		return
	}
	level := []sql.IsolationLevel{sql.LevelDefault, sql.LevelRepeatableRead}[rand.N(2)]
	snapshot := clock()
	tx, err := w.parts[0].db.BeginTx(ctx, &sql.TxOptions{Isolation: level})
	if err != nil {
		w.book.fail(err)
		return
	}
	defer tx.Rollback() //nolint:errcheck // it is over, or there is another error
	x := pgcache.For[value](w.single).WithTx(tx)
	var keys, numbers []int
	note := func(key int, gone bool) int {
		if level == sql.LevelDefault {
			snapshot = clock() // of each statement
		}
		n := w.keys[key].prepare(w.id, gone, snapshot)
		keys, numbers = append(keys, key), append(numbers, n)
		return n
	}
	err = func() error {
		if removed < teams {
			for _, k := range w.of(grouped, func(k int) bool { return w.keys[k].team == removed && !slices.Contains(mine, k) }) {
				note(k, true)
			}
			if err := x.DeleteTags(ctx, teamTag(removed)); err != nil {
				return err
			}
		}
		for _, k := range mine {
			h, gone := w.keys[k], rand.N(4) == 0
			n := note(k, gone)
			if gone {
				err = x.Delete(ctx, h.name)
			} else {
				err = x.Set(ctx, h.name, h.valueOf(n), pgcache.TTL(pgcache.NoExpiry), tagsOf(h))
			}
			if err != nil {
				return err
			}
			v, found, err := x.Get(ctx, h.name)
			if err != nil {
				return err
			}
			// A removal that commits meanwhile is about what has not seen it, in its own transaction too.
			removable := level == sql.LevelDefault && !gone
			if found == gone && !removable || found && v != h.valueOf(n) {
				w.book.breach(h.breach("P8", read{node: w.id, op: "Get in the transaction", found: found, value: v}, "what the transaction has written"))
			}
			w.get(ctx, k) // outside of it: as before
		}
		return nil
	}()
	if err != nil {
		if !serialization(err) {
			w.book.fail(fmt.Errorf("node %d: in a transaction: %w", w.id, err))
		}
		return
	}
	time.Sleep(rand.N(20 * time.Millisecond))
	if rand.N(3) == 0 {
		if err := tx.Rollback(); err != nil {
			w.book.fail(err)
		}
		w.activity.rollbacks.Add(1)
	} else {
		for i, k := range keys {
			w.keys[k].start(numbers[i])
		}
		w.write(keys, numbers, tx.Commit)
		w.activity.commits.Add(1)
	}
	for _, k := range keys { // the moment that it is over
		w.get(ctx, k)
	}
}

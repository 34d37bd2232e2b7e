package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/pgcache"
)

// Every scenario also removes keys by their groups and writes them in transactions, of which some are rolled back.

// tagOf is a group of one key, and prefixOf another.
func tagOf(key string) pgcache.Option { return pgcache.Tags("of " + key) }

// rolledBack is added to the numbers of what is never committed.
const rolledBack = 1_000_000_000

// txTimeout bounds a transaction: its statements wait for rows as long as they may.
const txTimeout = 10 * time.Second

// remove removes a key in one of the ways that there are. Rows written by hand have no tags.
func (r *run) remove(ctx context.Context, h *history) (name string, err error) {
	l, here := h.owner.cache.(*local)
	dice := rand.N(4)
	switch {
	case here && dice == 0:
		return "DeletePrefix", l.c.DeletePrefix(ctx, h.name)
	case here && dice == 1 && r.hand == nil:
		return "DeleteTags", l.c.DeleteTags(ctx, "of "+h.name)
	}
	return "Delete", h.owner.Delete(ctx, h.name)
}

// set stores a value, in a transaction or not.
func (r *run) set(ctx context.Context, h *history, n int) (name string, err error) {
	l, here := h.owner.cache.(*local)
	if !here || rand.N(4) > 0 {
		return "Set", h.owner.Set(ctx, h.name, h.value(n))
	}
	if rand.N(3) == 0 {
		// Whatever comes of it, it must leave no trace.
		_ = l.inTx(ctx, h.name, h.value(rolledBack+n), false)
	}
	for range 10 {
		// Who locks several tables may meet a transaction that has used one of them: the server ends one of the two, and whoever has
		// transactions tries those again.
		if err = l.inTx(ctx, h.name, h.value(n), true); err == nil || !strings.HasPrefix(sqlerr.State(err), "40") {
			break
		}
	}
	return "Set in a transaction", err
}

// inTx removes a key by its tag and stores a value in a transaction.
func (l *local) inTx(ctx context.Context, key string, v value, commit bool) error {
	ctx, cancel := context.WithTimeout(ctx, txTimeout)
	defer cancel()
	tx, err := l.db.BeginTx(ctx, nil)
	for i := 0; err != nil && i < 2*connsPerNode && ctx.Err() == nil; i++ { // connections of the pool have died while they were idle
		tx, err = l.db.BeginTx(ctx, nil)
	}
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // it is committed, or there is another error
	x := l.WithTx(tx)
	if rand.N(2) == 0 {
		if err := x.DeleteTags(ctx, "of "+key); err != nil {
			return err
		}
	}
	if err := x.Set(ctx, key, v, tagOf(key)); err != nil {
		return err
	}
	if got, found, err := x.Get(ctx, key); err != nil || !found || got != v {
		return fmt.Errorf("the transaction does not see what it has written: %d, %v, %w", got.N, found, err)
	}
	if !commit {
		return tx.Rollback()
	}
	return tx.Commit()
}

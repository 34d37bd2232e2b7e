package pgcache

import (
	"cmp"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"time"

	"github.com/pgcache/go/internal/store"
)

// Cleanup removes one batch of expired rows, at most CleanupBatch, and returns how many: call it until it returns 0. It publishes nothing: an entry
// in memory never outlives its row. There is no need to call it while the janitor runs. Loads that have begun are fenced
// where it removes what expired in the last minutes: their values are handed out but not stored.
func (c *Cache) Cleanup(ctx context.Context) (int64, error) {
	if c.null {
		return 0, c.closedErr("cleanup")
	}
	if err := c.check(ctx); err != nil {
		return 0, fail("cleanup", "", err)
	}
	// What was fenced by an earlier call, which found more than a batch.
	if until := c.fencedUntil.Load(); until != 0 {
		n, err := c.remove(ctx, until, true)
		if err != nil || n > 0 {
			return n, fail("cleanup", "", err)
		}
		c.fencedUntil.CompareAndSwap(until, 0)
	}
	statement, cancel := c.statement(ctx)
	defer cancel()
	if err := c.store.NoteEnded(statement, tombstoneGrace); err != nil {
		return 0, fail("cleanup", "", c.explain(ctx, err))
	}
	// What no load can need any more: that takes no fence.
	until, err := c.store.Ago(statement, tombstoneGrace)
	if err != nil {
		return 0, fail("cleanup", "", c.explain(ctx, err))
	}
	n, err := c.remove(ctx, until, false)
	if err != nil || n > 0 {
		return n, fail("cleanup", "", err)
	}
	until, fenced, err := c.store.FenceExpired(statement, tombstoneGrace)
	if err != nil {
		return 0, fail("cleanup", "", c.explain(ctx, err))
	}
	if !fenced {
		return 0, nil
	}
	n, err = c.remove(ctx, until, true)
	if n > 0 {
		c.fencedUntil.Store(until)
	}
	return n, fail("cleanup", "", err)
}

// remove removes one batch of the rows that had expired by until. It begins where the last call ended, and goes round the
// table once at the most.
func (c *Cache) remove(ctx context.Context, until int64, fenced bool) (int64, error) {
	statement, cancel := c.statement(ctx)
	blocks, err := c.store.Blocks(statement)
	cancel()
	if err != nil {
		return 0, c.explain(ctx, err)
	}
	for looked := int64(0); looked < blocks+store.ExpireBlocks; looked += store.ExpireBlocks {
		first := c.block.Load()
		if first >= blocks {
			first = 0
		}
		n, err := c.expire(ctx, first, until, fenced)
		if err != nil || n > 0 {
			c.block.Store(first)
			return n, err
		}
		c.block.Store(first + store.ExpireBlocks)
	}
	return 0, nil
}

// expire removes one batch from some blocks.
func (c *Cache) expire(ctx context.Context, first, until int64, fenced bool) (int64, error) {
	statement, cancel := c.statement(ctx)
	defer cancel()
	n, err := c.store.Expire(statement, first, until, c.opts.CleanupBatch, fenced)
	if err != nil {
		return 0, c.explain(ctx, err)
	}
	c.stats.cleaned.Add(uint64(n))
	return n, nil
}

// janitor removes expired rows once per interval in the whole fleet: the node that claims the interval does it. It
// leaves a row for as long as a loader may run that began before it expired, so that the loader's store still meets it.
func (c *Cache) janitor() {
	for {
		// Jitter, so that nodes started together don't ask together for ever.
		interval := c.opts.CleanupInterval
		timer := time.NewTimer(interval/2 + rand.N(interval/2+1))
		select {
		case <-timer.C:
		case <-c.ctx.Done():
			timer.Stop()
			return
		}
		if err := c.sweep(); err != nil && c.ctx.Err() == nil {
			c.warn("expired rows were not removed", "error", err)
		}
	}
}

// keepNotices is how long a message can be read by nodes that poll.
const keepNotices = 5 * time.Minute

// sweep does the janitor's work, if it is this node's turn. What goes through the whole table may take until the next sweep;
// every other statement has the Timeout, as everywhere.
func (c *Cache) sweep() (err error) {
	ctx, cancel := context.WithTimeout(c.ctx, max(c.opts.CleanupInterval, c.opts.Timeout))
	defer cancel()
	defer c.upkeep(&ctx, "sweep").end(nil, &err)
	if err := c.check(ctx); err != nil {
		return err
	}
	mine, err := bounded(ctx, c, func(ctx context.Context) (bool, error) {
		return c.store.ClaimSweep(ctx, c.opts.CleanupInterval/2)
	})
	if err != nil || !mine {
		return err
	}
	_, ended := bounded(ctx, c, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, c.store.NoteEnded(ctx, tombstoneGrace)
	})
	// Each for itself: a table that takes long to go through keeps nobody from the rest.
	_, notices := bounded(ctx, c, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, c.store.DeleteNotices(ctx, c.db, keepNotices)
	})
	_, leases := bounded(ctx, c, func(ctx context.Context) (int64, error) { return c.store.DropLeases(ctx, c.opts.CleanupBatch) })
	return errors.Join(ended, notices, leases, c.expireAll(ctx), c.buryAll(ctx), c.trim(ctx))
}

// bounded sends one statement with the Timeout.
func bounded[T any](ctx context.Context, c *Cache, send func(context.Context) (T, error)) (T, error) {
	ctx, cancel := c.statement(ctx)
	defer cancel()
	return send(ctx)
}

// expireAll goes through the table once.
func (c *Cache) expireAll(ctx context.Context) error {
	until, err := bounded(ctx, c, func(ctx context.Context) (int64, error) { return c.store.Ago(ctx, tombstoneGrace) })
	if err != nil {
		return err
	}
	blocks, err := bounded(ctx, c, c.store.Blocks)
	if err != nil {
		return err
	}
	for first := int64(0); first < blocks && ctx.Err() == nil; {
		n, err := c.expire(ctx, first, until, false)
		if err != nil {
			return err
		}
		if n < int64(c.opts.CleanupBatch) {
			first += store.ExpireBlocks
		}
	}
	return nil
}

// buryAll goes through the table once for the rows of removed groups, if there are records of removals that are to be retired. A
// record is retired when a whole pass that began after everybody who writes has seen it has left no row behind: a row that was
// dead by it would be back.
//
//	pass: block 7, no dead row      a Set that has not seen the record commits in block 7      the record goes      it is back
//
// so the pass begins after the last transaction has ended that could write like that.
func (c *Cache) buryAll(ctx context.Context) error {
	ended, err := bounded(ctx, c, c.store.Retiring)
	if err != nil || ended == "0" {
		return err
	}
	blocks, err := bounded(ctx, c, c.store.Blocks)
	if err != nil {
		return err
	}
	clean := true
	for first := int64(0); first < blocks && ctx.Err() == nil; {
		var left int64
		n, err := bounded(ctx, c, func(ctx context.Context) (n int64, err error) {
			n, left, err = c.store.Bury(ctx, first, c.opts.CleanupBatch)
			return n, err
		})
		if err != nil {
			return err
		}
		c.stats.cleaned.Add(uint64(n))
		clean = clean && left == 0
		if n+left < int64(c.opts.CleanupBatch) || n == 0 {
			clean = clean && n+left < int64(c.opts.CleanupBatch)
			first += store.ExpireBlocks
		}
	}
	for clean && ctx.Err() == nil {
		n, err := bounded(ctx, c, func(ctx context.Context) (int64, error) { return c.store.Retire(ctx, ended, c.opts.CleanupBatch) })
		if err != nil || n < int64(c.opts.CleanupBatch) {
			return err
		}
	}
	return nil
}

// trim keeps the table to its bounds.
func (c *Cache) trim(ctx context.Context) error {
	if c.opts.MaxRows == 0 && c.opts.MaxBytes == 0 {
		return nil
	}
	maxRows, maxBytes := cmp.Or(c.opts.MaxRows, math.MaxInt64), cmp.Or(c.opts.MaxBytes, math.MaxInt64)
	rows, bytes, err := c.store.Size(ctx)
	if err != nil || (rows <= maxRows && bytes <= maxBytes) {
		return err
	}
	point, err := c.store.TrimPoint(ctx, maxRows, maxBytes)
	if err != nil || point == 0 {
		return err
	}
	// What goes may have been written while a load was under way.
	if fenced, err := bounded(ctx, c, c.store.Fence); err != nil || !fenced {
		return err
	}
	for ctx.Err() == nil {
		n, err := bounded(ctx, c, func(ctx context.Context) (int64, error) { return c.store.Trim(ctx, point, c.opts.CleanupBatch) })
		if err != nil {
			return err
		}
		c.stats.cleaned.Add(uint64(n))
		if n < int64(c.opts.CleanupBatch) {
			break
		}
	}
	return c.window.FlushNow(ctx) // what went may be in somebody's memory
}

package pgcache

import (
	"cmp"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"time"

	"github.com/pgcache/go/internal/panics"
	"github.com/pgcache/go/internal/store"
)

// Cleanup removes one batch of expired rows, at most CleanupBatch, and returns how many: call it until it returns 0. It publishes
// nothing: an entry in memory never outlives its row. There is no need to call it while the janitor runs. Loads that have begun
// are fenced where it removes what expired in the last minutes: their values are handed out but not stored.
func (c *Cache) Cleanup(ctx context.Context) (int64, error) {
	if c.null {
		return 0, c.closedErr("cleanup")
	}
	n, err := c.cleanup(ctx)
	return n, fail("cleanup", "", err)
}

func (c *Cache) cleanup(ctx context.Context) (int64, error) {
	if err := c.check(ctx); err != nil {
		return 0, err
	}
	// Rows that an earlier call has fenced loads for, and has left because they were more than a batch.
	if until := c.fencedUntil.Load(); until != 0 {
		if n, err := c.expireBatch(ctx, until, true); err != nil || n > 0 {
			return n, err
		}
		c.fencedUntil.CompareAndSwap(until, 0)
	}
	if err := c.noteEnded(ctx); err != nil {
		return 0, c.explain(ctx, err)
	}
	// Rows that expired so long ago that no load can need them: they can go without fencing loads.
	until, err := bounded(ctx, c, c.expiredForGrace)
	if err != nil {
		return 0, c.explain(ctx, err)
	}
	if n, err := c.expireBatch(ctx, until, false); err != nil || n > 0 {
		return n, err
	}
	// Rows that have expired since. Loads under way may need them, so these loads are fenced first: none of their values is stored.
	fenced := false
	until, err = bounded(ctx, c, func(ctx context.Context) (until int64, err error) {
		until, fenced, err = c.store.FenceExpired(ctx, tombstoneGrace)
		return until, err
	})
	if err != nil || !fenced {
		return 0, c.explain(ctx, err)
	}
	n, err := c.expireBatch(ctx, until, true)
	if n > 0 {
		c.fencedUntil.Store(until)
	}
	return n, err
}

// noteEnded notes which transactions have ended: the rows of those that were noted tombstoneGrace ago may go.
func (c *Cache) noteEnded(ctx context.Context) error {
	statement, cancel := c.statement(ctx)
	defer cancel()
	return c.store.NoteEnded(statement, tombstoneGrace)
}

// expiredForGrace is the moment by which a row must have expired for no load to need it.
func (c *Cache) expiredForGrace(ctx context.Context) (until int64, err error) {
	return c.store.Ago(ctx, tombstoneGrace)
}

// expireBatch removes one batch of the rows that had expired by until. It begins where the last call ended, and goes round the
// table once at the most.
func (c *Cache) expireBatch(ctx context.Context, until int64, fenced bool) (int64, error) {
	blocks, err := bounded(ctx, c, c.store.Blocks)
	if err != nil {
		return 0, c.explain(ctx, err)
	}
	for looked := int64(0); looked < blocks+store.ExpireBlocks; looked += store.ExpireBlocks {
		first := c.block.Load()
		if first >= blocks {
			first = 0
		}
		n, err := c.expireBlocks(ctx, first, until, fenced)
		if err != nil || n > 0 {
			c.block.Store(first)
			return n, err
		}
		c.block.Store(first + store.ExpireBlocks)
	}
	return 0, nil
}

// expireBlocks removes one batch of the rows that had expired by until from the ExpireBlocks blocks that begin with first.
func (c *Cache) expireBlocks(ctx context.Context, first, until int64, fenced bool) (int64, error) {
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
		// Random, so that nodes which were started together don't go on asking together.
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

// keepNotices is how long a notice, which nodes that poll read, is kept.
const keepNotices = 5 * time.Minute

// sweep does the janitor's work, if it is this node's turn. All of it may take until the next sweep. The two statements of trim that
// read the whole table may take as long; every other has the Timeout, as everywhere.
func (c *Cache) sweep() (err error) {
	ctx, cancel := context.WithTimeout(c.ctx, max(c.opts.CleanupInterval, c.opts.Timeout))
	defer cancel()
	defer c.upkeep(&ctx, "sweep").end(nil, &err)
	defer panics.Recover(&err)
	if err := c.check(ctx); err != nil {
		return err
	}
	mine, err := bounded(ctx, c, func(ctx context.Context) (bool, error) {
		return c.store.ClaimSweep(ctx, c.opts.CleanupInterval/2)
	})
	if err != nil || !mine {
		return err
	}
	// An error of one step does not keep the others from being taken.
	ended := c.noteEnded(ctx)
	_, notices := bounded(ctx, c, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, c.store.DeleteNotices(ctx, c.db, keepNotices)
	})
	_, leases := bounded(ctx, c, func(ctx context.Context) (int64, error) { return c.store.DropLeases(ctx, c.opts.CleanupBatch) })
	if ended != nil { // without it the notes may be those of another server: no row may be removed by them
		return errors.Join(ended, notices, leases, c.trim(ctx))
	}
	return errors.Join(notices, leases, c.expireAll(ctx), c.buryAll(ctx), c.markGroups(ctx), c.trim(ctx))
}

// bounded sends one statement with the Timeout.
func bounded[T any](ctx context.Context, c *Cache, send func(context.Context) (T, error)) (T, error) {
	ctx, cancel := c.statement(ctx)
	defer cancel()
	return send(ctx)
}

// expireAll goes through the table once and removes the rows that no load can need any more.
func (c *Cache) expireAll(ctx context.Context) error {
	until, err := bounded(ctx, c, c.expiredForGrace)
	if err != nil {
		return err
	}
	blocks, err := bounded(ctx, c, c.store.Blocks)
	if err != nil {
		return err
	}
	for first := int64(0); first < blocks && ctx.Err() == nil; {
		n, err := c.expireBlocks(ctx, first, until, false)
		if err != nil {
			return err
		}
		if n < int64(c.opts.CleanupBatch) {
			first += store.ExpireBlocks
		}
	}
	return nil
}

// buryAll removes the dead rows, those of removed groups, and then the records of those removals. It does nothing where no record is old
// enough. A row is dead if the statement that stored it has not seen the record. So a record may only go when none of its rows is left:
// a row that was overlooked would be found again.
//
//	buryAll                        a Set that has not seen the record
//	block 7: no dead row
//	                               commits a row in block 7: it is dead
//	removes the record          <- reads find the row
//
// So only those records go that were there before any transaction that is still open (Retiring), and only after a pass over the
// whole table that left no dead row.
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

func (c *Cache) markGroups(ctx context.Context) error {
	_, err := bounded(ctx, c, func(ctx context.Context) (struct{}, error) { return struct{}{}, c.store.MarkGroups(ctx) })
	return err
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
	// What goes may have been written while a load was under way, which must not store over it.
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

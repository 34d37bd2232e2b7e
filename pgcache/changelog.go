package pgcache

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/pgcache/go/internal/panics"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/window"
)

// changeLog is the change log of the database as the window sees it.
type changeLog struct{ c *Cache }

// flushTimeout bounds a flush. The SQL function sets a shorter lock_timeout, so a flush that meets a lock fails before that.
const flushTimeout = time.Second

// Flush runs on the node's own session: a pool whose connections are all in use must not keep changes from being published.
func (l changeLog) Flush(ctx context.Context, sender string) (changes, bytes int64, err error) {
	c := l.c
	defer c.upkeep(&ctx, "flush").end(nil, &err)
	defer panics.Recover(&err)
	if !c.schema.known.Load() {
		if err := c.schema.look(ctx, c); err != nil {
			return 0, 0, err
		}
	}
	done, err := c.flush(ctx, sender)
	switch {
	case errors.Is(err, store.ErrFlushing):
		return 0, 0, window.ErrBusy
	case err == nil:
		c.stats.flushes.Add(1)
		c.stats.messages.Add(uint64(done.Messages))
	case c.ctx.Err() == nil:
		c.warn("a flush of the change log failed, and will be tried again", "error", err)
	}
	return done.Changes, done.Bytes, err
}

func (c *Cache) flush(ctx context.Context, sender string) (done store.Flushed, err error) {
	if c.opts.Listener == nil {
		// Nothing keeps the session open, and the pool may have few connections.
		ctx, cancel := context.WithTimeout(ctx, flushTimeout)
		defer cancel()
		return c.store.Flush(ctx, sender)
	}
	err = c.onSession(ctx, flushTimeout, func(ctx context.Context, conn *sql.Conn) (err error) {
		done, err = c.store.FlushOn(ctx, conn, sender)
		return err
	})
	return done, err
}

// Pending runs on the node's own session too. No Observer is shown it: the node that flushes for watched tables asks
// once a window.
func (l changeLog) Pending(ctx context.Context) (pending bool, err error) {
	err = l.c.onSession(ctx, flushTimeout, func(ctx context.Context, conn *sql.Conn) (err error) {
		pending, err = l.c.store.Pending(ctx, conn)
		return err
	})
	return pending, err
}

// Oldest runs over the pool: a node that receives nothing keeps no session open.
func (l changeLog) Oldest(ctx context.Context) (age time.Duration, err error) {
	defer panics.Recover(&err)
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	return l.c.store.Oldest(ctx)
}

// Vacuum runs over the pool, and Drain does: both may take long, and the session must stay free for flushes and pulses.
func (l changeLog) Vacuum(ctx context.Context) (err error) {
	defer panics.Recover(&err)
	return l.c.store.VacuumLog(ctx)
}

// Drain empties a log that has grown too large, see window.Log.
func (l changeLog) Drain(ctx context.Context, sender string) (err error) {
	defer panics.Recover(&err)
	return l.c.store.DrainLog(ctx, sender)
}

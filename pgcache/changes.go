package pgcache

import (
	"context"
	"time"

	"github.com/pgcache/go/internal/notify"
)

// changeLog is the change log of the database as the window sees it.
type changeLog struct{ c *Cache }

func (l changeLog) Flush(ctx context.Context, node uint32) (changes, bytes int64, err error) {
	if !l.c.schema.known.Load() {
		return 0, 0, nil // nothing can have been written through a schema that nobody has seen
	}
	ctx, cancel := l.c.statement(ctx)
	defer cancel()
	done, err := l.c.store.Flush(ctx, notify.Sender(node, l.c.opts.InvalidationWindow))
	if err == nil {
		l.c.stats.flushes.Add(1)
		l.c.stats.messages.Add(uint64(done.Messages))
	} else if l.c.ctx.Err() == nil {
		l.c.warn("changes could not be told yet, will try again", "error", err)
	}
	return done.Changes, done.Bytes, err
}

func (l changeLog) Vacuum(ctx context.Context) error {
	ctx, cancel := l.c.statement(ctx)
	defer cancel()
	return l.c.store.VacuumLog(ctx)
}

func (l changeLog) Drain(ctx context.Context, node uint32) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return l.c.store.DrainLog(ctx, notify.Sender(node, l.c.opts.InvalidationWindow))
}

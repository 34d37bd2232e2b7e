package pgcache

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/store"
)

const (
	pollLease = 2 * time.Minute  // how long writers go on logging for a node that polls
	pollRenew = 30 * time.Second // how often it renews that
	busyPause = 5 * time.Millisecond
)

// StartPolling implements Poller.
func (s subscriber) StartPolling(ctx context.Context) (func(context.Context) ([]string, error), error) {
	c := s.c
	if err := c.check(ctx); err != nil {
		return nil, err
	}
	statement, cancel := c.statement(ctx)
	defer cancel()
	incarnation, last, err := c.store.BeginPolling(statement, pollLease)
	if err != nil {
		return nil, fmt.Errorf("start polling: %w", c.explain(ctx, err))
	}
	c.polling.Store(true)
	p := &poller{c: c, incarnation: incarnation, last: last, renewed: -1}
	return p.next, nil
}

// poller is one run of polls that misses nothing.
type poller struct {
	c           *Cache
	incarnation int64
	last        int64         // notice
	renewed     time.Duration // by the database's clock; -1: not yet
}

// next reads what was published since it was last called.
func (p *poller) next(ctx context.Context) (payloads []string, err error) {
	c := p.c
	// A poll flushes first: where all nodes poll, or the last writer has died, nobody else may. It does so in nobody's
	// name, or listening nodes would take it for a leader that they can rely on. Beside another flush it has to wait: what
	// that one found was committed before this poll and must be in it.
	for {
		_, err := c.flush(ctx, notify.Nobody)
		if err == nil {
			break
		}
		if !errors.Is(err, store.ErrFlushing) {
			return nil, err
		}
		timer := time.NewTimer(busyPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
	}
	var polled store.Polled
	err = c.onSession(ctx, pulseTimeout, func(ctx context.Context, conn *sql.Conn) (err error) {
		polled, err = c.store.Poll(ctx, conn, p.last)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case polled.Incarnation != p.incarnation:
		return nil, errors.New("the notices are not those of before: the server has crashed")
	case !polled.Leased, p.renewed >= 0 && polled.Now-p.renewed > pollLease/2:
		// By the database's clock: a suspended machine's own stands still.
		return nil, errors.New("this node has been asleep: writers may have forgotten that it polls")
	}
	if p.renewed < 0 {
		p.renewed = polled.Now
	} else if polled.Now-p.renewed > pollRenew {
		if err := c.onSession(ctx, pulseTimeout, func(ctx context.Context, conn *sql.Conn) error {
			return c.store.KeepPolling(ctx, conn, pollLease)
		}); err != nil {
			return nil, err
		}
		p.renewed = polled.Now
	}
	for _, n := range polled.Notices {
		payloads, p.last = append(payloads, n.Payload), n.Seq
	}
	return payloads, nil
}

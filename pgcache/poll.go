package pgcache

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/panics"
	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/store"
)

const (
	pollLease = 2 * time.Minute      // how long writers go on logging for a node that polls
	pollRenew = 30 * time.Second     // how often it renews that
	busyPause = 5 * time.Millisecond // before a poll tries to flush again, because another flush is under way
)

// errPolls is the error of a Listener that polls with a role that may only read.
var errPolls = errors.New("a role that may only read can't poll, because who polls takes a lease and flushes: give it a Listener that listens, or the rights to write")

// StartPolling takes the poller lease and returns what reads the notices from then on. The Listener of listener.Poll calls it: see
// its interface poller.
func (s subscriber) StartPolling(ctx context.Context) (next func(context.Context) ([]string, error), err error) {
	defer panics.Recover(&err)
	c := s.c
	if err := c.check(ctx); err != nil {
		return nil, err
	}
	asked := time.Now()
	statement, cancel := c.statement(ctx)
	defer cancel()
	at, err := c.store.BeginPolling(statement, pollLease)
	if sqlerr.Denied(err) {
		return nil, fmt.Errorf("%w: %w", errPolls, err)
	}
	if err != nil {
		return nil, fmt.Errorf("start polling: %w", c.explain(ctx, err))
	}
	c.polling.Store(true)
	p := &poller{c: c, at: at, renewed: asked, renewedDB: -1}
	return p.next, nil
}

// poller is a run of polls between which nothing is missed: from StartPolling until next returns an error. One goroutine uses it.
type poller struct {
	c         *Cache
	at        store.Position // how far it has read; incarnation and server are those of when the run began
	renewed   time.Time      // when the lease was last renewed, by this node's clock
	renewedDB time.Duration  // the same by the database's clock; -1: not known before the first poll
}

// next reads what was published since it was last called.
func (p *poller) next(ctx context.Context) (payloads []string, err error) {
	defer panics.Recover(&err)
	c := p.c
	c.polls.Add(1)
	// A poll flushes first: where all nodes poll, or the last writer has died, perhaps nobody else flushes. It does so without a
	// sender, so that listening nodes do not take this node for the one that leads. While another flush is under way it waits: what
	// that one found was committed before this poll, which must return it.
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
		polled, err = c.store.Poll(ctx, conn, p.at)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case polled.At.Incarnation != p.at.Incarnation:
		return nil, errors.New("the incarnation of the tables has changed (a crash, a Clear or a TRUNCATE): changes may have been missed")
	case polled.At.Server != p.at.Server: // its transactions have other ids
		return nil, errors.New("another server answers than before, or it has been restarted: changes may have been missed")
	case !polled.Leased, p.since(polled.Now) > pollLease/2:
		return nil, errors.New("the poller lease has expired: changes may have been missed")
	}
	if p.renewedDB < 0 {
		p.renewedDB = polled.Now
	} else if p.since(polled.Now) > pollRenew {
		p.renewed, p.renewedDB = time.Now(), polled.Now
		if err := c.onSession(ctx, pulseTimeout, func(ctx context.Context, conn *sql.Conn) error {
			if err := c.store.KeepPolling(ctx, conn, pollLease); err != nil {
				return err
			}
			return c.store.DeleteNotices(ctx, conn, keepNotices)
		}); err != nil {
			return nil, err
		}
	}
	p.at = polled.At
	return polled.Payloads, nil
}

// since is how long ago the lease was renewed, where the database's clock shows nowDB. A suspended machine's own clock stands
// still, and the database's may be set: the longer counts.
func (p *poller) since(nowDB time.Duration) time.Duration {
	own := time.Since(p.renewed)
	if p.renewedDB < 0 {
		return own
	}
	return max(own, nowDB-p.renewedDB)
}

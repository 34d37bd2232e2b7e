package pgcache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/store"
)

const (
	pollLease   = 2 * time.Minute  // how long writers go on logging for a node that polls
	pollRenew   = 30 * time.Second // how often it says that it still does
	keepNotices = 5 * time.Minute
)

// StartPolling implements Poller.
func (s subscriber) StartPolling(ctx context.Context) (func(context.Context) ([]string, error), error) {
	c := s.c
	if err := c.check(ctx); err != nil {
		return nil, err
	}
	renewed := time.Now()
	statement, cancel := c.statement(ctx)
	defer cancel()
	incarnation, last, err := c.store.BeginPolling(statement, pollLease)
	if err != nil {
		return nil, fmt.Errorf("start polling: %w", c.explain(ctx, err))
	}
	return func(ctx context.Context) ([]string, error) {
		ctx, cancel := c.statement(ctx)
		defer cancel()
		if since := time.Since(renewed); since > pollLease/2 {
			return nil, errors.New("this node has been asleep: writers may have forgotten that it polls")
		} else if since > pollRenew {
			at := time.Now()
			if err := c.store.KeepPolling(ctx, pollLease); err != nil {
				return nil, err
			}
			if err := c.store.DeleteNotices(ctx, keepNotices); err != nil {
				return nil, err
			}
			renewed = at
		}
		// A poll flushes first: where all nodes poll, or the last writer has died, nobody else may. It does so in
		// nobody's name, or listening nodes would take it for a beat that they can rely on.
		if _, err := c.store.Flush(ctx, notify.Nobody); err != nil && !errors.Is(err, store.ErrFlushing) {
			return nil, err
		}
		notices, err := c.store.Notices(ctx, last)
		if err != nil {
			return nil, err
		}
		found, err := c.store.Incarnation(ctx)
		if err != nil {
			return nil, err
		}
		if found != incarnation {
			return nil, errors.New("the notices are not those of before: the server has crashed")
		}
		payloads := make([]string, len(notices))
		for i, n := range notices {
			payloads[i], last = n.Payload, n.Seq
		}
		return payloads, nil
	}, nil
}

package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/pgcache/go/pgcache"
)

// recorder stands between a node's listener and its cache, and knows when Down has been called: from then on, until the next Trust,
// every answer must come from the database.
type recorder struct {
	pgcache.Listener
	live atomic.Bool // between a Trust and a Down
}

// Listen implements pgcache.Listener.
func (r *recorder) Listen(ctx context.Context, channel string, sub pgcache.Subscriber) error {
	return r.Listener.Listen(ctx, channel, &recorded{sub, r})
}

type recorded struct {
	pgcache.Subscriber
	by *recorder
}

// StartPolling is what listener.Poll calls.
func (s *recorded) StartPolling(ctx context.Context) (func(context.Context) ([]string, error), error) {
	return s.Subscriber.(interface {
		StartPolling(ctx context.Context) (func(context.Context) ([]string, error), error)
	}).StartPolling(ctx)
}

// Trust notes it before the cache does, and Down after: in between the cache would be bound to more than it can know.
func (s *recorded) Trust(trusted time.Time) {
	s.by.live.Store(true)
	s.Subscriber.Trust(trusted)
}

// Down implements pgcache.Subscriber.
func (s *recorded) Down(err error) {
	s.Subscriber.Down(err)
	s.by.live.Store(false)
}

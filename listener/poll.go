package listener

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgcache/go/pgcache"
)

// DefaultPollInterval is the interval of Poll where none is given.
const DefaultPollInterval = 100 * time.Millisecond

const (
	minPollInterval = time.Millisecond
	maxPollInterval = 30 * time.Second // the next of StartPolling is to be called at least once a minute
)

// pollTimeout is how long the answer of a poll may take: the subscriber is trusted until then.
const pollTimeout = time.Second

// Poll returns a Listener that asks the database for changes instead of listening, over the connections of the pool: for
// transaction poolers such as PgBouncer, and databases without LISTEN. It asks again this long after each answer, 0 being
// DefaultPollInterval: an invalidation is late by that and a statement at the most. An interval that is not between a millisecond and
// 30 s is an error of Listen. Where one node of a fleet polls, all nodes' changes go through the change log.
//
// It works with a pgcache.Cache as the Subscriber alone. Safe for concurrent use.
func Poll(every time.Duration) pgcache.Listener {
	if every == 0 {
		every = DefaultPollInterval
	}
	return poll{every}
}

type poll struct{ every time.Duration }

// A pollable is a Subscriber that can be asked for changes. The one that a pgcache.Cache passes to Listen is pollable.
type pollable interface {
	pgcache.Subscriber

	// StartPolling makes all changes that are committed from now on go through the change log, and returns next. A call of next returns
	// the payloads published since the call before; pass each to Notify, in order. Call next from one goroutine, at least once a
	// minute. After an error of next changes may have been missed: call Down, then StartPolling again.
	StartPolling(ctx context.Context) (next func(ctx context.Context) (payloads []string, err error), err error)
}

// Listen polls until ctx ends. channel is not used: the subscriber knows where its changes are.
func (p poll) Listen(ctx context.Context, _ string, sub pgcache.Subscriber) error {
	source, ok := sub.(pollable)
	if !ok {
		return errors.New("pgcache: poll: the subscriber can't be polled")
	}
	if p.every < minPollInterval || p.every > maxPollInterval {
		return fmt.Errorf("pgcache: poll: every %v: must be between a millisecond and 30 s", p.every)
	}
	pause := newBackoff(p.every, max(p.every, 5*time.Second))
	for {
		answered, err := p.serve(ctx, source)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // that was the order to stop
		}
		sub.Down(err)
		if answered {
			pause.reset()
		}
		sleep(ctx, pause.delay())
		pause.grow()
	}
}

// serve polls until a poll fails or ctx ends, and says whether a poll was answered before.
func (p poll) serve(ctx context.Context, sub pollable) (answered bool, err error) {
	sent := time.Now()
	next, err := sub.StartPolling(ctx)
	if err != nil {
		return false, err
	}
	for ; ; answered = true {
		// Everything committed before sent has been applied. The next answer is due an interval and a statement later.
		sub.Trust(sent.Add(p.every + pollTimeout))
		if sleep(ctx, p.every); ctx.Err() != nil {
			return answered, ctx.Err()
		}
		sent = time.Now()
		payloads, err := next(ctx)
		if err != nil {
			return answered, fmt.Errorf("poll: %w", err)
		}
		for _, payload := range payloads {
			sub.Notify(payload)
		}
	}
}

// sleep returns after d, or when ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

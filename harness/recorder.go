package main

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/pgcache"
)

// A recorder stands between a node's listener and its cache and knows what the cache has applied. For that the harness publishes
// the time in the way that changes are published: notifications come in the order of their commits, and are applied one by
// one. So when a node has applied the time t, it has applied every write that was acknowledged before t:
//
//	writer     Set ... acknowledged
//	harness                           publishes t
//	the node                  applies the Set     receives t  Get: must not be older
//
// Where writes publish inline, the time is a notification of its own, which a cache ignores: it begins like the echo of
// somebody's probe. What goes through the change log, as all that triggers of watched tables write, is told by a time that goes
// there too, as a key that nobody has. A flush may take several messages, and the time is in one of them: what it says is
// known with the next one.
type recorder struct {
	pgcache.Listener
	applied atomic.Int64 // the latest time applied of what is published inline
	logged  atomic.Int64 // and of what goes through the change log
	flush   int64        // the time in the last flush that had one
	live    atomic.Bool  // between a Trust and a Down
	gaps    atomic.Int64 // times it went down after having been live
}

// timeMessage is the payload that says the time.
func timeMessage(t time.Duration) string {
	return pgcache.ProbePrefix + timePrefix + strconv.FormatInt(int64(t), 10)
}

const timePrefix = "harness "

// chimeKey is the key under which the change log has the time, for a version.
const chimeKey = "harness:time"

// state is what a read that starts now is bound to, of a key whose changes go through the change log or are published inline.
func (r *recorder) state(logged bool) (applied time.Duration, down bool) {
	down = !r.live.Load()
	if logged {
		return time.Duration(r.logged.Load()), down
	}
	return time.Duration(r.applied.Load()), down
}

// Listen implements pgcache.Listener.
func (r *recorder) Listen(ctx context.Context, channel string, sub pgcache.Subscriber) error {
	r.live.Store(false)
	return r.Listener.Listen(ctx, channel, &recorded{Subscriber: sub, recorder: r})
}

// recorded is a Subscriber whose recorder sees what it is told.
type recorded struct {
	pgcache.Subscriber
	recorder *recorder
}

// Notify is called by the goroutine that reads the socket, one at a time.
func (s *recorded) Notify(payload string) {
	s.Subscriber.Notify(payload)
	if at, ok := strings.CutPrefix(payload, pgcache.ProbePrefix+timePrefix); ok {
		if t, err := strconv.ParseInt(at, 10, 64); err == nil {
			raise(&s.recorder.applied, t)
		}
		return
	}
	// What can't be parsed is none of ours.
	m, err := notify.Parse(payload)
	if err != nil {
		return
	}
	_ = m.Items(func(key string, versions []int64) {
		if key == chimeKey {
			raise(&s.recorder.logged, s.recorder.flush)
			s.recorder.flush = versions[0]
		}
	}, func(notify.Group) {}, func() {})
}

// StartPolling is what listener.Poll calls.
func (s *recorded) StartPolling(ctx context.Context) (func(context.Context) ([]string, error), error) {
	return s.Subscriber.(interface {
		StartPolling(ctx context.Context) (func(context.Context) ([]string, error), error)
	}).StartPolling(ctx)
}

// Trust after a Down begins with nothing in memory: whatever is read from now on is newer than this moment.
func (s *recorded) Trust(trusted time.Time) {
	if !s.recorder.live.Load() {
		raise(&s.recorder.applied, int64(clock()))
		raise(&s.recorder.logged, int64(clock()))
		s.recorder.live.Store(true)
	}
	s.Subscriber.Trust(trusted)
}

// Down notes it after the cache has, as Trust notes it before: in between the cache would be bound to more than it can
// know.
func (s *recorded) Down(err error) {
	s.Subscriber.Down(err)
	if s.recorder.live.Swap(false) {
		s.recorder.gaps.Add(1)
	}
}

// raise sets a to v if that is more.
func raise(a *atomic.Int64, v int64) {
	for {
		old := a.Load()
		if old >= v || a.CompareAndSwap(old, v) {
			return
		}
	}
}

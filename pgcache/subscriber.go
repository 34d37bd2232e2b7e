package pgcache

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/redact"
)

// This file is where the invalidations of other nodes come in.

// listening is the state of the listener and of the pulse, for Ready and for the log.
type listening struct {
	mu        sync.Mutex
	changed   chan struct{} // closed and replaced at every change
	last      error         // why the listener is down
	pulse     error         // why the last pulse failed
	permanent bool          // the listener can never come up
	live      bool
	restart   context.CancelCauseFunc

	nonce atomic.Pointer[string] // of the probe whose echo is awaited
}

func (l *listening) set(live bool, err error, permanent bool) (wasLive bool) {
	err = redact.Database(err)
	l.mu.Lock()
	defer l.mu.Unlock()
	wasLive, l.live, l.last, l.permanent = l.live, live, err, permanent
	if wasLive != live || err != nil {
		l.announce()
	}
	return wasLive
}

func (l *listening) setPulse(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if (l.pulse == nil) != (err == nil) {
		l.announce()
	}
	l.pulse = err
}

// announce wakes who waits for a change. With the mutex held.
func (l *listening) announce() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *listening) wait() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// err is why memory is not served, and whether that will never change.
func (l *listening) err() (err error, permanent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil && l.live {
		return l.pulse, false
	}
	return l.last, l.permanent
}

// Restarts of a listener come after a pause, which doubles while they come soon after each other.
const (
	restartMin, restartMax = 50 * time.Millisecond, 5 * time.Second
)

// listen runs the listener until the cache is closed. It begins anew where rows and notifications come from different
// servers: after a failover the listener may stay on the old primary, alive and silent.
func (c *Cache) listen() {
	for pause := restartMin; c.ctx.Err() == nil; {
		ctx, cancel := context.WithCancelCause(c.ctx)
		c.listening.mu.Lock()
		c.listening.restart = cancel
		c.listening.mu.Unlock()
		began := time.Now()
		err := c.opts.Listener.Listen(ctx, c.store.Names.Channel, subscriber{c})
		restarted := ctx.Err() != nil
		cause := context.Cause(ctx)
		cancel(nil)
		c.local.Down()
		c.local.SetServer(0)
		if c.ctx.Err() != nil {
			return
		}
		if !restarted {
			c.listening.set(false, err, true)
			c.log.Error("pgcache: the listener has failed for good, the local cache stays off", "channel", c.store.Names.Channel, "error", redact.Database(err))
			return
		}
		c.listening.set(false, cause, false)
		if time.Since(began) > restartMax {
			pause = restartMin
		}
		timer := time.NewTimer(rand.N(pause + 1))
		select {
		case <-timer.C:
		case <-c.ctx.Done():
			timer.Stop()
		}
		pause = min(2*pause, restartMax)
	}
}

// checkServer is called with the identity of the server that a statement was answered by. If it is another than the
// listener's, memory is off until the listener has begun anew.
func (c *Cache) checkServer(server int64) {
	own := c.local.Server()
	if server != 0 && server == own {
		c.heartbeat.poolAt.Store(coherence.Now())
	}
	if own == 0 || server == 0 || server == own || !c.local.Listening() {
		return
	}
	c.warn("rows come from another server than notifications, as after a failover: the listener and the session reconnect")
	c.restartListener(errOtherServer)
	c.goDo(func() {
		ctx, cancel := context.WithTimeout(c.ctx, c.opts.Timeout)
		defer cancel()
		c.session.Renew(ctx) // it may lead to the old one
	})
}

// restartListener turns memory off until the listener has begun anew.
func (c *Cache) restartListener(cause error) {
	c.local.Down()
	c.listening.mu.Lock()
	defer c.listening.mu.Unlock()
	if c.listening.restart != nil {
		c.listening.restart(cause)
	}
}

// subscriber is the Cache as its Listener sees it.
type subscriber struct{ c *Cache }

// Probe publishes nonce over the pool, with the identity of the server behind it.
func (s subscriber) Probe(ctx context.Context, nonce string) error {
	s.c.listening.nonce.Store(&nonce)
	ctx, cancel := s.c.statement(ctx)
	defer cancel()
	return s.c.store.Probe(ctx, ProbePrefix+nonce)
}

func (s subscriber) Trust(trusted time.Time) {
	s.c.local.TrustListener(trusted)
	if wasLive := s.c.listening.set(true, nil, false); !wasLive {
		s.c.window.Listening(!s.c.polling.Load())
		s.c.wakePulse()
		s.c.event(Event{Kind: EventListenerUp})
		s.c.log.Debug("pgcache: listening", "channel", s.c.store.Names.Channel)
	}
}

func (s subscriber) Notify(payload string) {
	c := s.c
	if strings.HasPrefix(payload, ProbePrefix) {
		c.echoes.received(payload)
		// The echo of our own probe, the first time, says which server this listener is connected to. Any other may be forged.
		nonce := c.listening.nonce.Load()
		if nonce == nil || !strings.HasPrefix(payload, ProbePrefix+*nonce) || !c.listening.nonce.CompareAndSwap(nonce, nil) {
			return
		}
		if server, err := strconv.ParseInt(payload[strings.LastIndexByte(payload, ':')+1:], 10, 64); err == nil {
			c.local.SetServer(server)
		}
		return
	}
	m, err := notify.Parse(payload)
	if err != nil {
		c.local.Forget()
	} else if id := c.schema.id.Load(); id != nil && !m.For(*id) {
		return // another cache's on the same channel
	} else {
		err = c.local.Apply(m, keyOf)
	}
	if err != nil {
		c.stats.unknown.Add(1)
		c.warnOnce(&c.lastUnknown, time.Minute, "unknown message on the channel: everything in memory is forgotten",
			"channel", c.store.Names.Channel, "error", err, "so_far", c.stats.unknown.Load())
	}
	c.window.Received(m)
}

func (s subscriber) Down(err error) {
	s.c.local.Down()
	s.c.window.Listening(false)
	s.c.event(Event{Kind: EventListenerDown, Err: err})
	if wasLive := s.c.listening.set(false, err, false); wasLive {
		s.c.log.Warn("pgcache: listener lost, every Get asks the database until it is back", "channel", s.c.store.Names.Channel, "error", redact.Database(err))
	}
}

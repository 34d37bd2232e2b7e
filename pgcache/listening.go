package pgcache

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/panics"
	"github.com/pgcache/go/internal/redact"
)

// This file runs the listener and keeps its state. What the listener receives goes to subscriber.go.

// listening is the state of the listener and of the pulse, for Ready and for the log.
type listening struct {
	mu        sync.Mutex
	changed   chan struct{}           // closed and replaced at every change
	live      bool                    // the listener has called Trust, and not Down since
	last      error                   // why it is not live; nil: it is, or has not failed yet
	permanent bool                    // it can never be
	pulse     error                   // why the last pulse failed; nil: it did not, or there was none yet
	restart   context.CancelCauseFunc // ends the Listen call that is under way; nil: there was none yet
	ending    bool                    // restart was called: what that Listen call still says of trust counts for nothing

	nonce atomic.Pointer[string] // of the listener's probe whose echo is awaited; nil: none is
}

// set notes whether the listener is live, and if not, why and whether it can ever be.
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

// setPulse notes how the last pulse ended.
func (l *listening) setPulse(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if (l.pulse == nil) != (err == nil) {
		l.announce()
	}
	l.pulse = err
}

// announce closes the channel that wait and state have returned. With the mutex held.
func (l *listening) announce() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// wait returns a channel that is closed at the next change.
func (l *listening) wait() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// state returns the channel that wait returns, and whether the listener is live.
func (l *listening) state() (changed <-chan struct{}, live bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed, l.live
}

// err returns why memory is not served, and whether that will never change: the listener's error, or else the pulse's. It returns nil
// also before either has failed or succeeded.
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

// listen runs the listener until the cache is closed. It restarts it where rows and notifications come from different servers,
// because after a failover the listener may stay connected to the old primary, and where a poller's lease has lapsed.
func (c *Cache) listen() {
	for pause := restartMin; c.ctx.Err() == nil; {
		ctx, cancel := context.WithCancelCause(c.ctx)
		c.listening.mu.Lock()
		c.listening.restart, c.listening.ending = cancel, false
		c.listening.mu.Unlock()
		began := time.Now()
		err := c.runListener(ctx)
		restarted := ctx.Err() != nil
		cause := context.Cause(ctx)
		if panics.In(err) && !restarted {
			restarted, cause = true, err
		}
		cancel(nil)
		c.local.Down()
		c.local.SetServer(0)
		if c.ctx.Err() != nil {
			return
		}
		if !restarted {
			c.listenerDown(err, true)
			return
		}
		c.listenerDown(cause, false) // Listen itself says nothing when its context ends
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

// runListener calls the Listener, which may be a program's own, and survives a panic.
func (c *Cache) runListener(ctx context.Context) (err error) {
	defer panics.Recover(&err)
	return c.opts.Listener.Listen(ctx, c.store.Names.Channel, subscriber{c})
}

// listenerDown turns memory off until the next Trust, and tells everybody why.
func (c *Cache) listenerDown(err error, permanent bool) {
	c.local.Down()
	c.window.SetListening(false)
	c.window.SetUnnotified(true)
	c.event(Event{Kind: EventListenerDown, Err: err})
	wasLive := c.listening.set(false, err, permanent)
	switch channel, why := c.store.Names.Channel, redact.Database(err); {
	case permanent:
		c.log.Error("pgcache: the listener has failed for good, the local cache stays off", "channel", channel, "error", why)
	case wasLive:
		c.log.Warn("pgcache: listener lost, every Get asks the database until it is back", "channel", channel, "error", why)
	}
}

// checkServer is called with the identity of the server that answered a statement over the pool; 0: the statement did not say. If it is
// not the listener's server, checkServer restarts the listener, and memory is off until that is live again.
func (c *Cache) checkServer(server int64) {
	if server != 0 && server == c.local.Server() {
		c.pulsing.poolAt.Store(coherence.Now())
	}
	c.checkTxServer(server)
}

// checkTxServer is checkServer for a statement in a transaction of the caller's. It does not note that the pool leads to the listener's
// server: the transaction may have begun before a failover.
func (c *Cache) checkTxServer(server int64) {
	own := c.local.Server()
	if own == 0 || server == 0 || server == own || !c.local.Listening() {
		return
	}
	c.warn("rows come from another server than notifications, as after a failover: the listener and the session reconnect")
	c.restartListener(errOtherServer)
	c.goDo(func() {
		ctx, cancel := context.WithTimeout(c.ctx, c.opts.Timeout)
		defer cancel()
		c.session.Renew(ctx) // the session may lead to the old server
	})
}

// restartListener turns memory off, and makes listen restart the listener. It ends the Listen call first, because that call may still be
// about to call Trust:
//
//	restartListener                       Listen, of the other server
//	turns memory off
//	                                      Trust: memory is on again
//	ends Listen                        <- memory is served although the listener hears another server
func (c *Cache) restartListener(cause error) {
	c.listening.end(cause)
	c.local.Down()
}

// end ends the Listen call that is under way, if there is one.
func (l *listening) end(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.restart != nil {
		l.restart(cause)
		l.ending = true
	}
}

// trust calls trusted, unless the Listen call that asks for it is to end.
func (l *listening) trust(trusted func()) (ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ending {
		trusted()
	}
	return !l.ending
}

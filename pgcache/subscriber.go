package pgcache

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/panics"
)

// This file is where the invalidations of all nodes come in, this one's own included.

// subscriber is the Cache as its Listener sees it.
type subscriber struct{ c *Cache }

// Probe publishes nonce over the pool, with the identity of the server behind it.
func (s subscriber) Probe(ctx context.Context, nonce string) (err error) {
	defer panics.Recover(&err)
	s.c.listening.nonce.Store(&nonce)
	ctx, cancel := s.c.statement(ctx)
	defer cancel()
	return s.c.store.Probe(ctx, ProbePrefix+nonce)
}

// Trust notes the trust, and at the first one after a Down that the listener is live.
func (s subscriber) Trust(until time.Time) {
	if !s.c.listening.trust(func() { s.c.local.TrustListener(until) }) {
		return
	}
	if wasLive := s.c.listening.set(true, nil, false); !wasLive {
		s.c.window.SetUnnotified(false)
		s.c.window.SetListening(!s.c.polling.Load())
		s.c.wakePulse()
		s.c.event(Event{Kind: EventListenerUp})
		s.c.log.Debug("pgcache: listening", "channel", s.c.store.Names.Channel)
	}
}

// Notify applies an invalidation to memory. From the echo of a probe it learns which server the listener is connected to.
func (s subscriber) Notify(payload string) {
	c := s.c
	if strings.HasPrefix(payload, ProbePrefix) {
		c.echoes.received(payload)
		// Only the first echo of the listener's own probe says which server it is connected to: others may be forged.
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
		c.warnEvery(&c.lastUnknown, time.Minute, "unknown message on the channel: everything in memory is forgotten",
			"channel", c.store.Names.Channel, "error", err, "so_far", c.stats.unknown.Load())
	}
	c.window.Received(m)
}

// Idle says that nobody reads through the node: see idle.go.
func (s subscriber) Idle() bool { return s.c.pulsing.idle.Load() }

func (s subscriber) Down(err error) { s.c.listenerDown(err, false) }

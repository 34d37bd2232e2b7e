package pgcache

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgcache/go/internal/notify"
)

// This file is where the news of other nodes come in. Local entries die from outside nowhere else.

// listening is the state of the listener, for Ready and for the log.
type listening struct {
	mu        sync.Mutex
	changed   chan struct{} // closed and replaced at every change
	last      error         // why it is down
	permanent bool          // it can never come up
	live      bool
	restart   context.CancelFunc
}

func (l *listening) set(live bool, err error, permanent bool) (wasLive bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wasLive, l.live, l.last, l.permanent = l.live, live, err, permanent
	if wasLive != live || err != nil {
		close(l.changed)
		l.changed = make(chan struct{})
	}
	return wasLive
}

func (l *listening) wait() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func (l *listening) err() (error, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last, l.permanent
}

// listen runs the listener until the cache is closed. It begins anew where rows and notifications come from different
// servers: after a failover the listener may hang on to the old primary, alive and silent.
func (c *Cache) listen() {
	for c.ctx.Err() == nil {
		ctx, cancel := context.WithCancel(c.ctx)
		c.listening.mu.Lock()
		c.listening.restart = cancel
		c.listening.mu.Unlock()
		err := c.opts.Listener.Listen(ctx, c.store.Names.Channel, subscriber{c})
		restarted := ctx.Err() != nil
		cancel()
		c.local.Down()
		c.local.Hears(0)
		if !restarted && c.ctx.Err() == nil {
			c.listening.set(false, err, true)
			c.log.Error("pgcache: the listener can't work, the local cache stays off", "channel", c.store.Names.Channel, "error", err)
			return
		}
	}
}

// otherServer is called when a row came from another server than the one that the listener hears.
func (c *Cache) otherServer(server int64) {
	if heard := c.local.Hearing(); heard == 0 || server == 0 || server == heard || !c.local.Live() {
		return
	}
	c.local.Down()
	c.warn("rows come from another server than notifications: a failover? The listener begins anew")
	c.listening.mu.Lock()
	defer c.listening.mu.Unlock()
	if c.listening.restart != nil {
		c.listening.restart()
	}
}

// subscriber is the Cache as its Listener sees it.
type subscriber struct{ c *Cache }

// Probe tells nonce over the pool, with the identity of the server behind it.
func (s subscriber) Probe(ctx context.Context, nonce string) error {
	ctx, cancel := s.c.statement(ctx)
	defer cancel()
	return s.c.store.Probe(ctx, ProbePrefix+nonce)
}

func (s subscriber) Beat(trusted time.Time) {
	s.c.local.Beat(trusted)
	if wasLive := s.c.listening.set(true, nil, false); !wasLive {
		s.c.news.Listening()
		s.c.log.Debug("pgcache: listening", "channel", s.c.store.Names.Channel)
	}
}

func (s subscriber) Notify(payload string) {
	if strings.HasPrefix(payload, ProbePrefix) {
		// Whoever sent the probe, it came from the server that this listener hears.
		if i := strings.LastIndexByte(payload, ':'); i >= 0 {
			if server, err := strconv.ParseInt(payload[i+1:], 10, 64); err == nil {
				s.c.local.Hears(server)
			}
		}
		return
	}
	m, err := notify.Parse(payload)
	if err != nil {
		s.c.local.Forget()
	} else if id := s.c.schema.id.Load(); id != nil && !m.For(*id) {
		return // another cache's on the same channel
	} else {
		err = s.c.local.Apply(m, keyOf)
	}
	if err != nil {
		s.c.warn("unknown message on the channel: everything in memory is forgotten", "channel", s.c.store.Names.Channel, "error", err)
	}
	s.c.news.Heard(m.Node, m.Flush && m.Node != 0)
}

func (s subscriber) Down(err error) {
	s.c.local.Down()
	if wasLive := s.c.listening.set(false, err, false); wasLive {
		s.c.log.Warn("pgcache: listener lost, every Get asks the database until it is back", "channel", s.c.store.Names.Channel, "error", err)
	}
}

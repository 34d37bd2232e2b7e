package pgcache

import (
	"sync/atomic"
	"time"
)

// This file has nodes that nobody uses pulse rarely, and their listeners ask rarely whether the connection lives: a thousand of them, doing
// both every two seconds, would cost the server a tenth of a core.
//
// A node through which nobody has read for idleAfter pulses every idleEvery, to publish what a lost node may have left in the log, and
// does not serve from memory. The next read asks the database and wakes the pulse; the listener's next heartbeat comes within two seconds. That pulse alone does not show that what is in
// memory can be served: all nodes may have been idle, and a change that a lost node left in the log is then published when the
// first of them is used again:
//
//	a lost node   this node                        another node
//	logs v2       (idle, holds v1)                 (idle)
//	              ... an hour ...                  pulses: publishes v2 ~►
//	              pulses: the log holds nothing old
//	              Get: v1                          <- overwritten an hour ago
//
// So a node that was idle forgets what it holds before it trusts a pulse, and so does one whose pulses failed for pulseGap. A
// program with OnInvalidate relies on being told of changes while it reads nothing: its node is never idle.
const (
	idleAfter = 5 * time.Minute
	idleEvery = 30 * time.Second

	// pulseGap is for how long pulses of a node in use may fail and memory is served again. It is longer than what a busy server
	// may keep a pulse waiting: memory that is forgotten then would make the server busier.
	pulseGap = 15 * time.Second
)

// idleness is the part of the pulse that knows whether somebody uses the node.
type idleness struct {
	idle      atomic.Bool
	idleAfter atomic.Int64 // nanoseconds
	reads     uint64       // counted when it was last looked
	usedAt    time.Time    // when reads was last seen to have changed, or the pulse was woken
	rested    bool         // it was idle since the last pulse that was trusted
	trustedAt time.Time    // when that was asked for
}

// gap says whether a pulse comes so long after the last that was trusted that memory must be forgotten before it is.
func (i *idleness) gap(asked time.Time) bool {
	return i.rested || !i.trustedAt.IsZero() && asked.Sub(i.trustedAt) > pulseGap
}

func (i *idleness) trusts(asked time.Time) { i.rested, i.trustedAt = false, asked }

func (i *idleness) used(at time.Time) {
	i.usedAt = at
	i.idle.Store(false)
}

// idles says whether the next pulse may wait because nobody uses this node.
func (c *Cache) idles(now time.Time) bool {
	h := &c.pulsing
	if n := c.countReads(); n != h.reads || h.usedAt.IsZero() || c.opts.OnInvalidate != nil {
		h.reads = n
		h.used(now)
		return false
	}
	idle := now.Sub(h.usedAt) >= time.Duration(h.idleAfter.Load())
	h.idle.Store(idle)
	h.rested = h.rested || idle
	return idle && now.Sub(h.at) < idleEvery
}

// countReads is how many reads memory or the database has answered.
func (c *Cache) countReads() (n uint64) {
	count := func(s *counters) {
		v := s.view()
		n += v.LocalHits + v.RemoteHits + v.Misses + v.Loads
	}
	count(&c.stats)
	c.views.each(func(_ string, s *counters) { count(s) })
	return n + c.stats.negativeHits.Load() + c.stats.stale.Load()
}

// reading is called by every read that memory did not answer.
func (c *Cache) reading() {
	if c.pulsing.idle.Load() {
		c.wakePulse()
	}
}

// resting says whether memory is off only because nobody uses this node.
func (c *Cache) resting() bool {
	err, _ := c.listening.err()
	_, live := c.listening.state()
	return err == nil && live && c.pulsing.idle.Load()
}

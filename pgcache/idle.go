package pgcache

import (
	"sync/atomic"
	"time"
)

// This file makes idle nodes pulse rarely, and lets their listeners ask rarely whether the connection lives: a thousand of them, doing
// both every two seconds, would cost the server a tenth of a core.
//
// A node is idle if nobody has read through it for idleAfter. It pulses every idleEvery, to publish what a lost node may have left in
// the log, and does not serve from memory. The next read asks the database and wakes the pulse; the listener's next heartbeat comes
// within two seconds. That first pulse alone does not show that what is in memory can be served: all nodes may have been idle, and a
// change that a lost node left in the log is then published when the first of them is used again:
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

	// pulseGap is for how long the pulses of a node in use may fail without memory being forgotten. It is longer than a busy server
	// keeps a pulse waiting: a node that then forgot its memory would make the server busier.
	pulseGap = 15 * time.Second
)

// idleness is the part of the pulse that knows whether somebody uses the node.
type idleness struct {
	idle      atomic.Bool
	idleAfter atomic.Int64 // nanoseconds
	reads     uint64       // what countReads returned last
	usedAt    time.Time    // when reads was last seen to have changed, or the pulse was woken
	wasIdle   bool         // it was idle since the last pulse that was trusted
	trustedAt time.Time    // when the last pulse that was trusted was asked for
}

// gap says whether memory must be forgotten before this pulse is trusted: the node was idle, or its pulses have failed for pulseGap.
func (i *idleness) gap(asked time.Time) bool {
	return i.wasIdle || !i.trustedAt.IsZero() && asked.Sub(i.trustedAt) > pulseGap
}

func (i *idleness) trusts(asked time.Time) { i.wasIdle, i.trustedAt = false, asked }

func (i *idleness) used(at time.Time) {
	i.usedAt = at
	i.idle.Store(false)
}

// mayRest looks whether the node is idle, and says whether the next pulse may wait for that reason.
func (c *Cache) mayRest(now time.Time) bool {
	p := &c.pulsing
	if n := c.countReads(); n != p.reads || p.usedAt.IsZero() || c.opts.OnInvalidate != nil {
		p.reads = n
		p.used(now)
		return false
	}
	idle := now.Sub(p.usedAt) >= time.Duration(p.idleAfter.Load())
	p.idle.Store(idle)
	p.wasIdle = p.wasIdle || idle
	return idle && now.Sub(p.at) < idleEvery
}

// countReads is how many reads memory or the database has answered.
func (c *Cache) countReads() (n uint64) {
	count := func(s *counters) {
		v := s.viewStats()
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

// onlyIdle says whether memory is off for no other reason than that the node is idle.
func (c *Cache) onlyIdle() bool {
	err, _ := c.listening.err()
	_, live := c.listening.state()
	return err == nil && live && c.pulsing.idle.Load()
}

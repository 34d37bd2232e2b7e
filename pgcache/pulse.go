package pgcache

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/panics"
	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/store"
)

// This file has the pulse. A node serves from memory while it has seen two things lately: the listener shows that what is published
// reaches this node, and the pulse shows that what is committed is being published. Each is trusted for its interval and its timeout, so
// whatever goes wrong between a commit and this node, trust ends by itself.
//
// A pulse is one small statement every two seconds, on the session that no busy pool can take away. It must find
//
//   - the server that the listener is connected to: after a failover the listener may stay on the old one, which lives;
//   - the cache's id, the schema's version, the channel, and the secret that hides keys: tables may be dropped and made anew;
//   - the incarnation of the last pulse: a crash or a TRUNCATE may have removed what was to be published;
//   - as much time gone by on the database's clock as on the node's: a suspended machine's monotonic clock stands still;
//   - for a node that polls, its lease in force: without it changes are only notified;
//   - and no change in the log that is older than a second. Such a change was left by a node that died, by a write that
//     committed after its writer had given up, or by flushes that fail. It is flushed at once. Where that fails the node
//     forgets all it holds, at every pulse until it succeeds: between two pulses memory is still served, and nothing in it
//     is older than a pulse.
//
// A node that nobody reads through for five minutes pulses twice a minute only, and the next read of it wakes its pulse: see
// idle.go.
const (
	pulseEvery   = 2 * time.Second
	pulseTimeout = time.Second
	pulseRetry   = 100 * time.Millisecond // doubles up to pulseEvery until the first pulse that succeeds after a start
	clockSlack   = time.Second

	// poolEvery is how often the server behind the pool is looked at where no other statement has shown it. Where it does not
	// answer for poolLimit, memory is not trusted until it does: so a failover is noticed within ten seconds, pulses and
	// timeouts included. Where the pool has no free connection there is no look and no limit: an exhausted pool must not
	// turn memory off.
	poolEvery = 5 * time.Second
	poolLimit = 7 * time.Second
)

// pulsing is the state of the pulse. Other goroutines use wake, idle, idleAfter, looking and poolAt; the rest is of the goroutine of pulses.
type pulsing struct {
	wake chan struct{} // asks for a pulse at once, see wakePulse; nil without a Listener

	last store.Pulse
	at   time.Time // when last was asked for; zero: no pulse has been verified yet

	flusher     int64 // this node's id in its claims to flush for watched tables; 0: none was drawn yet
	mayNotFlush bool  // the role may not claim; it is not asked again

	unmade bool // the last pulse found no incarnation, and none could be made

	idleness

	looking atomic.Bool  // the server behind the pool is being looked at
	poolAt  atomic.Int64 // when a statement over the pool was last answered by the listener's server, by coherence.Now
}

// pulses runs until the cache is closed.
func (c *Cache) pulses() {
	pause := pulseRetry
	for {
		err := c.pulse(c.ctx)
		if err == nil {
			pause = pulseEvery
		} else {
			pause = min(2*pause, pulseEvery)
		}
		timer := time.NewTimer(pause)
		for waits := true; waits; {
			select {
			case <-timer.C:
				timer.Reset(pulseEvery)
				waits = c.mayRest(time.Now()) && err == nil // an idle node whose pulse failed is not Ready
			case <-c.pulsing.wake:
				pause, waits = pulseRetry, false
				c.pulsing.used(time.Now())
			case <-c.ctx.Done():
				timer.Stop()
				return
			}
		}
		timer.Stop()
	}
}

// wakePulse makes the next pulse come at once: the listener is live, the schema was found, a table is watched, or an idle node is read.
func (c *Cache) wakePulse() {
	select {
	case c.pulsing.wake <- struct{}{}:
	default:
	}
}

// pulse asks once, verifies the answer, and acts on it. It returns nil if memory may be trusted for another interval.
func (c *Cache) pulse(ctx context.Context) (err error) {
	defer c.upkeep(&ctx, "pulse").end(nil, &err)
	defer func() {
		c.listening.setPulse(err)
		if err != nil {
			c.invalidated(nil) // memory is not served while pulses fail, and what the program keeps may be stale too
		}
	}()
	defer panics.Recover(&err)
	if !c.schema.known.Load() {
		if err := c.schema.look(ctx, c); err != nil {
			return err
		}
	}
	asked, polling := time.Now(), c.polling.Load()
	var p store.Pulse
	err = c.onSession(ctx, pulseTimeout, func(ctx context.Context, conn *sql.Conn) (err error) {
		sent := time.Now()
		if p, err = c.store.Pulse(ctx, conn); err == nil {
			c.window.AddRoundTrip(time.Since(sent))
		}
		return err
	})
	if err != nil {
		if sqlerr.NoObject(err) {
			c.schema.unknown()
		}
		return fmt.Errorf("pulse: %w", err)
	}
	if err := c.verify(ctx, p, asked, polling); err != nil {
		return err
	}
	if p.Behind {
		if err := c.window.FlushNow(ctx); err != nil {
			c.stats.unpublished.Add(1)
			c.local.Forget()
			c.warn("changes older than a second could not be published: memory is forgotten every few seconds until they are", "error", err)
		}
	}
	if !c.pulsing.idle.Load() {
		// An error is nothing to act on: the nodes without a listener, which flush now, go on doing so.
		_ = c.window.Relieve(ctx)
	}
	if p.Watches {
		c.flushForWatches(ctx)
	}
	gap := c.pulsing.gap(asked)
	if err := c.lookAtPool(gap); err != nil {
		return err
	}
	if c.pulsing.idle.Load() {
		return nil // the next read wakes a pulse that counts
	}
	if gap {
		c.local.Forget()
	}
	c.pulsing.trusts(asked)
	c.local.TrustPulse(asked.Add(pulseEvery + pulseTimeout)) // from when it was asked: the answer may have been long on its way
	return nil
}

// flushLease is how long a node that flushes for watched tables does so without a pulse that renews its claim.
const flushLease = 5 * time.Second

// flushForWatches claims to be the one node of the fleet that looks at the change log once a window, and renews the claim: triggers
// of watched tables leave their changes there and notify nobody. Where that node is lost, the pulses of the others flush what is
// older than a second, and one of them claims it when the lease has ended.
func (c *Cache) flushForWatches(ctx context.Context) {
	p := &c.pulsing
	if p.mayNotFlush {
		return
	}
	for p.flusher == 0 {
		p.flusher = rand.Int64()
	}
	asked, mine := time.Now(), false
	err := c.onSession(ctx, pulseTimeout, func(ctx context.Context, conn *sql.Conn) (err error) {
		mine, err = c.store.ClaimFlushing(ctx, conn, p.flusher, flushLease)
		return err
	})
	switch {
	case sqlerr.Denied(err):
		p.mayNotFlush = true
	case mine:
		c.window.Watch(flushLease - time.Since(asked))
	}
}

// verify compares a pulse with the last one and with what the node knows. It forgets what it holds where something has changed that
// may have kept changes from it. polling says that it polled when the pulse was asked for. An error says that memory may not be trusted
// for now.
func (c *Cache) verify(ctx context.Context, p store.Pulse, asked time.Time, polling bool) error {
	if err := c.fits(p.State); err != nil {
		c.schema.unknown()
		c.local.Forget()
		return err
	}
	c.local.Hide(p.KeySecret) // forgets everything if it is another than before
	if own := c.local.Server(); own != 0 && p.Server != own {
		c.checkServer(p.Server)
		return errors.New("pulse: notifications come from another server than the data")
	}
	if polling && !p.Polled {
		c.restartListener(errors.New("the poller lease has lapsed"))
		return errors.New("pulse: the poller lease has lapsed")
	}
	if p.Incarnation == 0 { // a crash has emptied its table: this makes one, unless another node has done so since
		incarnation, _, err := c.store.Incarnation(ctx)
		switch {
		case sqlerr.Denied(err):
			// A role that only reads can't make one. Until a writer has, it is 0 before another crash and after it: so nothing
			// is kept for longer than a pulse.
			c.local.Forget()
		case err != nil:
			return fmt.Errorf("pulse: %w", err)
		case incarnation == 0:
			// Transactions that were prepared before the crash are still open. The crash has removed their changes from the log, so
			// nobody will hear of their commit.
			c.local.Forget()
			if !c.pulsing.unmade {
				gids, _ := c.store.Recovered(ctx)
				c.warn("transactions were prepared before a crash and are not committed yet: until they are, nothing that is loaded is stored, "+
					"and memory is forgotten at every pulse", "prepared", gids)
			}
		}
		p.Incarnation = incarnation
	}
	c.pulsing.unmade = p.Incarnation == 0
	last, at := c.pulsing.last, c.pulsing.at
	c.pulsing.last, c.pulsing.at = p, asked
	if at.IsZero() {
		c.schema.id.Store(&p.State.ID)
		return nil
	}
	slept := (p.Now - last.Now) - asked.Sub(at)
	// A look at the schema that began before the tables were made anew may have noted their old id since: see schema.read.
	if known := c.schema.id.Load(); known == nil || *known != p.State.ID || p.State.ID != last.State.ID || p.Incarnation != last.Incarnation || slept.Abs() > clockSlack+pulseTimeout {
		c.schema.id.Store(&p.State.ID)
		c.local.Forget()
	}
	return nil
}

// onSession runs f on the node's own session, within d.
func (c *Cache) onSession(ctx context.Context, d time.Duration, f func(ctx context.Context, conn *sql.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return c.session.Do(ctx, func(ctx context.Context, conn *sql.Conn) error {
		ctx, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		return f(ctx, conn)
	})
}

// lookAtPool asks which server the pool leads to, if nothing else has shown it lately and the pool has a free connection. The
// pulse does not show it: its session may have been opened before a failover. After a gap it waits for the answer.
func (c *Cache) lookAtPool(gap bool) error {
	p, now := &c.pulsing, coherence.Now()
	s := c.db.Stats()
	free := s.MaxOpenConnections == 0 || s.InUse < s.MaxOpenConnections
	seen := p.poolAt.Load()
	if !free || c.local.Server() == 0 || seen == 0 {
		p.poolAt.Store(now)
		return nil
	}
	age := time.Duration(now - seen)
	if age >= poolEvery && p.looking.CompareAndSwap(false, true) {
		looked := make(chan struct{})
		c.goDo(func() {
			defer close(looked)
			defer p.looking.Store(false)
			defer panics.Recover(new(error)) // nobody has answered
			ctx, cancel := c.statement(c.ctx)
			defer cancel()
			if server, err := c.store.Server(ctx); err == nil {
				c.checkServer(server)
			}
		})
		if gap { // nobody has looked for as long as nobody has pulsed
			timer := time.NewTimer(pulseTimeout)
			defer timer.Stop()
			select {
			case <-looked:
			case <-timer.C:
			case <-c.ctx.Done():
			}
			age = time.Duration(coherence.Now() - p.poolAt.Load())
		}
	}
	if age > poolLimit {
		return fmt.Errorf("pulse: no statement over the pool was answered for %v", age.Round(time.Second))
	}
	return nil
}

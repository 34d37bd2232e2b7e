package window

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fleet is a database with nodes that run.
type fleet struct {
	*database
	t *testing.T
}

// run makes a fleet in a bubble. When test has returned, the fleet must become quiet, with nothing left to publish.
func run(t *testing.T, nodes int, l lag, test func(f *fleet)) { runUpTo(t, nodes, l, win, test) }

// runUpTo is run with windows that may be stretched.
func runUpTo(t *testing.T, nodes int, l lag, most time.Duration, test func(f *fleet)) {
	t.Parallel()
	seed := rand.Uint64()
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("seed %d", seed)
			}
		})
		f := &fleet{newDatabase(seed, l), t}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer func() {
			cancel()
			running.Wait()
		}()
		for range nodes {
			n := f.joinUpTo(win, most)
			running.Go(func() { n.Run(ctx) })
			running.Go(func() { n.listen(ctx) })
			running.Go(func() { n.pulse(ctx) })
		}
		rest(time.Minute)
		test(f)
		rest(2 * pulseEvery)
		f.mu.Lock()
		left := len(f.log)
		f.mu.Unlock()
		if left > 0 {
			t.Errorf("%d changes are left in the log", left)
		}
		f.soFar()
		rest(time.Hour)
		if c := f.soFar(); c.flushes+c.asked > 0 {
			t.Errorf("an idle fleet has sent %d statements in an hour", c.flushes+c.asked)
		}
		for _, n := range f.nodes {
			if owed := n.owed(); len(owed) > 0 && !n.is(dead) {
				t.Errorf("a node still owes %d changes", len(owed))
			}
		}
	})
}

// rest lets time pass, and everything that is due at its end happen.
func rest(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// traffic has nodes write for a while, with pauses of at most pause between the writes.
func (f *fleet) traffic(d, pause time.Duration, writers ...*node) {
	end := time.Now().Add(d)
	var wg sync.WaitGroup
	for _, n := range writers {
		wg.Go(func() {
			for time.Now().Before(end) {
				n.write()
				time.Sleep(f.random(pause))
				if n.is(dead) {
					return
				}
			}
		})
	}
	wg.Wait()
	rest(0)
}

func dead(n *node) bool { return n.dead }

// within checks that everything was published, and how soon.
func (f *fleet) within(p99, most time.Duration, nodes ...*node) counts {
	f.t.Helper()
	c := f.soFar()
	if left := f.unpublished(nodes...); len(left) > 0 {
		f.t.Errorf("%d of %d changes were not published to everybody", len(left), c.writes)
	}
	delays := f.delays(nodes...)
	if len(delays) == 0 {
		f.t.Fatal("nothing was published")
	}
	got99, gotMost := delays[len(delays)*99/100], delays[len(delays)-1]
	f.t.Logf("%d writes, %d inline; %d flushes, %d published something; published within %v (p50), %v (p99), %v (most)",
		c.writes, c.inline, c.flushes, c.found, delays[len(delays)/2], got99, gotMost)
	if got99 > p99 || gotMost > most {
		f.t.Errorf("published within %v (p99), %v (most); want %v, %v", got99, gotMost, p99, most)
	}
	return c
}

// usual is about what was measured at 20,000 writes a second.
var usual = lag{reply: time.Millisecond, flush: 4 * time.Millisecond, deliver: 5 * time.Millisecond}

// bound is what the rules give while nothing fails. A change is committed, and its writer learns of it within the reply.
// A window later its writer flushes, but for one thing: it has received another's flush meanwhile, and gives it three windows
// for the next. If the flush that it has received was sent after the commit, it has published the change; so it was sent before,
// and was received a flush and a delivery after the commit at the latest. Then come the flush itself, what is queued before
// it, and its delivery.
func (l lag) bound(window time.Duration) time.Duration {
	return max(l.reply+window, l.flush+l.deliver+3*window) + 3*l.flush + l.deliver
}

// TestFleet: 16 nodes that write flush about once a window, all together, and everything is published in time.
func TestFleet(t *testing.T) {
	run(t, 24, usual, func(f *fleet) {
		const span = 2 * time.Second
		f.soFar()
		f.traffic(span, 5*time.Millisecond, f.nodes[:16]...)
		rest(time.Second)
		c := f.within(2*win+20*time.Millisecond, usual.bound(win), f.nodes...)
		windows := int(span / win)
		if n := c.found; n < windows/2 || n > windows*3/2 {
			t.Errorf("%d flushes have published something in %d windows", n, windows)
		}
		if n := c.flushes; n > 2*windows+5*len(f.nodes) {
			t.Errorf("%d flushes in %d windows", n, windows)
		}
		if c.inline > c.writes/50 {
			t.Errorf("%d of %d writes have published themselves", c.inline, c.writes)
		}
	})
}

// TestFleetOfOne: one node that writes all the time.
func TestFleetOfOne(t *testing.T) {
	run(t, 1, usual, func(f *fleet) {
		f.traffic(time.Second, 0, f.nodes...)
		rest(time.Second)
		c := f.within(win+2*usual.flush+usual.deliver, usual.bound(win), f.nodes...)
		if c.inline > 10 {
			t.Errorf("%d of %d writes have published themselves", c.inline, c.writes)
		}
	})
}

// TestQuietFleet: writes that are rare are published at once.
func TestQuietFleet(t *testing.T) {
	run(t, 4, usual, func(f *fleet) {
		for i := range 100 {
			f.nodes[i%4].write()
			rest(3 * win)
		}
		f.within(usual.deliver, usual.deliver, f.nodes...)
	})
}

// latest is how old a change may get that no window cares for: the pulses find it.
var latest = behind + pulseEvery + usual.flush + usual.deliver

// TestNodesDie: what a node has written that dies, the others publish: with the next flush while they write themselves, and
// by a pulse where nobody does.
func TestNodesDie(t *testing.T) {
	die := func(n *node) { n.set(func(n *node) { n.dead = true }) }
	t.Run("the one that leads", func(t *testing.T) {
		run(t, 16, usual, func(f *fleet) {
			var wg sync.WaitGroup
			wg.Go(func() { f.traffic(2*time.Second, 5*time.Millisecond, f.nodes...) })
			for range 8 {
				rest(200 * time.Millisecond)
				if i := slices.IndexFunc(f.nodes, func(n *node) bool {
					n.mu.Lock()
					defer n.mu.Unlock()
					return n.leading && !n.is(dead)
				}); i >= 0 {
					die(f.nodes[i])
				}
			}
			wg.Wait()
			rest(2 * time.Second)
			living := slices.DeleteFunc(slices.Clone(f.nodes), func(n *node) bool { return n.is(dead) })
			if len(living) > 12 {
				t.Errorf("%d nodes of 16 are left", len(living))
			}
			// A change of a dead node has no writer to flush it; somebody else's flush comes in the same time.
			f.within(2*win+20*time.Millisecond, 2*usual.bound(win), living...)
		})
	})
	t.Run("the only one that writes", func(t *testing.T) {
		run(t, 5, usual, func(f *fleet) {
			writers := f.nodes[:4]
			last := f.nodes[4]
			for i, n := range writers {
				rest(time.Duration(i) * time.Minute)
				var wg sync.WaitGroup
				wg.Go(func() { f.traffic(time.Second, 10*time.Millisecond, n) })
				rest(300*time.Millisecond + f.random(2*win))
				die(n)
				wg.Wait()
				rest(5 * time.Second)
			}
			f.within(latest, latest, last)
		})
	})
	// A new row is not published. What is written next must not count on others to flush.
	t.Run("after a silent write", func(t *testing.T) {
		run(t, 3, usual, func(f *fleet) {
			n := f.nodes[0]
			n.Begin(false, -1)
			n.End(-1, Silent)
			n.write()
			die(n)
			rest(5 * time.Second)
			f.within(latest, latest, f.nodes[1:]...)
		})
	})
	t.Run("after it came", func(t *testing.T) {
		run(t, 3, usual, func(f *fleet) {
			n := f.nodes[0]
			n.write()
			die(n)
			rest(5 * time.Second)
			f.within(latest, latest, f.nodes[1:]...)
		})
	})
	// The statement of the dead node is slow: it commits when nobody leads any more.
	t.Run("commits late", func(t *testing.T) {
		slow := lag{reply: time.Millisecond, flush: 40 * time.Millisecond, deliver: time.Millisecond}
		run(t, 2, slow, func(f *fleet) {
			n, other := f.nodes[0], f.nodes[1]
			for range 3 {
				other.write()
				rest(slow.deliver) // the system is not quiet, and the other node leads
			}
			if n.Begin(false, -1) {
				t.Fatal("the write is to publish itself")
			}
			n.set(func(n *node) { n.dead = true })
			rest(300 * time.Millisecond)
			f.mu.Lock()
			f.log[-1], f.commits[-1] = time.Now(), time.Now()
			f.mu.Unlock()
			rest(12 * time.Second)
			f.within(latest+slow.flush, latest+slow.flush, other)
		})
	})
	// The others write, seldom enough to publish themselves: nobody drains the log but a pulse.
	t.Run("amid writes that publish themselves", func(t *testing.T) {
		run(t, 3, usual, func(f *fleet) {
			n := f.nodes[0]
			f.nodes[1].write()
			rest(usual.deliver)
			n.write()
			die(n)
			rest(2 * win) // or they would be logged and flushed
			f.traffic(3*time.Second, 200*time.Millisecond, f.nodes[1])
			rest(4 * time.Second)
			f.within(latest, latest, f.nodes[1:]...)
		})
	})
}

// TestPartitions: a node that receives nothing for a while, and one whose statements do not arrive, harm nobody else.
func TestPartitions(t *testing.T) {
	t.Run("silent", func(t *testing.T) {
		run(t, 8, usual, func(f *fleet) {
			silent := f.nodes[:2]
			for _, n := range silent {
				n.mute(true)
			}
			f.traffic(time.Second, 5*time.Millisecond, f.nodes...)
			for _, n := range silent {
				n.mute(false)
			}
			f.traffic(time.Second, 5*time.Millisecond, f.nodes...)
			rest(time.Second)
			f.within(2*win+20*time.Millisecond, usual.bound(win), f.nodes...)
		})
	})
	t.Run("cut off", func(t *testing.T) {
		run(t, 8, usual, func(f *fleet) {
			var wg sync.WaitGroup
			wg.Go(func() { f.traffic(3*time.Second, 5*time.Millisecond, f.nodes...) })
			for _, n := range f.nodes[:2] {
				rest(700 * time.Millisecond)
				n.set(func(n *node) { n.cut = true })
				rest(500 * time.Millisecond)
				n.set(func(n *node) { n.cut = false })
			}
			wg.Wait()
			rest(5 * time.Second)
			f.within(2*win+20*time.Millisecond, latest+usual.bound(win), f.nodes...)
		})
	})
	t.Run("halves", func(t *testing.T) {
		// Neither half receives the other's flushes, so each has a leader; when they receive each other, one of them goes on.
		run(t, 8, usual, func(f *fleet) {
			for _, n := range f.nodes[:4] {
				n.mute(true)
			}
			f.traffic(time.Second, 5*time.Millisecond, f.nodes...)
			for _, n := range f.nodes[:4] {
				n.mute(false)
			}
			rest(time.Minute)
			f.soFar()
			f.traffic(time.Second, 5*time.Millisecond, f.nodes...)
			rest(time.Second)
			c := f.within(2*win+20*time.Millisecond, usual.bound(win), f.nodes...)
			if windows := int(time.Second / win); c.found > windows*3/2 {
				t.Errorf("%d flushes have published something in %d windows", c.found, windows)
			}
		})
	})
}

// TestLostReplies: of each statement in twenty nobody learns what came of it, and it may be done seconds later. All that
// was committed is published, at the latest by a pulse.
func TestLostReplies(t *testing.T) {
	run(t, 8, usual, func(f *fleet) {
		for _, n := range f.nodes {
			n.set(func(n *node) { n.fails = 0.05 })
		}
		for range 4 {
			f.traffic(500*time.Millisecond, 10*time.Millisecond, f.nodes...)
			rest(5 * time.Second) // some are committed while nobody else writes
		}
		f.within(latest, latest+2*maxRetry, f.nodes...)
	})
}

// TestSlowDatabase: where a flush takes longer than a window, nodes try again about once a window.
func TestSlowDatabase(t *testing.T) {
	slow := lag{reply: 20 * time.Millisecond, flush: 60 * time.Millisecond, deliver: 30 * time.Millisecond}
	run(t, 16, slow, func(f *fleet) {
		f.traffic(3*time.Second, 20*time.Millisecond, f.nodes...)
		rest(3 * time.Second)
		queue := 16 * slow.flush
		if c := f.within(slow.bound(win)+queue, slow.bound(win)+queue, f.nodes...); c.flushes > 600 {
			t.Errorf("%d flushes", c.flushes)
		}
	})
}

// TestFlushesFail: while no flush gets through the changes stay in the log, and the first that does publishes them.
func TestFlushesFail(t *testing.T) {
	run(t, 4, usual, func(f *fleet) {
		set := func(broken bool) {
			f.mu.Lock()
			f.broken = broken
			f.mu.Unlock()
		}
		set(true)
		f.traffic(3*time.Second, 10*time.Millisecond, f.nodes...)
		rest(10 * time.Second)
		f.soFar()
		rest(10 * time.Second)
		if n := f.soFar().flushes; n > 4*(10+5)*2 {
			t.Errorf("%d flushes were tried in 10 s", n)
		}
		set(false)
		rest(pulseEvery + maxRetry)
		if left := f.unpublished(f.nodes...); len(left) > 0 {
			t.Errorf("%d changes were not published", len(left))
		}
	})
}

// TestMixedWindows: a node with a short window does not wait for one with a longer, and one with a long window relies on
// one with a shorter only while that one flushes.
func TestMixedWindows(t *testing.T) {
	run(t, 3, usual, func(f *fleet) {
		const long = time.Second
		slow := f.nodes[0]
		slow.window = long
		f.traffic(5*time.Second, 20*time.Millisecond, f.nodes...)
		rest(2 * long)
		f.within(2*win+20*time.Millisecond, usual.bound(win), f.nodes...)
		for range 5 { // then it is alone
			f.traffic(300*time.Millisecond, 20*time.Millisecond, f.nodes[1])
			f.traffic(2*time.Second, 20*time.Millisecond, slow)
		}
		rest(4 * long)
		f.within(usual.bound(long), usual.bound(long), f.nodes...)
	})
}

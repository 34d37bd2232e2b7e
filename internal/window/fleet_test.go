package window

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// database is what a fleet of windows shares: rows nobody sees, a change log, and notifications. Everything takes its
// time, and may fail.
type database struct {
	lag     lag
	flushed chan struct{} // the lock that flushes take

	mu      sync.Mutex
	rand    *rand.Rand
	next    int64               // version
	commits map[int64]time.Time // of versions that somebody has to be told of
	log     map[int64]bool      // committed, not drained
	nodes   []*node
	counts
}

type counts struct {
	flushes  int // statements
	tellings int // flushes that found something
	inline   int // writes that told themselves
	writes   int // committed
}

// lag is how long things take at the most: a random part of it at least half.
type lag struct {
	reply   time.Duration // from the commit to the writer
	flush   time.Duration // a flush, without the wait for the lock
	deliver time.Duration // a notification, from the commit to the node
}

func newDatabase(seed uint64, l lag) *database {
	return &database{
		lag: l, flushed: make(chan struct{}, 1), rand: rand.New(rand.NewPCG(seed, seed)), //nolint:gosec // not secret
		commits: map[int64]time.Time{}, log: map[int64]bool{},
	}
}

// node is one process with its window.
type node struct {
	*Window
	d    *database
	news chan notification

	// Under the database's mutex.
	told  map[int64]time.Time
	since time.Time // when its listener came up
	deaf  bool      // its listener is down
	cut   bool      // none of its statements arrive
	dead  bool
	fails float64 // the share of its statements of which it gets no reply
}

type notification struct {
	from     uint32
	flush    bool
	versions []int64
	due      time.Time
}

func (d *database) join(window time.Duration) *node {
	n := &node{d: d, news: make(chan notification, 10_000), told: map[int64]time.Time{}, since: time.Now()}
	n.Window = New(window, false, n)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nodes = append(d.nodes, n)
	return n
}

func (d *database) random(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return most/2 + time.Duration(d.rand.Int64N(int64(most)/2+1))
}

// fate says whether the statement of a node arrives, and whether the reply does.
func (n *node) fate() (arrives, reply bool) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	if n.cut || n.dead {
		return false, false
	}
	if n.d.rand.Float64() < n.fails {
		return n.d.rand.IntN(2) == 0, false
	}
	return true, true
}

var errLost = errors.New("connection lost")

// write writes a row that others hold.
func (n *node) write() {
	d := n.d
	d.mu.Lock()
	d.next++
	v := d.next
	d.mu.Unlock()
	inline := n.Begin(false, v)
	arrives, reply := n.fate()
	late := time.Duration(0)
	if !reply {
		late = 2 * time.Second // in the server; the writer gives up
	}
	commit := func() {
		d.mu.Lock()
		d.commits[v] = time.Now()
		d.writes++
		if inline {
			d.inline++
		} else {
			d.log[v] = true
		}
		d.mu.Unlock()
		if inline {
			d.notify(notification{versions: []int64{v}})
		}
	}
	if arrives && reply {
		commit()
	} else if arrives {
		go func() {
			time.Sleep(d.random(late))
			commit()
		}()
	}
	time.Sleep(d.random(d.lag.reply))
	switch {
	case !reply:
		n.End(v, Unknown)
	case inline:
		n.End(v, Silent)
	default:
		n.End(v, Logged)
	}
}

// Flush implements Log. Like the statement, it sees what was committed when it was sent, waits for the lock, and tells
// what nobody has drained meanwhile.
func (n *node) Flush(ctx context.Context, id uint32) (changes, bytes int64, err error) {
	d := n.d
	arrives, reply := n.fate()
	if !arrives {
		time.Sleep(d.random(d.lag.flush))
		return 0, 0, errLost
	}
	d.mu.Lock()
	d.flushes++
	seen := slices.Collect(maps.Keys(d.log))
	d.mu.Unlock()
	d.flushed <- struct{}{}
	d.mu.Lock()
	empty := !slices.ContainsFunc(seen, func(v int64) bool { return d.log[v] })
	d.mu.Unlock()
	if empty {
		time.Sleep(d.random(d.lag.flush / 10))
	} else {
		time.Sleep(d.random(d.lag.flush))
	}
	d.mu.Lock()
	told := notification{from: id, flush: true}
	for _, v := range seen {
		if d.log[v] {
			told.versions = append(told.versions, v)
			delete(d.log, v)
		}
	}
	if len(told.versions) > 0 {
		d.tellings++
	}
	d.mu.Unlock()
	if len(told.versions) > 0 {
		d.notify(told)
	}
	<-d.flushed
	if !reply || ctx.Err() != nil {
		return 0, 0, errLost
	}
	return int64(len(told.versions)), 0, nil
}

func (*node) Vacuum(context.Context) error        { return nil }
func (*node) Drain(context.Context, uint32) error { return nil }

// notify tells everybody who listens.
func (d *database) notify(told notification) {
	for _, n := range d.nodes {
		told.due = time.Now().Add(d.random(d.lag.deliver))
		d.mu.Lock()
		deaf := n.deaf || n.dead
		d.mu.Unlock()
		if !deaf {
			n.news <- told
		}
	}
}

// listen delivers to the node what is told, in order.
func (n *node) listen(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case told := <-n.news:
			if d := time.Until(told.due); d > 0 {
				time.Sleep(d)
			}
			n.d.mu.Lock()
			now := time.Now()
			for _, v := range told.versions {
				if _, again := n.told[v]; !again {
					n.told[v] = now
				}
			}
			n.d.mu.Unlock()
			n.Told(told.versions)
			n.Heard(told.from, told.flush)
		}
	}
}

// soFar are the counts since the last call.
func (d *database) soFar() counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.counts
	d.counts = counts{}
	return c
}

// is asks how a node fares.
func (n *node) is(state func(n *node) bool) bool {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	return state(n)
}

// set changes how a node fares.
func (n *node) set(change func(n *node)) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	change(n)
}

// untold are the changes that one of the nodes has to be told of and was not.
func (d *database) untold(nodes ...*node) (versions []int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for v, at := range d.commits {
		if slices.ContainsFunc(nodes, func(n *node) bool {
			_, told := n.told[v]
			return !told && at.After(n.since)
		}) {
			versions = append(versions, v)
		}
	}
	return versions
}

// delays are how long it took from the commits until a node was told, the longest last.
func (d *database) delays(nodes ...*node) (delays []time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for v, at := range d.commits {
		for _, n := range nodes {
			if told, ok := n.told[v]; ok && at.After(n.since) {
				delays = append(delays, told.Sub(at))
			}
		}
	}
	slices.Sort(delays)
	return delays
}

// fleet is a database with nodes that run.
type fleet struct {
	*database
	t *testing.T
}

// run makes a fleet in a bubble. When test has returned, the fleet must fall silent, with nothing left to tell.
func run(t *testing.T, nodes int, l lag, test func(f *fleet)) {
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
			n := f.join(win)
			n.Listening()
			running.Go(func() { n.Run(ctx) })
			running.Go(func() { n.listen(ctx) })
		}
		rest(time.Minute)
		test(f)
		rest(2 * time.Minute) // with the minute that a write of unknown outcome is cared for
		f.mu.Lock()
		left := len(f.log)
		f.mu.Unlock()
		if left > 0 {
			t.Errorf("%d changes are left in the log", left)
		}
		f.soFar()
		rest(time.Hour)
		if n := f.soFar().flushes; n > 0 {
			t.Errorf("an idle fleet has sent %d statements in an hour", n)
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

// within checks that everything was told, and how soon.
func (f *fleet) within(p99, most time.Duration, nodes ...*node) counts {
	f.t.Helper()
	c := f.soFar()
	if left := f.untold(nodes...); len(left) > 0 {
		f.t.Errorf("%d of %d changes were not told to everybody", len(left), c.writes)
	}
	delays := f.delays(nodes...)
	if len(delays) == 0 {
		f.t.Fatal("nobody was told anything")
	}
	got99, gotMost := delays[len(delays)*99/100], delays[len(delays)-1]
	f.t.Logf("%d writes, %d inline; %d flushes, %d told something; told within %v (p50), %v (p99), %v (most)",
		c.writes, c.inline, c.flushes, c.tellings, delays[len(delays)/2], got99, gotMost)
	if got99 > p99 || gotMost > most {
		f.t.Errorf("told within %v (p99), %v (most); want %v, %v", got99, gotMost, p99, most)
	}
	return c
}

// usual is about what was measured at 20,000 writes a second.
var usual = lag{reply: time.Millisecond, flush: 4 * time.Millisecond, deliver: 5 * time.Millisecond}

// bound is what the rules give while nothing fails. A change is committed, and its writer learns of it within the reply.
// A window later its writer flushes, but for one thing: it has heard another's flush meanwhile, and gives it three windows
// for the next. If the flush that it has heard was sent after the commit, it has told the change; so it was sent before,
// and was heard a flush and a delivery after the commit at the latest. Then come the flush itself, what is queued before
// it, and its delivery.
func (l lag) bound(window time.Duration) time.Duration {
	return max(l.reply+window, l.flush+l.deliver+3*window) + 3*l.flush + l.deliver
}

// TestFleet: 16 nodes that write flush about once a window, all together, and everything is told in time.
func TestFleet(t *testing.T) {
	run(t, 24, usual, func(f *fleet) {
		const span = 2 * time.Second
		f.soFar()
		f.traffic(span, 5*time.Millisecond, f.nodes[:16]...)
		rest(time.Second)
		c := f.within(2*win+20*time.Millisecond, usual.bound(win), f.nodes...)
		beats := int(span / win)
		if n := c.tellings; n < beats/2 || n > beats*3/2 {
			t.Errorf("%d flushes have told something in %d windows", n, beats)
		}
		if n := c.flushes; n > 2*beats+5*len(f.nodes) {
			t.Errorf("%d flushes in %d windows", n, beats)
		}
		if c.inline > c.writes/50 {
			t.Errorf("%d of %d writes have told themselves", c.inline, c.writes)
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
			t.Errorf("%d of %d writes have told themselves", c.inline, c.writes)
		}
	})
}

// TestQuietFleet: writes that are rare are told at once.
func TestQuietFleet(t *testing.T) {
	run(t, 4, usual, func(f *fleet) {
		for i := range 100 {
			f.nodes[i%4].write()
			rest(3 * win)
		}
		f.within(usual.deliver, usual.deliver, f.nodes...)
	})
}

// TestNodesDie: what a node has written that dies, the others tell: within a beat while they write themselves, and
// within a second where nobody does.
func TestNodesDie(t *testing.T) {
	die := func(n *node) { n.set(func(n *node) { n.dead = true }) }
	t.Run("the one that beats", func(t *testing.T) {
		run(t, 16, usual, func(f *fleet) {
			var wg sync.WaitGroup
			wg.Go(func() { f.traffic(2*time.Second, 5*time.Millisecond, f.nodes...) })
			for range 8 {
				rest(200 * time.Millisecond)
				if i := slices.IndexFunc(f.nodes, func(n *node) bool {
					n.mu.Lock()
					defer n.mu.Unlock()
					return n.beating && !n.is(dead)
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
				rest(3 * time.Second)
			}
			f.within(sweepSoon+usual.flush+usual.deliver, sweepSoon+usual.flush+usual.deliver, last)
		})
	})
	// A new row is nobody's business, so nothing is told. What is written next must not count on others to be awake.
	t.Run("after a silent write", func(t *testing.T) {
		run(t, 3, usual, func(f *fleet) {
			n := f.nodes[0]
			n.Begin(false, -1)
			n.End(-1, Silent)
			n.write()
			die(n)
			rest(3 * time.Second)
			f.within(sweepSoon, sweepSoon, f.nodes[1:]...)
		})
	})
	t.Run("after it came", func(t *testing.T) {
		run(t, 3, usual, func(f *fleet) {
			n := f.nodes[0]
			n.Listening()
			n.write()
			die(n)
			rest(3 * time.Second)
			f.within(sweepSoon, sweepSoon, f.nodes[1:]...)
		})
	})
	// The statement of the dead is slow: what it writes comes after the beat has ended.
	t.Run("commits late", func(t *testing.T) {
		slow := lag{reply: time.Millisecond, flush: 40 * time.Millisecond, deliver: time.Millisecond}
		run(t, 2, slow, func(f *fleet) {
			n, other := f.nodes[0], f.nodes[1]
			for range 3 {
				other.write()
				rest(slow.deliver) // everybody is awake, and the other keeps a beat
			}
			if n.Begin(false, -1) {
				t.Fatal("the write is to tell itself")
			}
			n.set(func(n *node) { n.dead = true })
			rest(300 * time.Millisecond)
			f.mu.Lock()
			f.log[-1], f.commits[-1] = true, time.Now()
			f.mu.Unlock()
			rest(12 * time.Second)
			f.within(sweepSoon+slow.flush+slow.deliver, sweepSoon+slow.flush+slow.deliver, other)
		})
	})
	// The others write, seldom enough to tell themselves: nobody drains the log but the sweep.
	t.Run("amid writes that tell themselves", func(t *testing.T) {
		run(t, 3, usual, func(f *fleet) {
			n := f.nodes[0]
			f.nodes[1].write()
			rest(usual.deliver)
			n.write()
			die(n)
			rest(2 * win) // or they would be logged and flushed
			f.traffic(3*time.Second, 200*time.Millisecond, f.nodes[1])
			rest(time.Second)
			f.within(sweepSoon+usual.flush+usual.deliver, sweepSoon+usual.flush+usual.deliver, f.nodes[1:]...)
		})
	})
}

// TestPartitions: a node that hears nothing for a while, and one whose statements do not arrive, harm nobody else.
func TestPartitions(t *testing.T) {
	t.Run("deaf", func(t *testing.T) {
		run(t, 8, usual, func(f *fleet) {
			deaf := f.nodes[:2]
			for _, n := range deaf {
				n.set(func(n *node) { n.deaf = true })
			}
			f.traffic(time.Second, 5*time.Millisecond, f.nodes...)
			for _, n := range deaf {
				n.set(func(n *node) { n.deaf, n.since = false, time.Now() })
				n.Listening()
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
			rest(3 * time.Second)
			f.within(2*win+20*time.Millisecond, sweepSoon+usual.bound(win), f.nodes...)
		})
	})
	t.Run("halves", func(t *testing.T) {
		// Neither half hears the other's flushes, so each keeps a beat; when they hear each other, one of them goes on.
		run(t, 8, usual, func(f *fleet) {
			for _, n := range f.nodes[:4] {
				n.set(func(n *node) { n.deaf = true })
			}
			f.traffic(time.Second, 5*time.Millisecond, f.nodes...)
			for _, n := range f.nodes[:4] {
				n.set(func(n *node) { n.deaf, n.since = false, time.Now() })
				n.Listening()
			}
			rest(time.Minute)
			f.soFar()
			f.traffic(time.Second, 5*time.Millisecond, f.nodes...)
			rest(time.Second)
			c := f.within(2*win+20*time.Millisecond, usual.bound(win), f.nodes...)
			if beats := int(time.Second / win); c.tellings > beats*3/2 {
				t.Errorf("%d flushes have told something in %d windows", c.tellings, beats)
			}
		})
	})
}

// TestLostReplies: of each statement in twenty nobody learns what came of it, and it may be done seconds later. All that
// was committed is told, within a second of its commit.
func TestLostReplies(t *testing.T) {
	run(t, 8, usual, func(f *fleet) {
		for _, n := range f.nodes {
			n.set(func(n *node) { n.fails = 0.05 })
		}
		for range 4 {
			f.traffic(500*time.Millisecond, 10*time.Millisecond, f.nodes...)
			rest(5 * time.Second) // some are committed while nobody else writes
		}
		f.within(maxRetry, 2*maxRetry+usual.bound(win), f.nodes...)
	})
}

// TestSlowDatabase: where a flush takes longer than a window, nodes queue for it, but no more than one flush each.
func TestSlowDatabase(t *testing.T) {
	slow := lag{reply: 20 * time.Millisecond, flush: 60 * time.Millisecond, deliver: 30 * time.Millisecond}
	run(t, 16, slow, func(f *fleet) {
		f.traffic(3*time.Second, 20*time.Millisecond, f.nodes...)
		rest(3 * time.Second)
		queue := 16 * slow.flush
		if c := f.within(slow.bound(win)+queue, slow.bound(win)+queue, f.nodes...); c.flushes > 3*100 {
			t.Errorf("%d flushes", c.flushes)
		}
	})
}

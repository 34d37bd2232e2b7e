package window

import (
	"testing"
	"time"
)

// most is how far the windows of these tests stretch.
const most = 400 * time.Millisecond

// quick is a fleet at rest.
var quick = lag{reply: time.Millisecond, flush: 2 * time.Millisecond, deliver: 2 * time.Millisecond}

// stretching makes a fleet whose windows may be stretched.
func stretching(t *testing.T, nodes int, l lag, test func(f *fleet)) {
	runUpTo(t, nodes, l, most, test)
}

// TestStretch: where notifications take long to come, a fleet flushes less often, however many write; where they take no
// longer, as often as before. What is published late is late by the stretched window.
func TestStretch(t *testing.T) {
	stretching(t, 16, quick, func(f *fleet) {
		writers := f.nodes[:8]
		flushes := func() int {
			f.soFar()
			f.traffic(2*time.Second, 5*time.Millisecond, writers...)
			return f.soFar().flushes
		}
		before := flushes()
		if n := int(2 * time.Second / win); before < n/2 || before > n*3/2+40 {
			t.Errorf("%d flushes in %d windows", before, n)
		}
		for _, n := range f.nodes {
			if d := n.Current(); d > 2*win {
				t.Errorf("a node says %v", d)
			}
		}
		f.slow(most / 4)
		flushes()
		flushes()
		slow := flushes()
		if bound := before / 3; slow > bound {
			t.Errorf("%d flushes with notifications that take %v, want at most %d", slow, most/4, bound)
		}
		f.slow(quick.deliver)
		for range 5 {
			flushes()
		}
		if after := flushes(); after < before/2 || after > before*2 {
			t.Errorf("%d flushes before, %d afterwards", before, after)
		}
	})
}

// slow changes how long notifications take.
func (d *database) slow(deliver time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lag.deliver = deliver
}

// leads lets one node alone write for a while, so that it leads, and gives it the lowest id: of two that lead it stays.
func (f *fleet) leads(n *node, d time.Duration) {
	n.node = 1
	f.traffic(d, 5*time.Millisecond, n)
}

// atPresent is the longest window that a node of the fleet goes by.
func (f *fleet) atPresent() (longest time.Duration) { return f.atPresentOf(f.nodes...) }

func (f *fleet) atPresentOf(nodes ...*node) (longest time.Duration) {
	for _, n := range nodes {
		if !n.is(dead) {
			longest = max(longest, n.Current())
		}
	}
	return longest
}

// TestDistantLeader: a node that is far away from the server does not stretch the window of the others by leading.
func TestDistantLeader(t *testing.T) {
	stretching(t, 8, quick, func(f *fleet) {
		far := f.nodes[0]
		far.set(func(n *node) { n.distance = 100 * time.Millisecond })
		rest(roundTripPulses * 2 * pulseEvery)
		f.leads(far, 2*time.Second)
		if d := far.Current(); d > 2*win {
			t.Errorf("alone it flushes by %v", d)
		}
		f.traffic(2*time.Second, 5*time.Millisecond, f.nodes...)
		since := time.Now()
		for _, n := range f.nodes {
			n.set(func(n *node) { n.since = since })
		}
		f.traffic(5*time.Second, 5*time.Millisecond, f.nodes...)
		if d := f.atPresent(); d > 2*win {
			t.Errorf("the fleet goes by %v", d)
		}
		rest(time.Second)
		f.within(4*win, 8*win, f.nodes[1:]...)
	})
}

// TestSluggishLeader: one whose own notifications are late, because its process gets little time, stretches the window for a minute at
// the most, and leads no more then. The others are not led by it again.
func TestSluggishLeader(t *testing.T) {
	stretching(t, 8, quick, func(f *fleet) {
		f.nodes[0].set(func(n *node) { n.sluggish = 150 * time.Millisecond })
		f.leads(f.nodes[0], 2*time.Second)
		if d := f.nodes[0].Current(); d < 200*time.Millisecond {
			t.Errorf("alone it flushes by %v", d)
		}
		f.traffic(handOver+5*time.Second, 20*time.Millisecond, f.nodes...)
		f.soFar()
		for range 10 {
			f.traffic(time.Second, 5*time.Millisecond, f.nodes...)
			if d := f.atPresent(); d > 2*win {
				t.Errorf("the fleet goes by %v", d)
			}
		}
		if n, windows := f.soFar().flushes, int(10*time.Second/win); n > 2*windows {
			t.Errorf("%d flushes in %d windows", n, windows)
		}
	})
}

// TestHandOver: where the server is what is slow, a leader that invites others changes little, and one that nobody follows
// leads on.
func TestHandOver(t *testing.T) {
	slow := quick
	slow.deliver = most / 4
	for name, writers := range map[string]int{"one writes": 1, "all write": 8} {
		t.Run(name, func(t *testing.T) {
			stretching(t, 8, slow, func(f *fleet) {
				f.traffic(5*time.Second, 40*time.Millisecond, f.nodes[:writers]...)
				f.soFar()
				f.traffic(2*handOver, 40*time.Millisecond, f.nodes[:writers]...)
				rest(2 * time.Second)
				c := f.within(2*most, 5*most, f.nodes...)
				if expected := int(2 * handOver / most); c.found > 4*expected {
					t.Errorf("%d flushes have published something in %d of the longest windows", c.found, expected)
				}
			})
		})
	}
}

// TestLeaderDies: the next one goes on with the window that was found, however long that is, and does not go back to the
// shortest.
func TestLeaderDies(t *testing.T) {
	for _, longest := range []time.Duration{most, 2 * time.Second} {
		t.Run(longest.String(), func(t *testing.T) {
			slow := quick
			slow.deliver = longest / 4
			runUpTo(t, 6, slow, longest, func(f *fleet) {
				for _, n := range f.nodes {
					n.set(func(n *node) { n.noPulse = true }) // it would flush what is older than a second
				}
				f.traffic(10*longest, 5*time.Millisecond, f.nodes...)
				before := f.atPresent()
				if before < longest/4 {
					t.Fatalf("the window is %v", before)
				}
				for _, n := range f.nodes {
					if n.leads() {
						n.set(func(n *node) { n.dead = true })
					}
				}
				least := before
				for range 40 {
					f.traffic(longest/8, 5*time.Millisecond, f.nodes...)
					for _, n := range f.nodes {
						if n.leads() && !n.is(dead) {
							least = min(least, n.Current())
						}
					}
				}
				if least < before/4 {
					t.Errorf("from %v it went back to %v", before, least)
				}
				rest(4 * longest) // the last leader's empty flushes
				for _, n := range f.nodes {
					n.set(func(n *node) { n.noPulse = false })
				}
			})
		})
	}
}

func (n *node) leads() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.leading
}

// TestLaterThanTheLongest: notifications that take a little longer than the longest window arrive just behind the next flush, and
// are not taken for its.
func TestLaterThanTheLongest(t *testing.T) {
	stretching(t, 2, quick, func(f *fleet) {
		f.nodes[0].set(func(n *node) { n.sluggish = most + 10*time.Millisecond })
		f.leads(f.nodes[0], 3*time.Second)
		for range 20 {
			f.traffic(most, 5*time.Millisecond, f.nodes[0])
			if d := f.nodes[0].Current(); d < most {
				t.Errorf("it flushes by %v, want %v", d, most)
			}
		}
	})
}

// TestStall: the server answers nobody for two seconds, in which every node's flush waits. Then all is as before.
func TestStall(t *testing.T) {
	stretching(t, 16, quick, func(f *fleet) {
		f.traffic(time.Second, 5*time.Millisecond, f.nodes...)
		f.soFar()
		f.mu.Lock()
		f.stalled = time.Now().Add(2 * time.Second)
		f.mu.Unlock()
		f.traffic(4*time.Second, 5*time.Millisecond, f.nodes...)
		if n, windows := f.soFar().flushes, int(2*time.Second/win); n > 2*windows+6*len(f.nodes) {
			t.Errorf("%d flushes in %d windows", n, windows)
		}
		if d := f.atPresent(); d > 2*win {
			t.Errorf("two seconds later the fleet goes by %v", d)
		}
	})
}

// TestRecovery: when notifications come in time again the window is the configured one within five seconds.
func TestRecovery(t *testing.T) {
	stretching(t, 8, quick, func(f *fleet) {
		f.slow(most)
		f.traffic(5*time.Second, 5*time.Millisecond, f.nodes...)
		if d := f.atPresent(); d < most/2 {
			t.Errorf("the window is %v", d)
		}
		f.slow(quick.deliver)
		f.traffic(5*time.Second, 5*time.Millisecond, f.nodes...)
		if d := f.atPresent(); d > win {
			t.Errorf("after five seconds it is still %v", d)
		}
	})
}

// TestSettles: where each flush keeps the server busy, more of them are sent than it can bear for a moment only, and the
// window does not swing from end to end.
func TestSettles(t *testing.T) {
	heavy := quick
	heavy.cost = 40 * time.Millisecond
	stretching(t, 8, heavy, func(f *fleet) {
		f.traffic(10*time.Second, 5*time.Millisecond, f.nodes...)
		f.soFar()
		least, longest := most, time.Duration(0)
		for range 100 {
			f.traffic(100*time.Millisecond, 5*time.Millisecond, f.nodes...)
			d := f.atPresent()
			least, longest = min(least, d), max(longest, d)
		}
		c := f.soFar()
		if busy := time.Duration(c.found) * heavy.cost; busy > 6*time.Second {
			t.Errorf("in ten seconds %d flushes have kept the server busy for %v", c.found, busy)
		}
		if longest > 4*least || longest == most {
			t.Errorf("the window is from %v to %v long", least, longest)
		}
	})
}

// TestMixedMostWindows: a node whose window is not to be stretched flushes by its own where others are stretched further.
func TestMixedMostWindows(t *testing.T) {
	slow := quick
	slow.deliver = most / 4
	stretching(t, 8, slow, func(f *fleet) {
		for i, n := range f.nodes[:4] {
			n.maxWindow = win
			n.node = uint32(i)<<30 + 1 // some below the others' ids, some above
		}
		f.traffic(10*time.Second, 5*time.Millisecond, f.nodes...)
		rest(2 * time.Second)
		f.within(slow.bound(win), slow.bound(win)+3*win, f.nodes...)
		for _, n := range f.nodes[:4] {
			if d := n.Current(); d > win {
				t.Errorf("one goes by %v", d)
			}
		}
	})
}

// TestMixedConfigured: a node whose window is short does not go on with the window of one that was configured with a longer: that shows
// nothing of what flushes cost.
func TestMixedConfigured(t *testing.T) {
	for _, long := range []time.Duration{most / 2, time.Second, 2 * time.Second} {
		t.Run(long.String(), func(t *testing.T) {
			stretching(t, 4, quick, func(f *fleet) {
				slow, fast := f.nodes[0], f.nodes[1:]
				slow.window, slow.maxWindow, slow.current = long, max(long, most), long
				for range 5 {
					f.traffic(3*long, 20*time.Millisecond, slow)
					rest(f.random(long)) // what it has written is flushed or will be
					f.mu.Lock()
					clear(f.commits)
					f.mu.Unlock()
					f.traffic(300*time.Millisecond, 20*time.Millisecond, fast...)
					if d := f.atPresentOf(fast...); d > 2*win {
						t.Errorf("the others go by %v", d)
					}
					rest(4 * long)
					f.within(2*win+20*time.Millisecond, usual.bound(win), f.nodes...)
				}
			})
		})
	}
}

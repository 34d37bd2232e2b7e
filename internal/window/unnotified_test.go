package window

import (
	"testing"
	"time"
)

// unnotify has nodes receive nothing, as those without a listener do.
func (f *fleet) unnotify(nodes ...*node) {
	for _, n := range nodes {
		n.mute(true)
	}
}

// TestUnnotifiedFleet: nodes that receive nothing flush about once a window, all together, whoever else writes, and everything is
// published in time.
func TestUnnotifiedFleet(t *testing.T) {
	for name, c := range map[string]struct {
		unnotified, ears, writing int // writing: of those that listen
		pause                     time.Duration
	}{
		"one":                         {1, 4, 0, 5 * time.Millisecond},
		"four":                        {4, 4, 0, 5 * time.Millisecond},
		"many":                        {24, 4, 0, 5 * time.Millisecond},
		"four that write rarely":      {4, 4, 0, 80 * time.Millisecond},
		"many that write rarely":      {24, 4, 0, 480 * time.Millisecond},
		"beside one that listens":     {4, 4, 1, 5 * time.Millisecond},
		"beside many that listen":     {8, 8, 8, 5 * time.Millisecond},
		"beside one that writes less": {8, 8, 1, 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			stretching(t, c.unnotified+c.ears, quick, func(f *fleet) {
				unnotified, ears := f.nodes[:c.unnotified], f.nodes[c.unnotified:]
				f.unnotify(unnotified...)
				const span = 3 * time.Second
				f.soFar()
				f.traffic(span, c.pause, f.nodes[:c.unnotified+c.writing]...)
				rest(time.Second)
				asked := f.asked
				got := f.within(4*win+20*time.Millisecond, 8*win, ears...)
				windows := int(span / win)
				if got.found > windows*5/4 {
					t.Errorf("%d flushes have published something in %d windows", got.found, windows)
				}
				t.Logf("%d windows, %d questions", windows, asked)
				if asked > windows*c.unnotified*5/4 {
					t.Errorf("%d questions of %d nodes in %d windows", asked, c.unnotified, windows)
				}
			})
		})
	}
}

// TestUnnotifiedStretched: where notifications take long to come, unnotified nodes leave the log to a node that listens, whether that writes or
// not, and so flush by the window that it finds.
func TestUnnotifiedStretched(t *testing.T) {
	slow := quick
	slow.deliver = most / 4
	for name, writing := range map[string]int{"beside one that writes": 1, "beside those that do not": 0} {
		t.Run(name, func(t *testing.T) {
			stretching(t, 8, slow, func(f *fleet) {
				unnotified, ears := f.nodes[:4], f.nodes[4:]
				f.unnotify(unnotified...)
				f.traffic(5*time.Second, 5*time.Millisecond, f.nodes[:4+writing]...)
				f.soFar()
				const span = 20 * time.Second
				f.traffic(span, 5*time.Millisecond, f.nodes[:4+writing]...)
				rest(2 * time.Second)
				c := f.within(3*most, 5*most, ears...)
				if bound := int(span/win) / 2; c.found > bound {
					t.Errorf("%d flushes have published something, want at most %d", c.found, bound)
				}
			})
		})
	}
}

// TestUnnotifiedLeaderDies: what unnotified nodes have left to a node that listens they publish themselves when that dies.
func TestUnnotifiedLeaderDies(t *testing.T) {
	stretching(t, 6, quick, func(f *fleet) {
		unnotified, leader, ear := f.nodes[:4], f.nodes[4], f.nodes[5]
		f.unnotify(unnotified...)
		ear.set(func(n *node) { n.noPulse = true }) // it would relieve them
		f.traffic(time.Second, 5*time.Millisecond, f.nodes[:5]...)
		if !leader.leads() {
			t.Error("the node that listens does not lead")
		}
		leader.set(func(n *node) { n.dead = true })
		f.traffic(time.Second, 5*time.Millisecond, unnotified...)
		rest(time.Second)
		f.within(3*win+20*time.Millisecond, 8*win, ear)
		ear.set(func(n *node) { n.noPulse = false })
	})
}

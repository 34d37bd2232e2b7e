package window

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
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

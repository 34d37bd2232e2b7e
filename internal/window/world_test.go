package window

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/pgcache/go/internal/notify"
)

// database is what a fleet of windows shares: rows nobody sees, a change log, and notifications. Everything takes its
// time, and may fail.
type database struct {
	lag     lag           // to be read and set with the mutex held while nodes run
	flushed chan struct{} // the lock of the flush that is under way

	mu      sync.Mutex
	rand    *rand.Rand
	next    int64               // version
	commits map[int64]time.Time // of versions that have to be published
	log     map[int64]time.Time // committed, not flushed: when it was logged
	nodes   []*node
	broken  bool      // every flush fails
	busy    time.Time // until then the server has other things to do
	stalled time.Time // until then it answers nobody
	counts
}

type counts struct {
	flushes int // statements
	found   int // flushes that found something
	asked   int // questions for the oldest change
	inline  int // writes that published themselves
	writes  int // committed
}

// lag is how long things take at the most: a random part of it at least half.
type lag struct {
	reply   time.Duration // from the commit to the writer
	flush   time.Duration // a flush, without the wait for the lock
	deliver time.Duration // a notification, from the commit to the node
	cost    time.Duration // that a flush keeps the server busy: notifications wait until it has time
}

func newDatabase(seed uint64, l lag) *database {
	return &database{
		lag: l, flushed: make(chan struct{}, 1), rand: rand.New(rand.NewPCG(seed, seed)), //nolint:gosec // not secret
		commits: map[int64]time.Time{}, log: map[int64]time.Time{},
	}
}

// node is one process with its window.
type node struct {
	*Window
	d    *database
	news chan notification

	// Under the database's mutex.
	received map[int64]time.Time // when each version was published to it
	since    time.Time           // when its listener came up
	silent   bool                // its listener is down
	cut      bool                // none of its statements arrive
	dead     bool
	fails    float64       // the share of its statements of which it gets no reply
	distance time.Duration // of a round trip to the server
	sluggish time.Duration // that it takes to read a notification
	noPulse  bool
}

type notification struct {
	notify.Message
	versions []int64
	due      time.Time
}

func (d *database) join(window time.Duration) *node { return d.joinUpTo(window, window) }

// joinUpTo adds a node whose window may be stretched.
func (d *database) joinUpTo(window, most time.Duration) *node {
	n := &node{d: d, news: make(chan notification, 10_000), received: map[int64]time.Time{}, since: time.Now()}
	n.Window = New(window, most, false, n)
	n.SetListening(true)
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
			d.log[v] = time.Now()
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
		n.End(v, Published)
	default:
		n.End(v, Logged)
	}
}

func (n *node) Pending(context.Context) (bool, error) { return true, nil }

func (n *node) Oldest(context.Context) (time.Duration, error) {
	arrives, reply := n.fate()
	defer n.travel()()
	n.d.stall()
	time.Sleep(n.d.random(n.d.lag.reply) / 2)
	age := time.Duration(-1)
	n.d.mu.Lock()
	for _, at := range n.d.log {
		age = max(age, time.Since(at))
	}
	n.d.asked++
	n.d.mu.Unlock()
	time.Sleep(n.d.random(n.d.lag.reply) / 2)
	if !arrives || !reply {
		return 0, errLost
	}
	return age, nil
}

// Flush implements Log. Like the statement, it does nothing beside another.
func (n *node) Flush(ctx context.Context, sender string) (changes, bytes int64, err error) {
	d := n.d
	arrives, reply := n.fate()
	if !arrives {
		time.Sleep(d.random(d.lag.flush))
		return 0, 0, errLost
	}
	defer n.travel()()
	d.stall()
	d.mu.Lock()
	d.flushes++
	broken := d.broken
	d.mu.Unlock()
	if broken {
		return 0, 0, errors.New("the flush is refused")
	}
	select {
	case d.flushed <- struct{}{}:
	default:
		return 0, 0, ErrBusy
	}
	d.mu.Lock()
	seen := slices.Collect(maps.Keys(d.log))
	d.mu.Unlock()
	empty := len(seen) == 0
	if empty {
		time.Sleep(d.random(d.lag.flush / 10))
	} else {
		time.Sleep(d.random(d.lag.flush))
	}
	d.mu.Lock()
	head, err := notify.Parse(string(notify.Flush) + notify.AnyCache + sender)
	if err != nil {
		panic(err)
	}
	out := notification{Message: head, versions: seen}
	for _, v := range seen {
		delete(d.log, v)
	}
	if len(seen) > 0 {
		d.found++
	}
	d.mu.Unlock()
	if len(seen) > 0 {
		d.notify(out)
	}
	<-d.flushed
	if !reply || ctx.Err() != nil {
		return 0, 0, errLost
	}
	return int64(len(seen)), 0, nil
}

func (*node) Vacuum(context.Context) error        { return nil }
func (*node) Drain(context.Context, string) error { return nil }

// notify reaches everybody who listens.
func (d *database) notify(out notification) {
	d.mu.Lock()
	now := time.Now()
	if d.busy.Before(now) {
		d.busy = now
	}
	if out.Flush {
		d.busy = d.busy.Add(d.lag.cost)
	}
	wait := d.busy.Sub(now)
	d.mu.Unlock()
	for _, n := range d.nodes {
		d.mu.Lock()
		deliver, own := d.lag.deliver, n.distance/2+n.sluggish
		d.mu.Unlock()
		out.due = time.Now().Add(wait + d.random(deliver) + own)
		d.mu.Lock()
		silent := n.silent || n.dead
		d.mu.Unlock()
		if !silent {
			n.news <- out
		}
	}
}

// listen delivers to the node what is published, in order.
func (n *node) listen(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case out := <-n.news:
			if d := time.Until(out.due); d > 0 {
				time.Sleep(d)
			}
			n.d.mu.Lock()
			now := time.Now()
			for _, v := range out.versions {
				if _, again := n.received[v]; !again {
					n.received[v] = now
				}
			}
			n.d.mu.Unlock()
			n.Published(out.versions)
			n.Received(out.Message)
		}
	}
}

// pulseEvery and behind are those of pgcache/pulse.go.
const (
	pulseEvery = 2 * time.Second
	behind     = time.Second
)

// pulse looks into the log from time to time, as a node does that listens.
func (n *node) pulse(ctx context.Context) {
	time.Sleep(n.d.random(pulseEvery))
	for ctx.Err() == nil {
		n.d.mu.Lock()
		old := false
		for _, at := range n.d.log {
			old = old || time.Since(at) > behind
		}
		able := !n.silent && !n.dead && !n.cut && !n.noPulse
		took := n.distance + max(0, time.Until(n.d.busy)) + n.d.lag.reply
		n.d.mu.Unlock()
		if able {
			n.AddRoundTrip(took)
		}
		if old && able {
			_ = n.FlushNow(ctx) // a node whose flush fails forgets what it holds
		}
		if able {
			_ = n.Relieve(ctx)
		}
		select {
		case <-time.After(pulseEvery):
		case <-ctx.Done():
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

// travel is a statement's way to the server; what it returns is the way back.
func (n *node) travel() (back func()) {
	n.d.mu.Lock()
	half := n.distance / 2
	n.d.mu.Unlock()
	time.Sleep(half)
	return func() { time.Sleep(half) }
}

// stall waits while the server answers nobody.
func (d *database) stall() {
	d.mu.Lock()
	wait := time.Until(d.stalled)
	d.mu.Unlock()
	time.Sleep(wait)
}

// mute changes whether a node's listener is down.
func (n *node) mute(yes bool) {
	n.set(func(n *node) { n.silent, n.since = yes, time.Now() })
	n.SetListening(!yes)
	n.SetUnnotified(yes)
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

// unpublished are the changes that one of the nodes should have received and has not.
func (d *database) unpublished(nodes ...*node) (versions []int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for v, at := range d.commits {
		if slices.ContainsFunc(nodes, func(n *node) bool {
			_, received := n.received[v]
			return !received && at.After(n.since)
		}) {
			versions = append(versions, v)
		}
	}
	return versions
}

// delays are how long it took from the commits until a node received them, the longest last.
func (d *database) delays(nodes ...*node) (delays []time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for v, at := range d.commits {
		for _, n := range nodes {
			if received, ok := n.received[v]; ok && at.After(n.since) {
				delays = append(delays, received.Sub(at))
			}
		}
	}
	slices.Sort(delays)
	return delays
}

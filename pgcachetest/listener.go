package pgcachetest

import (
	"context"
	"errors"
	"sync"

	"github.com/pgcache/go/pgcache"
)

// ErrStopped is why a cache's listener is down after Stop.
var ErrStopped = errors.New("pgcachetest: the listener was stopped")

// NoListener as Options.Listener makes New and Nodes return caches without a listener: they keep nothing in memory, unless
// LocalTTL is set.
var NoListener pgcache.Listener = noListener{}

type noListener struct{}

func (noListener) Listen(context.Context, string, pgcache.Subscriber) error {
	return errors.New("pgcachetest: NoListener is for New and Nodes, pgcache.New wants nil")
}

// Listener is a pgcache.Listener that can be stopped and started. It may serve several caches. Its methods are safe for
// concurrent use.
type Listener struct {
	inner pgcache.Listener

	mu      sync.Mutex
	stopped bool
	changed chan struct{} // closed and replaced by Start
	runs    map[*run]bool
}

// run is one call of the inner Listener's Listen.
type run struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// NewListener returns a Listener that is started and does what inner does.
func NewListener(inner pgcache.Listener) *Listener {
	return &Listener{inner: inner, changed: make(chan struct{}), runs: map[*run]bool{}}
}

// Stop makes the listener lose its connection. When it returns the caches have noticed: they have forgotten what was in
// memory, and every Get asks the database.
func (l *Listener) Stop() {
	l.mu.Lock()
	l.stopped = true
	var runs []*run
	for r := range l.runs {
		r.cancel()
		runs = append(runs, r)
	}
	l.mu.Unlock()
	for _, r := range runs {
		<-r.done
	}
}

// Start lets the listener connect again. To wait until a cache trusts it, call the cache's Ready.
func (l *Listener) Start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		l.stopped = false
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

// begin registers a run that Stop ends with cancel. While the listener is stopped it returns no run, but the channel that Start
// will close.
func (l *Listener) begin(cancel context.CancelFunc) (*run, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return nil, l.changed
	}
	r := &run{cancel, make(chan struct{})}
	l.runs[r] = true
	return r, nil
}

// end lets a Stop that waits for r go on. It is called when the cache has noticed the end of r.
func (l *Listener) end(r *run) {
	l.mu.Lock()
	delete(l.runs, r)
	l.mu.Unlock()
	close(r.done)
}

// Listen implements pgcache.Listener.
func (l *Listener) Listen(ctx context.Context, channel string, sub pgcache.Subscriber) error {
	for ctx.Err() == nil {
		running, cancel := context.WithCancel(ctx)
		r, started := l.begin(cancel)
		if r == nil {
			cancel()
			select {
			case <-started:
			case <-ctx.Done():
			}
			continue
		}
		err := l.inner.Listen(running, channel, sub)
		stopped := running.Err() != nil && ctx.Err() == nil
		cancel()
		if stopped {
			sub.Down(ErrStopped)
		}
		l.end(r)
		if err != nil || !stopped {
			return err
		}
	}
	return nil
}

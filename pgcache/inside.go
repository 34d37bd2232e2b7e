package pgcache

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/pgcache/go/internal/inside"
	"github.com/pgcache/go/internal/store"
)

// This file gives pgcachetest and pgcacheui what they need of a Cache beyond its methods, see package inside.

func init() {
	inside.Of = func(cache any) inside.Cache {
		c := cache.(*Cache)
		if c.null {
			return inside.Cache{CatchUp: c.catchUp}
		}
		return inside.Cache{
			DB: c.db, Names: c.store.Names, CatchUp: c.catchUp, State: c.state, Figures: c.figures,
			IdleAfter: func(d time.Duration) { c.pulsing.idleAfter.Store(int64(d)) },
		}
	}
}

func (c *Cache) state() inside.State {
	s := inside.State{Live: c.local.Live(), Idle: c.onlyIdle(), Listens: c.opts.Listener != nil, Polls: c.polling.Load(), Closed: c.ctx.Err() != nil}
	if !s.Live && !s.Closed {
		s.Err, s.Permanent = c.listening.err()
	}
	if m, ok := c.opts.Local.(interface {
		Size() (entries int, full float64)
	}); ok {
		s.Memory.Entries, s.Memory.Full = m.Size()
		s.Memory.Known = true
	}
	return s
}

func (c *Cache) figures(ctx context.Context) (store.Figures, error) {
	if err := c.check(ctx); err != nil {
		return store.Figures{}, fail("figures", "", err)
	}
	ctx, cancel := c.statement(ctx)
	defer cancel()
	f, err := c.store.Figures(ctx)
	return f, fail("figures", "", c.explain(ctx, err))
}

const catchUpPause = 5 * time.Millisecond

// catchUp returns when this node answers with nothing older than what was committed before the call. It flushes the change log
// and then sends a probe, which the listener delivers after everything that was published before it.
//
//	another node   Set ──► COMMIT
//	catchUp                         flush ~► invalidation    probe ~► echo
//	this node                                    applied              received: catchUp returns
func (c *Cache) catchUp(ctx context.Context) error {
	if c.null || c.opts.Listener == nil {
		c.local.Forget() // it receives no notifications; with a LocalTTL it may hold something
		return nil
	}
	for {
		// A node whose listener is lost has forgotten everything, and reads anew.
		changed, live := c.listening.state()
		if !live {
			return nil
		}
		if c.ctx.Err() != nil {
			return ErrClosed
		}
		err := c.window.FlushNow(ctx)
		if err == nil {
			if c.polling.Load() {
				err = c.polledTwice(ctx, changed)
			} else {
				err = c.echoed(ctx, changed)
			}
			if err == nil {
				return nil
			}
		}
		select {
		case <-changed:
		case <-time.After(catchUpPause):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// echoed sends a probe and waits until it has come back. It is an error if the listener was lost or restarted meanwhile: then
// changed is closed.
func (c *Cache) echoed(ctx context.Context, changed <-chan struct{}) error {
	nonce := rand.Text() + ":" // as long as those of listeners
	received := c.echoes.expect(nonce)
	defer c.echoes.forget(nonce)
	statement, cancel := c.statement(ctx)
	defer cancel()
	if err := c.store.Probe(statement, ProbePrefix+nonce); err != nil {
		return err
	}
	select {
	case <-received:
		return nil
	case <-changed:
		return errors.New("the listener has changed")
	case <-statement.Done():
		return statement.Err()
	}
}

// polledTwice waits for the beginning of the second poll from now: the first has read what was published before, and it has
// been applied.
func (c *Cache) polledTwice(ctx context.Context, changed <-chan struct{}) error {
	tick := time.NewTicker(catchUpPause)
	defer tick.Stop()
	for until := c.polls.Load() + 2; c.polls.Load() < until; {
		select {
		case <-tick.C:
		case <-changed:
			return errors.New("the listener has changed")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// echoes are the probes that catchUp waits for. The zero value is none.
type echoes struct {
	mu      sync.Mutex
	waiting map[string]chan struct{} // by nonce, with its colon; closed by received
}

func (e *echoes) expect(nonce string) <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.waiting == nil {
		e.waiting = map[string]chan struct{}{}
	}
	received := make(chan struct{})
	e.waiting[nonce] = received
	return received
}

func (e *echoes) forget(nonce string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.waiting, nonce)
}

// received is called with every probe that the listener delivers.
func (e *echoes) received(payload string) {
	nonce := strings.TrimPrefix(payload, ProbePrefix)
	if i := strings.IndexByte(nonce, ':'); i >= 0 {
		nonce = nonce[:i+1]
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if received := e.waiting[nonce]; received != nil {
		close(received)
		delete(e.waiting, nonce)
	}
}

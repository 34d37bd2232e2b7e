package listener

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// hubs holds the hubs in use. A hub is in it while a Listen call that it serves is under way.
var hubs = struct {
	sync.Mutex
	byKey map[hubKey]*hub
}{byKey: map[hubKey]*hub{}}

type hubKey struct {
	key any
	cfg Config
}

// The parts of a Listener that listens:
//
//	hub      one goroutine, from the first Listen call that shares it to the last: connect, serve, back off, connect again
//	session  one connection of the hub: LISTEN, Wait, heartbeat, and the watchdog that closes it
//	member   one Listen call: its Subscriber, its probe, and whether it is live
//
// The Subscriber's Trust, Notify and Down run on the hub's goroutine, each Probe on one of its own.

// hub is one goroutine with one connection, and the members it serves: one for each Listen call.
type hub struct {
	hubKey
	dial Dial
	stop context.CancelFunc
	done chan struct{} // closed when the goroutine has ended and its connection is closed
	err  error         // why it ended by itself; read it after done

	mu        sync.Mutex
	members   map[string][]*member // by channel; a slice is never changed in place, so that it can be ranged over unlocked
	changed   bool                 // members, or the outcome of a Probe, have changed since the goroutine looked
	interrupt context.CancelFunc   // ends the Wait that is under way; nil: none is
	awaited   []*member            // those that are probing, while no echo has arrived: the Wait may not be ended then, see session.proven
}

// join adds m to the key's hub, which it starts when there is none.
func join(key hubKey, dial Dial, m *member) *hub {
	hubs.Lock()
	defer hubs.Unlock()
	h := hubs.byKey[key]
	if h == nil {
		ctx, cancel := context.WithCancel(context.Background())
		h = &hub{hubKey: key, dial: dial, stop: cancel, done: make(chan struct{}), members: map[string][]*member{}}
		hubs.byKey[key] = h
		defer func() { go h.run(ctx) }() // with m in it: the first attempt is made for m, whose Subscriber learns how it went
	}
	m.wake = func() { h.wake(m) }
	h.mu.Lock()
	h.members[m.channel] = append(slices.Clip(h.members[m.channel]), m)
	h.mu.Unlock()
	h.wake(m)
	return h
}

// leave removes m. When it returns, no method of m's Subscriber runs, but for a Probe that is stuck, and if m was the last
// member, the hub is gone.
func (h *hub) leave(m *member) {
	hubs.Lock()
	h.mu.Lock()
	rest := slices.DeleteFunc(slices.Clone(h.members[m.channel]), func(o *member) bool { return o == m })
	if h.members[m.channel] = rest; len(rest) == 0 {
		delete(h.members, m.channel) // the session goes on listening; what it receives is dropped
	}
	last := len(h.members) == 0
	h.mu.Unlock()
	if last {
		delete(hubs.byKey, h.hubKey) // nobody joins any more
		h.stop()
	}
	hubs.Unlock()

	h.wake(m) // members that joined while m was probing may start now
	m.leave()
	if last {
		<-h.done
	}
}

// run connects, serves until the connection is in doubt, backs off, and starts over.
func (h *hub) run(ctx context.Context) {
	defer close(h.done)
	pause := newBackoff(h.cfg.BackoffMin, h.cfg.BackoffMax)
	for {
		live, err := h.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		if isPermanent(err) {
			h.err = err
			return
		}
		if live >= h.cfg.HeartbeatEvery {
			pause.reset()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause.delay()):
		}
		// A connection that was live for less than a heartbeat neither doubles nor resets the bound. Doubling it would keep a
		// node down for seconds after its sessions have stopped being ended; resetting it would let all nodes reconnect at once.
		if live == 0 {
			pause.grow()
		}
	}
}

// wake makes the goroutine look at its members again, because something about m has changed. The echo of m is not awaited from here on.
// It ends the Wait that is under way, unless the echo of another is awaited: then the goroutine looks when that has arrived or was
// given up.
func (h *hub) wake(m *member) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changed = true
	h.awaited = slices.DeleteFunc(h.awaited, func(o *member) bool { return o == m })
	if h.interrupt != nil && len(h.awaited) == 0 {
		h.interrupt()
	}
}

// setInterrupt stores the cancel function of the Wait that begins, or nil at its end. False: the members have changed since look, so don't
// wait.
func (h *hub) setInterrupt(interrupt context.CancelFunc) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.interrupt = interrupt
	return !h.changed
}

// setAwaited says whose echoes are awaited while none has arrived. It keeps the slice, and wake takes members out of it in place.
func (h *hub) setAwaited(members []*member) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.awaited = members
}

// look returns all members and clears changed; what happens to them from here on sets it again.
func (h *hub) look() []*member {
	h.mu.Lock()
	h.changed = false
	h.mu.Unlock()
	return h.all()
}

// all returns all members, and leaves changed as it is.
func (h *hub) all() []*member {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Concat(slices.Collect(maps.Values(h.members))...)
}

// membersOn returns the members on a channel.
func (h *hub) membersOn(channel string) []*member {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.members[channel]
}

// down has every member wait for the next connection, and calls Down of its Subscriber with err.
func (h *hub) down(err error) {
	for _, m := range h.all() {
		m.down(err)
	}
}

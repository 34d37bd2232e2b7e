package listener

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgcache/go/pgcache"
)

// probeGrace is how long Listen waits for a Probe to notice that ctx has ended.
const probeGrace = 500 * time.Millisecond

// member is one Listen call: its Subscriber, and its state on the connection in use.
//
//	waiting -- due, LISTEN, Probe --> probing -- echo --> live
//	   ^------ Probe failed, no echo ----'                 |
//	   ^------ the connection is in doubt -----------------'
type member struct {
	cfg     Config
	channel string
	sub     pgcache.Subscriber
	ctx     context.Context // Listen's own, ended at the latest when it returns
	cancel  context.CancelFunc
	wake    func()      // makes the hub look again
	warn    func(error) // logs ErrNoEcho, once for each Listener

	// mu makes the Subscriber's methods serial and keeps them from running once Listen has returned.
	mu       sync.Mutex
	gone     bool
	state    state
	reported bool      // Down was called for the current failure; cleared when an attempt begins
	at       time.Time // waiting: when to try; probing: when to give up
	nonce    string    // of the latest probe
	sent     time.Time // when it was
	probe    *probe    // the latest, nil before the first; there is never more than one whose Probe is running
	retry    backoff
}

// state is how far a member is on the connection in use.
type state int

const (
	waiting state = iota // until member.at, for the next probe
	probing              // until member.at at the latest, for the echo
	live                 // trusted from heartbeat to heartbeat
)

// probe is one call of Subscriber.Probe.
type probe struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // read it after done
}

func newMember(ctx context.Context, cfg Config, channel string, sub pgcache.Subscriber) *member {
	m := &member{cfg: cfg, channel: channel, sub: sub, retry: newBackoff(cfg.BackoffMin, cfg.BackoffMax)}
	m.ctx, m.cancel = context.WithCancel(ctx)
	return m
}

// renew begins an attempt with a new connection.
func (m *member) renew() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state, m.at, m.reported = waiting, time.Time{}, false
}

// due reports whether a probe can be sent now: not while the Probe of an earlier one is still running, so that there is at most one.
func (m *member) due(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state == waiting && !now.Before(m.at) && !m.probe.running()
}

// begin sends a probe, on a goroutine of its own: it goes over the Subscriber's connections, which may be slow or
// exhausted, while the hub's goroutine has to read the echo.
func (m *member) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone {
		return
	}
	m.state, m.reported = probing, false
	m.nonce = rand.Text() + ":" // of one length, so that none is a prefix of another
	m.sent = time.Now()
	m.at = m.sent.Add(m.cfg.ProbeTimeout)

	ctx, cancel := context.WithDeadline(m.ctx, m.at)
	p, nonce := &probe{cancel: cancel, done: make(chan struct{})}, m.nonce
	m.probe = p
	go func() {
		defer cancel()
		p.err = m.sub.Probe(ctx, nonce)
		close(p.done)
		if p.err != nil || !m.is(probing) {
			m.wake() // not while the echo is awaited: see hub.wake
		}
	}()
}

// failed gives up the probe if it could not be sent or its echo did not arrive in time, and returns why; else nil.
func (m *member) failed(now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state != probing {
		return nil
	}
	var err error
	switch late := !now.Before(m.at); {
	case !m.probe.running() && m.probe.err != nil:
		err = fmt.Errorf("pgcache: listener: send the probe: %w", m.probe.err)
	case late && m.probe.running():
		err = fmt.Errorf("pgcache: listener: the probe could not be sent within %v", m.cfg.ProbeTimeout)
	case late:
		err = fmt.Errorf("pgcache: listener: no echo of the probe on %q within %v: %w",
			m.channel, m.cfg.ProbeTimeout, ErrNoEcho)
		m.warn(err)
	default:
		return nil
	}
	m.state, m.at = waiting, now.Add(m.retry.delay())
	m.retry.grow()
	m.reportDown(err)
	return err
}

// schedule returns when to look at m again if nothing happens, or zero: never.
func (m *member) schedule() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == live || m.state == waiting && m.probe.running() {
		return time.Time{}
	}
	return m.at
}

// is reports whether m is in the state.
func (m *member) is(s state) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state == s
}

// some reports whether one of the members is in the state.
func some(members []*member, s state) bool {
	return slices.ContainsFunc(members, func(m *member) bool { return m.is(s) })
}

// notify delivers payload. If that is the echo of the current probe, m becomes live, and notify returns the time at which the
// probe was sent: every notification that was committed between LISTEN and then has been delivered.
func (m *member) notify(payload string) (sent time.Time, echo bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone {
		return time.Time{}, false
	}
	m.sub.Notify(payload)
	if m.state == probing && strings.HasPrefix(payload, pgcache.ProbePrefix+m.nonce) {
		m.state = live
		m.retry.reset()
		m.sub.Trust(m.trusted(m.sent))
		return m.sent, true
	}
	return time.Time{}, false
}

// idle reports whether the Subscriber has a method Idle and says by it that nobody reads through it: it serves nothing from memory.
func (m *member) idle() bool {
	s, ok := m.sub.(interface{ Idle() bool })
	return ok && s.Idle()
}

// answered passes on that a heartbeat asked for at the given time was answered.
func (m *member) answered(asked time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == live && !m.gone {
		m.sub.Trust(m.trusted(asked))
	}
}

// trusted is the end of a Trust that was confirmed at asked.
func (m *member) trusted(asked time.Time) time.Time {
	return asked.Add(m.cfg.HeartbeatEvery + m.cfg.HeartbeatTimeout)
}

// down ends whatever m was doing on a connection that has failed.
func (m *member) down(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = waiting
	if m.probe != nil {
		m.probe.cancel() // the next connection needs one of its own
	}
	m.reportDown(err)
}

// reportDown calls Down unless it was called for this failure. With the mutex held.
func (m *member) reportDown(err error) {
	if !m.reported && !m.gone {
		m.reported = true
		m.sub.Down(err)
	}
}

// leave sees to it that no method of the Subscriber is called any more. It waits for one that is under way, but for a Probe not longer
// than probeGrace: not every driver's statement ends with its context when the network is gone.
func (m *member) leave() {
	m.cancel()
	m.mu.Lock()
	m.gone = true
	p := m.probe
	m.mu.Unlock()
	if p != nil {
		select {
		case <-p.done:
		case <-time.After(probeGrace):
		}
	}
}

// running reports whether its Probe has not returned. nil is not running.
func (p *probe) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

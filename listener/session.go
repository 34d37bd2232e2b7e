package listener

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pgcache/go/internal/panics"
)

// closeGrace is how long an orderly end of a session may take before it is cut off.
const closeGrace = 250 * time.Millisecond

// session is one connection's life. All its methods run on the hub's goroutine.
type session struct {
	*hub
	ctx       context.Context // the hub's
	conn      Conn
	listening map[string]bool // channels LISTEN was run for

	// watchdog closes the connection if the hub's goroutine is still in Listen, Wait, Ping or a Subscriber's method at the
	// deadline. After the first echo the deadline is the end of the last Trust. It can't interrupt a Subscriber.
	watchdog *time.Timer
	overdue  atomic.Bool // the watchdog has closed the connection

	liveSince time.Time // when the first echo arrived; zero: none has
	next      time.Time // when the next heartbeat is due; zero: no echo has arrived, see proven
	asked     time.Time // when the last one was sent; zero: none was
}

// While all members are idle one heartbeat in idleBeats is sent: one in 30 s by default.
const idleBeats = 15

// serve connects and serves the members until ctx ends or the connection fails. It returns how long members were live (0: none
// ever was) and the error. Before it returns it calls Down for every member, unless the error is Permanent or ctx has ended.
func (h *hub) serve(ctx context.Context) (time.Duration, error) {
	for _, m := range h.all() {
		m.renew()
	}
	s := &session{hub: h, ctx: ctx, listening: map[string]bool{}}
	dialing, cancel := context.WithTimeout(ctx, h.cfg.DialTimeout)
	conn, err := h.dialed(dialing, s.deliver)
	cancel()
	if err != nil {
		if ctx.Err() == nil && !isPermanent(err) {
			h.down(fmt.Errorf("pgcache: listener: connect (within %v): %w", h.cfg.DialTimeout, err))
		}
		return 0, err
	}

	s.conn = conn
	s.watchdog = time.AfterFunc(h.cfg.HeartbeatEvery+h.cfg.HeartbeatTimeout, func() {
		s.overdue.Store(true)
		closeConn(conn)
	})
	unhook := context.AfterFunc(ctx, func() { s.watchdog.Reset(closeGrace) })

	err = s.run()
	if ctx.Err() == nil {
		if s.overdue.Load() {
			err = fmt.Errorf("the connection did not answer within %v: %w", h.cfg.HeartbeatTimeout, err)
		}
		err = fmt.Errorf("pgcache: listener: %w", err)
		h.down(err) // before closing, so that local caches stop serving at once
	}
	unhook()
	s.watchdog.Stop()
	closeConn(conn)
	if s.proven() {
		return time.Since(s.liveSince), err
	}
	return 0, err
}

// dialed is dial. A driver that panics has failed: it is called on the hub's goroutine, where a panic would end the program.
func (h *hub) dialed(ctx context.Context, on func(channel, payload string)) (conn Conn, err error) {
	defer panics.Recover(&err)
	return h.dial(ctx, on)
}

// closeConn closes conn, and survives a driver that panics.
func closeConn(conn Conn) {
	defer panics.Recover(new(error))
	_ = conn.Close()
}

// run repeats three steps: it advances the members, waits for notifications, and sends the heartbeat if it is due. While all members
// are idle it leaves most heartbeats out: then trust runs out, and is renewed by the first heartbeat after a member is not idle any more.
func (s *session) run() (err error) {
	defer panics.Recover(&err)
	for s.ctx.Err() == nil {
		until, err := s.advance()
		if err != nil {
			return err
		}
		if err := s.wait(until); err != nil {
			return fmt.Errorf("wait for notifications: %w", err)
		}
		now := time.Now()
		switch {
		case s.ctx.Err() != nil || !s.proven() || now.Before(s.next):
		case now.Sub(s.asked) < idleBeats*s.cfg.HeartbeatEvery && s.idle():
			s.next = now.Add(s.cfg.HeartbeatEvery)
		default:
			if err := s.heartbeat(); err != nil {
				return fmt.Errorf("heartbeat: %w", err)
			}
		}
	}
	return nil
}

// proven reports whether some echo has arrived on this connection. Until then nothing may be sent on it while a probe is
// under way. A transaction pooler connects us to a session of the server only while a statement of ours is under way, and drops
// notifications that this session receives at other times:
//
//	listener              pooler                server
//	LISTEN           ->   on session 7     ->   7 listens
//	                      drops it         <-   7: the echo, and no member becomes live, as it should be
//
//	LISTEN           ->   on session 7     ->   7 listens
//	Ping             ->   on session 7
//	live!            <-   passes it on     <-   7: the echo
//
// A Ping, a LISTEN, and with lib/pq also the end of a Wait would let the echo through by accident, and a connection that drops
// later notifications would be trusted.
func (s *session) proven() bool { return !s.next.IsZero() }

// advance takes every member a step further: it gives up probes that failed, listens on the channels of members that wait, and has
// their probes sent. It returns until when to wait before it is called again.
func (s *session) advance() (until time.Time, err error) {
	members := s.look()
	noEcho := false // a probe's echo did not arrive
	for _, m := range members {
		noEcho = errors.Is(m.failed(time.Now()), ErrNoEcho) || noEcho
	}
	if s.proven() || !some(members, probing) { // else nothing may be sent, LISTEN included
		if err := s.start(members); err != nil {
			return until, err
		}
	}
	// Where no member receives its echo the connection may lead to another server than the data, as to the former primary, and a
	// new one may not. While some member is live, one that is not has a problem of its own and must not disturb the others.
	if noEcho && !some(members, probing) && !some(members, live) {
		return until, ErrNoEcho
	}
	var awaited []*member
	if !s.proven() {
		awaited = slices.DeleteFunc(slices.Clone(members), func(m *member) bool { return !m.is(probing) })
	}
	s.setAwaited(awaited)

	until = s.next
	for _, m := range members {
		if len(awaited) > 0 && m.is(waiting) { // its probe can't be sent before the awaited echo has come or was given up
			continue
		}
		if at := m.schedule(); until.IsZero() || !at.IsZero() && at.Before(until) {
			until = at
		}
	}
	return until, nil
}

// start sends the probes that are due. LISTEN comes first for all of them: see proven.
func (s *session) start(members []*member) error {
	var due []*member
	for _, m := range members {
		if !m.due(time.Now()) {
			continue
		}
		due = append(due, m)
		if s.listening[m.channel] {
			continue
		}
		if err := s.conn.Listen(s.ctx, m.channel); err != nil {
			return fmt.Errorf("listen on %q: %w", m.channel, err)
		}
		s.listening[m.channel] = true
	}
	for _, m := range due {
		m.begin()
	}
	return nil
}

// wait delivers notifications until the given time, zero being a heartbeat from now, or until something changes about the members.
func (s *session) wait(until time.Time) error {
	if until.IsZero() {
		until = time.Now().Add(s.cfg.HeartbeatEvery)
	}
	s.cutAfter(until)
	ctx, cancel := context.WithDeadline(s.ctx, until)
	defer cancel()
	if !s.setInterrupt(cancel) {
		return nil
	}
	defer s.setInterrupt(nil)
	return s.conn.Wait(ctx)
}

// cutAfter has the watchdog wait until HeartbeatTimeout after the given time.
func (s *session) cutAfter(t time.Time) {
	s.watchdog.Reset(time.Until(t) + s.cfg.HeartbeatTimeout)
	if s.ctx.Err() != nil {
		s.watchdog.Reset(closeGrace) // ctx may have ended before the Reset above, which replaced this deadline
	}
}

// deliver hands one notification to every member on its channel. The connection calls it, on the hub's goroutine.
func (s *session) deliver(channel, payload string) {
	for _, m := range s.membersOn(channel) {
		sent, echo := m.notify(payload)
		if echo && !s.proven() {
			s.liveSince, s.next = time.Now(), sent.Add(s.cfg.HeartbeatEvery)
			if s.next.Before(s.liveSince) {
				s.next = s.liveSince // the echo took longer than HeartbeatEvery, so a heartbeat is due
			}
			s.cutAfter(s.next)
			s.setAwaited(nil)
			s.wake(m) // the Wait under way may have a later deadline than this Trust
		}
	}
}

// heartbeat sends an empty statement. Its reply comes behind every notification of this session from before, so when it is
// there in time, what was delivered is complete up to the moment of asking, and the session is trusted until the next reply
// is overdue.
func (s *session) heartbeat() error {
	pinging, cancel := context.WithDeadline(s.ctx, s.next.Add(s.cfg.HeartbeatTimeout))
	defer cancel()
	asked := time.Now()
	if err := s.conn.Ping(pinging); err != nil {
		return err
	}
	for _, m := range s.all() {
		m.answered(asked)
	}
	s.asked, s.next = asked, asked.Add(s.cfg.HeartbeatEvery)
	return nil
}

// idle reports whether all members are idle.
func (s *session) idle() bool {
	return !slices.ContainsFunc(s.all(), func(m *member) bool { return !m.idle() })
}

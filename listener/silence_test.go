package listener_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
)

// A Conn that pays no attention to its contexts is cut off, both when a heartbeat is overdue and when it is to end.
func TestDeafConn(t *testing.T) {
	t.Parallel()
	silent := func(b *broken) func(context.Context) error {
		return func(context.Context) error {
			<-b.closed
			return errBroken
		}
	}
	cfg := listener.Config{
		HeartbeatEvery: 50 * time.Millisecond, HeartbeatTimeout: 500 * time.Millisecond, ProbeTimeout: 100 * time.Millisecond,
	}
	for name, change := range map[string]func(*broken){
		"Wait": func(b *broken) { b.wait = silent(b) },
		"Ping": func(b *broken) { b.ping = silent(b) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			end := listen(t, listener.New(breaking(testdb.DSN(t), change), cfg), n)
			err := next[error](t, n)
			for !errors.Is(err, errBroken) { // on a busy machine an echo that is late for its probe comes first
				err = next[error](t, n)
			}
			if !strings.Contains(err.Error(), "the connection did not answer within 500ms") {
				t.Errorf("Down(%v)", err)
			}
			next[error](t, n) // it is tried again
			if took := end(); took > patience/2 {
				t.Errorf("Listen took %v to return", took)
			}
		})
	}
}

// Down is called for a Subscriber that blocks the reading, when it comes back.
func TestSlowSubscriber(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	cfg := listener.Config{HeartbeatEvery: 50 * time.Millisecond, HeartbeatTimeout: 200 * time.Millisecond}
	cut := make(chan struct{}, 100)
	dial := breaking(testdb.DSN(t), func(b *broken) {
		go func() {
			<-b.closed
			cut <- struct{}{}
		}()
	})
	listen(t, listener.New(dial, cfg), n)
	next[time.Time](t, n)
	release := make(chan struct{})
	n.block.Store(&release)
	if err := n.probe(t.Context(), "blocks"); err != nil {
		t.Fatal(err)
	}
	<-cut
	n.block.Store(nil)
	close(release)
	next[error](t, n)
	next[time.Time](t, n)
}

// A Probe that does not obey its context neither holds up the end nor is joined by others.
func TestStuckProbe(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	stuck, running := make(chan struct{}), atomic.Int32{}
	works := n.probe
	n.probe = func(ctx context.Context, nonce string) error {
		if running.Add(1) > 1 {
			t.Error("two Probes of one Subscriber run")
		}
		defer running.Add(-1)
		<-stuck
		return works(ctx, nonce)
	}
	cfg := listener.Config{
		ProbeTimeout: 20 * time.Millisecond, BackoffMax: 50 * time.Millisecond,
		HeartbeatEvery: 20 * time.Millisecond, HeartbeatTimeout: patience,
	}
	l := listener.New(pgxdriver.DialDSN(testdb.DSN(t)), cfg)
	end := listen(t, l, n)
	if err := next[error](t, n); errors.Is(err, listener.ErrNoEcho) {
		t.Errorf("Down(%v), but nothing was sent that could be received", err)
	}
	time.Sleep(10 * cfg.ProbeTimeout) // in which there could be several more
	if took := end(); took > patience/2 {
		t.Errorf("Listen took %v to return", took)
	}
	if len(n.events) > 0 {
		t.Errorf("something happened while the Probe was stuck: %v", <-n.events)
	}
	close(stuck)
}

// When it does return, a new one is sent at once.
func TestLateProbe(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	works, first, free := n.probe, true, make(chan struct{})
	n.probe = func(ctx context.Context, nonce string) error {
		if first {
			first = false
			<-free
			return errBroken
		}
		return works(ctx, nonce)
	}
	cfg := listener.Config{ProbeTimeout: patience, HeartbeatEvery: time.Hour} // nothing but its return leads to another look
	listen(t, listener.New(pgxdriver.DialDSN(testdb.DSN(t)), cfg), n)
	close(free)
	if err := next[error](t, n); !errors.Is(err, errBroken) {
		t.Errorf("Down(%v), want what Probe returned", err)
	}
	next[time.Time](t, n)
}

// Down is called once for a failed attempt, and not again when the connection fails while the next is awaited.
func TestDownOnce(t *testing.T) {
	t.Parallel()
	var conns []*broken
	cut := atomic.Bool{}
	dial := breaking(testdb.DSN(t), func(b *broken) {
		conns = append(conns, b)
		b.ping = func(ctx context.Context) error {
			if len(conns) == 1 && cut.Load() {
				return errBroken
			}
			return b.Conn.Ping(ctx)
		}
	})
	cfg := listener.Config{
		HeartbeatEvery: 20 * time.Millisecond, HeartbeatTimeout: patience,
		BackoffMin: time.Second, BackoffMax: time.Hour, // the second's; the first has just been live
	}
	l := listener.New(dial, cfg)
	first, second := newNode(t), newNode(t)
	errProbe := errors.New("the pool is exhausted")
	second.probe = func(context.Context, string) error { return errProbe }
	listen(t, l, first)
	next[time.Time](t, first)
	listen(t, l, second)
	for range 2 { // of the two connections one attempt each, at least
		if err := next[error](t, second); !errors.Is(err, errProbe) {
			t.Errorf("Down(%v), want what Probe returned", err)
		}
		cut.Store(true)
	}
	if err := next[error](t, first); !errors.Is(err, errBroken) {
		t.Errorf("Down(%v), want what Ping returned", err)
	}
}

// Where nobody receives anything another connection is tried; not so where a probe could not be sent.
func TestDeaf(t *testing.T) {
	t.Parallel()
	cfg := listener.Config{
		ProbeTimeout: 50 * time.Millisecond, BackoffMax: 50 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}
	for _, test := range []struct {
		probe error
		down  error
		dials int32
	}{{nil, listener.ErrNoEcho, 3}, {errBroken, errBroken, 1}} {
		n := newNode(t)
		n.probe = func(context.Context, string) error { return test.probe }
		dials := atomic.Int32{}
		dial := breaking(testdb.DSN(t), func(*broken) { dials.Add(1) })
		end := listen(t, listener.New(dial, cfg), n)
		for range 3 {
			if err := next[error](t, n); !errors.Is(err, test.down) {
				t.Errorf("Down(%v), want %v", err, test.down)
			}
		}
		end()
		if n := dials.Load(); n < test.dials || test.dials == 1 && n > 1 {
			t.Errorf("%d connections for three probes that end in %v, want %d", n, test.down, test.dials)
		}
	}
}

// While the first probe is out nothing is sent: a transaction pooler could let the echo through only because of that.
func TestSilenceUntilTheEcho(t *testing.T) {
	t.Parallel()
	for name, giveUp := range map[string]bool{"received": false, "given up": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			silence(t, giveUp)
		})
	}
}

func silence(t *testing.T, giveUp bool) {
	var conn *broken
	dial := breaking(testdb.DSN(t), func(b *broken) {
		conn = b
		b.ping = func(ctx context.Context) error {
			if !b.received.Load() {
				t.Error("a heartbeat before the echo")
			}
			return b.Conn.Ping(ctx)
		}
	})
	cfg := listener.Config{HeartbeatEvery: 5 * time.Millisecond, HeartbeatTimeout: patience, ProbeTimeout: time.Hour}
	l := listener.New(dial, cfg)
	first, second := newNode(t), newNode(t)
	asked, free := make(chan struct{}), make(chan struct{})
	works := first.probe
	first.probe = func(ctx context.Context, nonce string) error {
		close(asked)
		<-free
		return works(ctx, nonce)
	}
	endFirst := listen(t, l, first)
	<-asked
	listen(t, l, second) // it has to wait
	endThird := listen(t, l, newNode(t))
	time.Sleep(10 * cfg.HeartbeatEvery)
	endThird() // it has waited, and leaves
	time.Sleep(10 * cfg.HeartbeatEvery)
	// LISTEN and Wait. (Not even the end of a Wait is free of sending with lib/pq.)
	if n := conn.calls.Load(); n > 2 {
		t.Errorf("%d calls while the probe is out, want at most two", n)
	}
	if len(first.events)+len(second.events) > 0 {
		t.Error("events before the echo")
	}
	if giveUp {
		endFirst()
		next[time.Time](t, second)
		close(free)
		return
	}
	close(free)
	next[time.Time](t, first)
	next[time.Time](t, second)
}

// Two are probing, and one's Probe fails: the other's echo is still awaited.
func TestSilenceBesideAFailingProbe(t *testing.T) {
	t.Parallel()
	var conn *broken
	dial := breaking(testdb.DSN(t), func(b *broken) { conn = b })
	cfg := listener.Config{HeartbeatEvery: 5 * time.Millisecond, HeartbeatTimeout: patience, ProbeTimeout: time.Hour}
	dialled, joined := make(chan struct{}), make(chan struct{})
	l := listener.New(func(ctx context.Context, on func(channel, payload string)) (listener.Conn, error) {
		close(dialled)
		<-joined
		return dial(ctx, on)
	}, cfg)
	first, second := newNode(t), newNode(t)
	asked, free, fail := make(chan struct{}, 2), make(chan struct{}), make(chan struct{})
	works := first.probe
	first.probe = func(ctx context.Context, nonce string) error {
		asked <- struct{}{}
		<-free
		return works(ctx, nonce)
	}
	worksToo, failed := second.probe, atomic.Bool{}
	second.probe = func(ctx context.Context, nonce string) error {
		if failed.Swap(true) {
			return worksToo(ctx, nonce)
		}
		asked <- struct{}{}
		<-fail
		return errBroken
	}
	listen(t, l, first)
	<-dialled
	listen(t, l, second)
	time.Sleep(50 * time.Millisecond) // it has joined
	close(joined)
	<-asked
	<-asked
	time.Sleep(10 * cfg.HeartbeatEvery)
	before := conn.calls.Load()
	close(fail)
	time.Sleep(10 * cfg.HeartbeatEvery)
	if n := conn.calls.Load(); n != before {
		t.Errorf("%d calls while an echo is awaited", n-before)
	}
	close(free)
	next[time.Time](t, first)
	if err := next[error](t, second); !errors.Is(err, errBroken) {
		t.Errorf("Down(%v)", err)
	}
	next[time.Time](t, second)
}

package listener_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

func TestMain(m *testing.M) { testdb.Main(m) }

const patience = 20 * time.Second

// node is a Subscriber whose events come out of a channel. Its Probe works unless replaced.
type node struct {
	channel string
	probe   func(ctx context.Context, nonce string) error
	events  chan any // time.Time: Beat, string: Notify, error: Down
	block   atomic.Pointer[chan struct{}]
}

func newNode(t *testing.T) *node {
	db, n := testdb.DB(t), &node{channel: testdb.Schema(t), events: make(chan any, 10000)}
	n.probe = func(ctx context.Context, nonce string) error {
		_, err := db.ExecContext(ctx, "SELECT pg_notify($1, $2)", n.channel, pgcache.ProbePrefix+nonce)
		return err
	}
	return n
}

func (n *node) Probe(ctx context.Context, nonce string) error { return n.probe(ctx, nonce) }
func (n *node) Beat(trusted time.Time)                        { n.events <- trusted }
func (n *node) Down(err error)                                { n.events <- err }
func (n *node) Notify(payload string) {
	n.events <- payload
	if c := n.block.Load(); c != nil {
		<-*c
	}
}

// next returns the next event of type E and drops those before.
func next[E any](t *testing.T, n *node) E {
	t.Helper()
	for timeout := time.After(patience); ; {
		select {
		case e := <-n.events:
			if e, ok := e.(E); ok {
				return e
			}
		case <-timeout:
			t.Fatalf("waited in vain for a %T", *new(E))
		}
	}
}

// listen calls Listen. The returned function ends it and returns how long that took.
func listen(t *testing.T, l pgcache.Listener, n *node) (end func() time.Duration) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Listen(ctx, n.channel, n) }()
	end = sync.OnceValue(func() time.Duration {
		start := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Listen returned %v", err)
		}
		return time.Since(start)
	})
	t.Cleanup(func() { end() })
	return end
}

// broken is a real connection, of which one call is replaced.
type broken struct {
	listener.Conn
	wait, ping func(context.Context) error
	calls      atomic.Int32 // of Listen and Wait
	heard      atomic.Bool  // something was delivered
	closed     chan struct{}
	once       sync.Once
}

func (b *broken) Listen(ctx context.Context, channel string) error {
	b.calls.Add(1)
	return b.Conn.Listen(ctx, channel)
}

func (b *broken) Wait(ctx context.Context) error {
	b.calls.Add(1)
	if b.wait != nil {
		return b.wait(ctx)
	}
	return b.Conn.Wait(ctx)
}

func (b *broken) Ping(ctx context.Context) error {
	if b.ping != nil {
		return b.ping(ctx)
	}
	return b.Conn.Ping(ctx)
}

func (b *broken) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.Conn.Close()
}

// breaking dials connections that are broken, each time another one.
func breaking(dsn string, change func(*broken)) listener.Dial {
	dial := pgxdriver.DialDSN(dsn)
	return func(ctx context.Context, on func(channel, payload string)) (listener.Conn, error) {
		b := &broken{closed: make(chan struct{})}
		c, err := dial(ctx, func(channel, payload string) {
			on(channel, payload)
			b.heard.Store(true)
		})
		if err != nil {
			return nil, err
		}
		b.Conn = c
		change(b)
		return b, nil
	}
}

var errBroken = errors.New("broken on purpose")

// A Conn that pays no attention to its contexts is cut off, both when a heartbeat is overdue and when it is to end.
func TestDeafConn(t *testing.T) {
	t.Parallel()
	deaf := func(b *broken) func(context.Context) error {
		return func(context.Context) error {
			<-b.closed
			return errBroken
		}
	}
	cfg := listener.Config{
		HeartbeatEvery: 50 * time.Millisecond, HeartbeatTimeout: 500 * time.Millisecond, ProbeTimeout: 100 * time.Millisecond,
	}
	for name, change := range map[string]func(*broken){
		"Wait": func(b *broken) { b.wait = deaf(b) },
		"Ping": func(b *broken) { b.ping = deaf(b) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			end := listen(t, listener.New(breaking(testdb.DSN(t), change), cfg), n)
			err := next[error](t, n)
			if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "no sign of life from the server within 500ms") {
				t.Errorf("Down(%v)", err)
			}
			next[error](t, n) // it is tried again
			if took := end(); took > time.Second {
				t.Errorf("Listen took %v to return", took)
			}
		})
	}
}

// A Subscriber that blocks the reading is told that it has been down, when it comes back.
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
		t.Errorf("Down(%v), but nothing was sent that could be heard", err)
	}
	time.Sleep(10 * cfg.ProbeTimeout) // in which there could be several more
	if took := end(); took > time.Second {
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

// Who waits for the next attempt has been told why, and is not told again when the connection fails.
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

// Where nobody hears anything another connection is tried; not so where a probe could not be sent.
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
	for name, giveUp := range map[string]bool{"heard": false, "given up": true} {
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
			if !b.heard.Load() {
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

func TestShared(t *testing.T) {
	t.Parallel()
	type key struct{ string }
	dials := atomic.Int32{}
	dial := breaking(testdb.DSN(t), func(*broken) { dials.Add(1) })
	ours := key{testdb.Schema(t)}
	one, two, other := newNode(t), newNode(t), newNode(t)
	for range 2 {
		dials.Store(0)
		var ends []func() time.Duration
		ends = append(ends, listen(t, listener.Shared(ours, dial, listener.Config{}), one))
		next[time.Time](t, one)
		ends = append(ends, listen(t, listener.Shared(ours, dial, listener.Config{}), two))
		next[time.Time](t, two)
		if n := dials.Load(); n != 1 {
			t.Errorf("two Listeners with one key dialled %d times", n)
		}
		// Another key, another Config and New are on their own.
		ends = append(ends,
			listen(t, listener.Shared(key{ours.string + "x"}, dial, listener.Config{}), other),
			listen(t, listener.Shared(ours, dial, listener.Config{ProbeTimeout: time.Minute}), other),
			listen(t, listener.New(dial, listener.Config{}), other))
		for range 3 {
			next[time.Time](t, other)
		}
		if n := dials.Load(); n != 4 {
			t.Errorf("with three Listeners that share nothing there were %d dials, want 4", n)
		}
		for _, end := range ends {
			end()
		}
	}
}

// A session that was live for a moment only does not make the next attempt wait longer: sessions that are ended again
// and again are back soon after that stops.
func TestBackoffAfterLive(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	dial := breaking(testdb.DSN(t), func(b *broken) {
		b.wait = func(ctx context.Context) error {
			err := b.Conn.Wait(ctx)
			if b.heard.Load() { // the echo
				err = errBroken
			}
			return err
		}
	})
	cfg := listener.Config{HeartbeatEvery: time.Hour, BackoffMin: 10 * time.Millisecond, BackoffMax: time.Hour}
	listen(t, listener.New(dial, cfg), n)
	for range 15 {
		next[time.Time](t, n) // had the bound doubled every time, it would be 5 minutes in the end
		if err := next[error](t, n); !errors.Is(err, errBroken) {
			t.Fatal(err)
		}
	}
}

// What a Beat is trusted for counts from the moment the server was asked: when it replied, more could have been told.
func TestTrusted(t *testing.T) {
	t.Parallel()
	var probed, asked time.Time
	n := newNode(t)
	works := n.probe
	n.probe = func(ctx context.Context, nonce string) error {
		probed = time.Now()
		time.Sleep(50 * time.Millisecond)
		return works(ctx, nonce)
	}
	dial := breaking(testdb.DSN(t), func(b *broken) {
		b.ping = func(ctx context.Context) error {
			asked = time.Now()
			time.Sleep(50 * time.Millisecond)
			return b.Conn.Ping(ctx)
		}
	})
	cfg := listener.Config{HeartbeatEvery: 50 * time.Millisecond, HeartbeatTimeout: patience}
	end := listen(t, listener.New(dial, cfg), n)
	first, second := next[time.Time](t, n), next[time.Time](t, n)
	end()
	last := second
	for len(n.events) > 0 {
		last = (<-n.events).(time.Time)
	}
	if trusted := probed.Add(cfg.HeartbeatEvery + cfg.HeartbeatTimeout); first.After(trusted) {
		t.Errorf("the first Beat is trusted %v too long", first.Sub(trusted))
	}
	if trusted := asked.Add(cfg.HeartbeatEvery + cfg.HeartbeatTimeout); last.After(trusted) {
		t.Errorf("the last Beat is trusted %v too long", last.Sub(trusted))
	}
}

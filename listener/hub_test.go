package listener_test

import (
	"context"
	"errors"
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

const patience = time.Minute

// node is a Subscriber whose events come out of a channel. Its Probe works unless replaced.
type node struct {
	channel string
	probe   func(ctx context.Context, nonce string) error
	events  chan any // time.Time: Trust, string: Notify, error: Down
	block   atomic.Pointer[chan struct{}]
	idle    atomic.Bool
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

func (n *node) Trust(trusted time.Time) { n.events <- trusted }

func (n *node) Down(err error) { n.events <- err }

func (n *node) Idle() bool { return n.idle.Load() }

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
	received   atomic.Bool  // something was delivered
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
			b.received.Store(true)
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
			if b.received.Load() { // the echo
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

// What a Trust is trusted for counts from the moment the server was asked: when it replied, more could have been notified.
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
		t.Errorf("the first Trust is trusted %v too long", first.Sub(trusted))
	}
	if trusted := asked.Add(cfg.HeartbeatEvery + cfg.HeartbeatTimeout); last.After(trusted) {
		t.Errorf("the last Trust is trusted %v too long", last.Sub(trusted))
	}
}

// A connection is asked rarely while all who share it are idle, and as ever when one is not.
func TestIdleSubscribers(t *testing.T) {
	t.Parallel()
	var pings atomic.Int64
	const every = 20 * time.Millisecond
	dial := breaking(testdb.DSN(t), func(b *broken) {
		b.ping = func(ctx context.Context) error {
			pings.Add(1)
			return b.Conn.Ping(ctx)
		}
	})
	l := listener.New(dial, listener.Config{HeartbeatEvery: every, HeartbeatTimeout: time.Minute})
	a, b := newNode(t), newNode(t)
	a.idle.Store(true)
	b.idle.Store(true)
	listen(t, l, a)
	listen(t, l, b)
	next[time.Time](t, a)
	next[time.Time](t, b)
	before, began := pings.Load(), time.Now()
	time.Sleep(60 * every)
	if n, most := pings.Load()-before, 2+int64(time.Since(began)/(15*every)); n > most {
		t.Errorf("%d heartbeats for idle nodes, want at most %d", n, most)
	}
	b.idle.Store(false)
	for range 10 {
		next[time.Time](t, b) // it is trusted again and again
	}
}

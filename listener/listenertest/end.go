package listenertest

import (
	"context"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pgcache/go/internal/testdb"
)

// leaks fails if there are goroutines that were not there when it was called. It gives them a moment to finish.
func leaks(t *testing.T) (check func()) {
	before := goleak.IgnoreCurrent()
	return func() {
		t.Helper()
		goleak.VerifyNone(t, before)
	}
}

func endBeforeStart(t *testing.T, b *bundle) {
	l, r := b.factory(t, b.dsn, quick), b.recorder(1)
	check := leaks(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Listen(ctx, r.channel, r); err != nil {
		t.Errorf("Listen returns %v for a context that has ended, want nil", err)
	}
	r.close(t)
	check()
	b.sessions(t, 0)
}

func endWhileDialling(t *testing.T, b *bundle) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	port := strconv.Itoa(silent.Addr().(*net.TCPAddr).Port)
	l := b.factory(t, "host=127.0.0.1 user=nobody dbname=none sslmode=disable port="+port, quick)
	r := b.recorder(1)
	check := leaks(t)
	c := b.listen(t, l, r)
	conn, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1)); err != nil { // it has said hello, and awaits an answer
		t.Fatal(err)
	}
	c.end(t)
	check()
}

func endDuringProbe(t *testing.T, b *bundle) {
	r := b.recorder(1)
	asked := make(chan struct{})
	r.probe = func(ctx context.Context, _ string) error {
		close(asked)
		<-ctx.Done()
		return ctx.Err()
	}
	l := b.factory(t, b.dsn, quick)
	check := leaks(t)
	c := b.listen(t, l, r)
	<-asked
	c.end(t)
	check()
	b.sessions(t, 0)
}

func endWhenLive(t *testing.T, b *bundle) {
	l := b.factory(t, b.dsn, quick)
	check := leaks(t)
	one, two := b.listen(t, l, b.recorder(1)), b.listen(t, l, b.recorder(2))
	mark := two.live(t, 0)
	one.live(t, 0)
	one.end(t)
	two.live(t, mark)
	two.never(t, 0, down)
	two.end(t)
	check()
	b.sessions(t, 0)
}

func endFrozen(t *testing.T, b *bundle) {
	cfg := quick
	cfg.HeartbeatEvery, cfg.HeartbeatTimeout = 30*time.Millisecond, time.Hour
	for _, wait := range []time.Duration{0, 4 * cfg.HeartbeatEvery} { // a heartbeat that was sent can't be seen
		proxy := testdb.NewProxy(t, b.dsn)
		l, r := b.factory(t, proxy.DSN(), cfg), b.recorder(1)
		check := leaks(t)
		c := b.listen(t, l, r)
		r.live(t, 0)
		proxy.Freeze()
		time.Sleep(wait)
		c.end(t)
		proxy.Cut() // its goroutines
		check()
		b.sessions(t, 0)
	}
}

func endDuringBackoff(t *testing.T, b *bundle) {
	cfg := quick
	cfg.BackoffMin, cfg.BackoffMax = time.Hour, time.Hour
	proxy := testdb.NewProxy(t, b.dsn)
	proxy.Cut()
	l, r := b.factory(t, proxy.DSN(), cfg), b.recorder(1)
	check := leaks(t)
	c := b.listen(t, l, r)
	r.await(t, 0, down)
	c.end(t)
	check()
}

func endAtAnyMoment(t *testing.T, b *bundle) {
	l := b.factory(t, b.dsn, quick)
	check := leaks(t)
	for range 30 {
		c := b.listen(t, l, b.recorder(1))
		time.Sleep(rand.N(20 * time.Millisecond))
		c.end(t)
	}
	check()
	b.sessions(t, 0)
}

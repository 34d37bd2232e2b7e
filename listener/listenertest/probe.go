package listenertest

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

func liveAfterEcho(t *testing.T, b *bundle) {
	r := b.recorder(1)
	gate, asked := make(chan struct{}), make(chan struct{})
	send := r.probe
	r.probe = func(ctx context.Context, nonce string) error {
		close(asked)
		<-gate
		return send(ctx, nonce)
	}
	b.listen(t, b.factory(t, b.dsn, quick), r)
	<-asked
	// Neither LISTEN nor notifications nor others' probes make it live: the recorder objects to a Trust before the echo.
	for _, payload := range []string{"", "x", pgcache.ProbePrefix, pgcache.ProbePrefix + "NOTMYNONCE:", "y"} {
		b.notify(t, r.channel, payload)
		r.await(t, 0, notify, payload)
	}
	r.never(t, 0, trust)
	close(gate)
	e, mark := r.await(t, 0, trust)
	if left := time.Until(e.at); left <= 0 || left > quick.HeartbeatEvery+quick.HeartbeatTimeout {
		t.Errorf("the first Trust is trusted for %v, want at most %v", left, quick.HeartbeatEvery+quick.HeartbeatTimeout)
	}
	// From here on each Trust reaches further than the one before.
	for range 3 {
		next, after := r.await(t, mark, trust)
		if !next.at.After(e.at) {
			t.Errorf("a Trust is trusted until %v, the one before until %v", next.at, e.at)
		}
		e, mark = next, after
	}
	r.never(t, 0, down)
}

func probeFails(t *testing.T, b *bundle) {
	r := b.recorder(1)
	send := r.probe
	var tries atomic.Int32
	r.probe = func(ctx context.Context, nonce string) error {
		if tries.Add(1) <= 2 {
			return errProbe
		}
		return send(ctx, nonce)
	}
	b.listen(t, b.factory(t, b.dsn, quick), r)
	mark := 0
	for range 2 {
		var e event
		if e, mark = r.await(t, mark, down); !errors.Is(e.err, errProbe) {
			t.Errorf("Down(%v), want what Probe returned", e.err)
		}
	}
	r.live(t, mark)
}

func probeUnheard(t *testing.T, b *bundle) {
	var warnings strings.Builder
	cfg := quick
	cfg.ProbeTimeout = 200 * time.Millisecond
	cfg.Logger = slog.New(slog.NewTextHandler(&warnings, nil)) // written by the Listener alone, read after its end
	r := b.recorder(1)
	lost := r.probe
	var tries atomic.Int32
	r.probe = func(ctx context.Context, nonce string) error {
		if tries.Add(1) <= 2 {
			return b.probe(ctx, b.db, b.channel(2), nonce)
		}
		return lost(ctx, nonce)
	}
	c := b.listen(t, b.factory(t, b.dsn, cfg), r)
	mark := 0
	for range 2 {
		var e event
		if e, mark = r.await(t, mark, down); !errors.Is(e.err, listener.ErrNoEcho) {
			t.Errorf("Down(%v), want ErrNoEcho", e.err)
		}
	}
	r.live(t, mark)
	c.end(t)
	if n := strings.Count(warnings.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings, want one: %s", n, &warnings)
	}
}

func probeUnheardAmongOthers(t *testing.T, b *bundle) {
	cfg := quick
	cfg.ProbeTimeout = 2 * time.Second
	cfg.Logger = slog.New(slog.DiscardHandler)
	l := b.factory(t, b.dsn, cfg)
	fine, silent := b.recorder(1), b.recorder(2)
	silent.probe = func(ctx context.Context, nonce string) error { return nil }
	b.listen(t, l, fine)
	fine.live(t, 0)
	b.listen(t, l, silent)
	mark := 0
	for range 2 {
		var e event
		if e, mark = silent.await(t, mark, down); !errors.Is(e.err, listener.ErrNoEcho) {
			t.Errorf("Down(%v), want ErrNoEcho", e.err)
		}
	}
	silent.never(t, 0, trust)
	fine.never(t, 0, down)
}

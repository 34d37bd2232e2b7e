package listenertest

import (
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
)

func idleSession(t *testing.T, b *bundle) {
	// A role may have this set, and heartbeats alone would come too late.
	dsn := testdb.WithParam(b.dsn, "idle_session_timeout", "200")
	cfg := listener.Config{HeartbeatEvery: 500 * time.Millisecond, HeartbeatTimeout: 5 * time.Second}
	r := b.recorder(1)
	b.listen(t, b.factory(t, dsn, cfg), r)
	start := r.live(t, 0) // on a busy machine it may take more than one attempt
	mark := start
	for range 2 {
		mark = r.live(t, mark)
		var state, xact string
		err := b.db.QueryRowContext(t.Context(), `SELECT state, coalesce(xact_start::text, '')
			FROM pg_stat_activity WHERE application_name = $1`, b.name).Scan(&state, &xact)
		if err != nil || state != "idle" || xact != "" {
			t.Errorf("the session is %q since %q (%v), want it idle outside a transaction", state, xact, err)
		}
	}
	r.never(t, start, down)
}

func terminated(t *testing.T, b *bundle) {
	l := b.factory(t, b.dsn, quick)
	one, two := b.recorder(1), b.recorder(2)
	for _, r := range []*recorder{one, two} {
		b.listen(t, l, r)
		r.live(t, 0)
	}
	b.terminate(t)
	for _, r := range []*recorder{one, two} {
		_, mark := r.await(t, 0, down)
		mark = r.live(t, mark)
		b.notify(t, r.channel, "again")
		r.await(t, mark, notify, "again")
		r.never(t, mark, down)
	}
	b.sessions(t, 1)
}

func terminatedOften(t *testing.T, b *bundle) {
	r := b.recorder(1)
	c := b.listen(t, b.factory(t, b.dsn, quick), r)
	mark := r.live(t, 0)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 12 {
		<-tick.C
		b.terminate(t)
	}
	r.await(t, mark, down)
	start := time.Now()
	for {
		// Live for good, not just for a moment between two of them. A session ends some time after it was told to, and what is notified
		// then is lost, with a Down.
		mark := r.live(t, r.mark())
		b.notify(t, r.channel, "over")
		e, _ := r.first(t, mark, "what was notified, or a Down", func(e event) bool { return e.kind == down || e.payload == "over" })
		if e.kind == notify && time.Since(start) > 300*time.Millisecond {
			break
		}
	}
	b.sessions(t, 1)
	c.end(t)
	b.sessions(t, 0)
}

func halfOpen(t *testing.T, b *bundle) {
	cfg := quick
	cfg.HeartbeatEvery, cfg.HeartbeatTimeout, cfg.DialTimeout = 200*time.Millisecond, 400*time.Millisecond, time.Second
	proxy := testdb.NewProxy(t, b.dsn)
	r := b.recorder(1)
	b.listen(t, b.factory(t, proxy.DSN(), cfg), r)
	mark := r.live(t, 0)
	frozen := time.Now()
	proxy.Freeze()
	e, mark := r.await(t, mark, down)
	const slack = 3 * time.Second // of a busy machine
	if took := e.at.Sub(frozen); took > cfg.HeartbeatEvery+cfg.HeartbeatTimeout+slack {
		t.Errorf("Down came %v after the link froze, want at most %v", took, cfg.HeartbeatEvery+cfg.HeartbeatTimeout)
	}
	if trusted := r.last(trust).at; e.at.After(trusted.Add(slack)) {
		t.Errorf("Down came at %v, and the last Trust was trusted until %v", e.at, trusted)
	}
	proxy.Thaw()
	mark = r.live(t, mark)
	b.notify(t, r.channel, "thawed")
	r.await(t, mark, notify, "thawed")
}

func linkCut(t *testing.T, b *bundle) {
	cfg := quick
	cfg.HeartbeatEvery = time.Hour // a reset is noticed without it
	proxy := testdb.NewProxy(t, b.dsn)
	r := b.recorder(1)
	b.listen(t, b.factory(t, proxy.DSN(), cfg), r)
	mark := r.live(t, 0)
	for range 2 {
		proxy.Cut()
		_, mark = r.await(t, mark, down)
		_, mark = r.await(t, mark, down) // and for attempts that fail
		proxy.Restore()
		mark = r.live(t, mark)
		b.notify(t, r.channel, "restored")
		_, mark = r.await(t, mark, notify, "restored")
	}
}

func awayAtFirst(t *testing.T, b *bundle) {
	proxy := testdb.NewProxy(t, b.dsn)
	proxy.Cut()
	r := b.recorder(1)
	b.listen(t, b.factory(t, proxy.DSN(), quick), r)
	r.await(t, 0, down)
	proxy.Restore()
	r.live(t, 0)
}

// Package listenertest is the contract that every pgcache.Listener has to meet, run against a real server.
package listenertest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// patience is how long a test waits for what must come soon.
const patience = time.Minute

// A Factory makes the Listener under test. It connects to the server that dsn names, with nothing but the sessions
// that it listens on, and takes its timing from cfg.
type Factory func(tb testing.TB, dsn string, cfg listener.Config) pgcache.Listener

// Test runs the contract. Call it from a test that is not parallel; it runs most of its own in parallel.
func Test(t *testing.T, f Factory) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *bundle)
	}{
		// These look for leaked goroutines, so they run alone.
		{"end before the start", endBeforeStart},
		{"end while dialling", endWhileDialling},
		{"end during the probe", endDuringProbe},
		{"end when live", endWhenLive},
		{"end on a frozen link", endFrozen},
		{"end during back-off", endDuringBackoff},
		{"end at any moment", endAtAnyMoment},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, newBundle(t, f)) })
	}
	for _, test := range []struct {
		name string
		run  func(*testing.T, *bundle)
	}{
		{"live only after the echo", liveAfterEcho},
		{"probe that cannot be sent", probeFails},
		{"probe without an echo", probeUnheard},
		{"one subscriber without an echo among others", probeUnheardAmongOthers},
		{"only what is committed", committedOnly},
		{"in order", inOrder},
		{"each its channel", eachItsChannel},
		{"latecomers", latecomers},
		{"leaving amid notifications", leaveAmidNotifications},
		{"storm", storm},
		{"slow link", slowLink},
		{"idle outside a transaction", idleSession},
		{"session terminated", terminated},
		{"session terminated again and again", terminatedOften},
		{"half-open link", halfOpen},
		{"link cut", linkCut},
		{"server away at first", awayAtFirst},
		{"bad channels", badChannels},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, newBundle(t, f))
		})
	}
}

// bundle is what one test works with.
type bundle struct {
	factory Factory
	db      *sql.DB // carries the data
	dsn     string  // for the Listener; its sessions bear a name of their own
	name    string
}

func newBundle(t *testing.T, f Factory) *bundle {
	b := &bundle{factory: f, db: testdb.DB(t), name: "t_" + rand.Text()}
	b.dsn = testdb.WithParam(testdb.DSN(t), "application_name", b.name)
	if err := b.db.PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// quick is a Config that finds out soon, and leaves room for a busy machine.
var quick = listener.Config{
	HeartbeatEvery: 100 * time.Millisecond, HeartbeatTimeout: 10 * time.Second,
	ProbeTimeout: 10 * time.Second, BackoffMax: 200 * time.Millisecond,
}

// exec runs SQL on the connections that carry the data.
func (b *bundle) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := b.db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

func (b *bundle) notify(t *testing.T, channel, payload string) {
	t.Helper()
	b.exec(t, "SELECT pg_notify($1, $2)", channel, payload)
}

// terminate ends the Listener's sessions.
func (b *bundle) terminate(t *testing.T) {
	t.Helper()
	b.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", b.name)
}

// sessions waits until the Listener has n sessions.
func (b *bundle) sessions(t *testing.T, n int) {
	t.Helper()
	// The server announces to nobody that a session has ended, so this has to ask.
	var have int
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		err := b.db.QueryRowContext(t.Context(),
			"SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", b.name).Scan(&have)
		if err != nil {
			t.Fatal(err)
		}
		if have == n {
			return
		}
	}
	t.Fatalf("the listener has %d sessions, want %d", have, n)
}

// channel returns a name that needs its quotes.
func (b *bundle) channel(n int) string { return fmt.Sprintf(`%s "C" %d`, b.name, n) }

// call is one call of Listen.
type call struct {
	*recorder
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// listen calls Listen, which ends with the test at the latest.
func (b *bundle) listen(t *testing.T, l pgcache.Listener, r *recorder) *call {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &call{recorder: r, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.err = l.Listen(ctx, r.channel, r)
	}()
	t.Cleanup(func() { c.end(t) })
	return c
}

// end ends the call and checks that it returns at once, with no error, and that nothing is delivered any more.
func (c *call) end(t *testing.T) {
	t.Helper()
	c.cancel()
	start := time.Now()
	select {
	case <-c.done:
	case <-time.After(patience):
		t.Fatal("Listen does not return when its context has ended")
	}
	if took := time.Since(start); took > 5*time.Second { // a second, and something for a busy machine
		t.Errorf("Listen took %v to return after its context had ended, want at most a second", took)
	}
	if c.err != nil {
		t.Errorf("Listen returned %v when its context had ended, want nil", c.err)
	}
	c.close(t)
}

package listenertest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
)

func committedOnly(t *testing.T, b *bundle) {
	r := b.recorder(1)
	b.listen(t, b.factory(t, b.dsn, quick), r)
	mark := r.live(t, 0)
	for _, commit := range []bool{true, false} {
		tx, err := b.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(t.Context(), "SELECT pg_notify($1, $2)", r.channel, fmt.Sprint("tx ", commit)); err != nil {
			t.Fatal(err)
		}
		b.notify(t, r.channel, fmt.Sprint("before ", commit))
		r.await(t, mark, notify, fmt.Sprint("before ", commit))
		end := tx.Rollback
		if commit {
			end = tx.Commit
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		b.notify(t, r.channel, fmt.Sprint("after ", commit))
		r.await(t, mark, notify, fmt.Sprint("after ", commit))
	}
	want := []string{"before true", "tx true", "after true", "before false", "after false"}
	if diff := cmp.Diff(want, r.payloads(mark)); diff != "" {
		t.Error(diff)
	}
}

func inOrder(t *testing.T, b *bundle) {
	r := b.recorder(1)
	b.listen(t, b.factory(t, b.dsn, quick), r)
	mark := r.live(t, 0)
	var want []string
	for i := range 300 {
		payload := fmt.Sprintf("%d %s", i, strings.Repeat("€", i*2600/300)) // up to 7.8 kB: several reads for one
		want = append(want, payload)
		b.notify(t, r.channel, payload)
	}
	r.await(t, mark, notify, want[len(want)-1])
	if diff := cmp.Diff(want, r.payloads(mark)); diff != "" {
		t.Error(diff)
	}
}

func eachItsChannel(t *testing.T, b *bundle) {
	l := b.factory(t, b.dsn, quick)
	one, again, two := b.recorder(1), b.recorder(1), b.recorder(2)
	for _, r := range []*recorder{one, again, two} {
		b.listen(t, l, r)
	}
	for _, r := range []*recorder{one, again, two} {
		r.live(t, 0)
	}
	b.sessions(t, 1) // for all
	b.notify(t, one.channel, "to one")
	b.notify(t, two.channel, "to two")
	b.notify(t, strings.ToLower(one.channel), "to nobody")
	b.notify(t, one.channel, "end")
	b.notify(t, two.channel, "end")
	for _, test := range []struct {
		r    *recorder
		want string
	}{{one, "to one"}, {again, "to one"}, {two, "to two"}} {
		test.r.await(t, 0, notify, "end")
		if diff := cmp.Diff([]string{test.want, "end"}, test.r.payloads(0)); diff != "" {
			t.Error(diff)
		}
	}
}

func latecomers(t *testing.T, b *bundle) {
	l := b.factory(t, b.dsn, listener.Config{HeartbeatEvery: time.Hour}) // so that only the newcomer ends the Wait
	first := b.recorder(1)
	b.listen(t, l, first)
	first.live(t, 0)
	for n := range 5 {
		other := b.recorder(n % 3)
		c := b.listen(t, l, other)
		other.live(t, 0)
		payload := fmt.Sprint("while there are two ", n)
		b.notify(t, first.channel, payload)
		first.await(t, 0, notify, payload)
		c.end(t)
		payload = fmt.Sprint("while there is one ", n)
		b.notify(t, first.channel, payload)
		b.notify(t, other.channel, "to one who has left") // the recorder objects
		first.await(t, 0, notify, payload)
	}
	first.never(t, 0, down)
	b.sessions(t, 1)
}

func leaveAmidNotifications(t *testing.T, b *bundle) {
	l := b.factory(t, b.dsn, quick)
	stays := b.recorder(1)
	stays.slow.Store(true)
	b.listen(t, l, stays)
	stays.live(t, 0)
	for range 20 {
		r := b.recorder(1)
		c := b.listen(t, l, r)
		mark := r.live(t, 0)
		b.pour(t, r.channel, 0, 200)
		r.await(t, mark, notify)
		c.end(t) // from here on the recorder objects
	}
	stays.never(t, 0, down)
}

func storm(t *testing.T, b *bundle) {
	const each, statements = 1000, 20
	cfg := quick
	cfg.HeartbeatEvery, cfg.HeartbeatTimeout = 20*time.Millisecond, patience
	r := b.recorder(1)
	b.listen(t, b.factory(t, b.dsn, cfg), r)
	mark := r.live(t, 0)
	var want []string
	for i := range each * statements {
		want = append(want, strconv.Itoa(i))
	}
	for n := range statements {
		b.pour(t, r.channel, n*each, (n+1)*each)
	}
	_, end := r.await(t, mark, notify, want[len(want)-1])
	if diff := cmp.Diff(want, r.payloads(mark)); diff != "" {
		t.Error(diff)
	}
	r.live(t, end)

	// And while there is always one more to be read, but never a backlog that would justify a late reply, heartbeats go on.
	r.slow.Store(true)
	const burst, backlog = 200, 400
	trusts, received := r.count(trust), r.count(notify)
	for sent := 0; r.count(trust) < trusts+5; {
		b.pour(t, r.channel, 0, burst)
		sent += burst
		for mark := r.mark(); received+sent-r.count(notify) > backlog; mark = r.mark() {
			r.await(t, mark, notify)
		}
	}
	r.slow.Store(false)
	r.never(t, 0, down)
}

// pour notifies of the numbers in one transaction.
func (b *bundle) pour(t *testing.T, channel string, from, to int) {
	t.Helper()
	b.exec(t, "SELECT pg_notify($1, i::text) FROM generate_series($2::int, $3::int) i", channel, from, to-1)
}

func slowLink(t *testing.T, b *bundle) {
	proxy := testdb.NewProxy(t, b.dsn)
	proxy.Delay(30 * time.Millisecond)
	r := b.recorder(1)
	b.listen(t, b.factory(t, proxy.DSN(), quick), r)
	r.live(t, r.live(t, 0))
	b.notify(t, r.channel, "slow")
	r.await(t, 0, notify, "slow")
	r.never(t, 0, down)
}

func badChannels(t *testing.T, b *bundle) {
	l := b.factory(t, b.dsn, quick)
	for _, channel := range []string{"", strings.Repeat("x", 64), "a\x00b", "\xff"} {
		r := b.recorder(1)
		if err := l.Listen(t.Context(), channel, r); err == nil || !strings.HasPrefix(err.Error(), "pgcache: ") {
			t.Errorf("Listen(%q) returns %v, want an error", channel, err)
		}
	}
	r := b.recorder(1)
	r.channel = `ü";'--` + strings.Repeat("x", 63-len(`ü";'--`))
	b.listen(t, l, r)
	r.live(t, 0)
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/store"
)

// tailing is a follower of tab whose lines go to out.
func tailing(tab *table, out *bytes.Buffer, count int) *follower {
	a := &app{out: out, errs: out, getenv: func(string) string { return "" }}
	a.global.json = true
	return &follower{a: a, t: tab, left: count, sessions: map[uint32]store.Session{}}
}

// TestTailEnds: when the time is over, what has come by then is shown, and no more lines than are asked for.
func TestTailEnds(t *testing.T) {
	t.Parallel()
	tab := tableOf(t)
	const n = 20
	for count, want := range map[int]int{0: n, n: n, 3: 3} {
		for range 5 { // which of several channels is looked at first is left to chance
			messages, dropped, listened := make(chan received, n), make(chan struct{}, 1), make(chan error, 1)
			for i := range n {
				messages <- received{at: time.Now(), message: message(t, fmt.Sprint("k", i))}
			}
			dropped <- struct{}{}
			listened <- nil
			var out bytes.Buffer
			if _, err := tailing(tab, &out, count).show(t.Context(), messages, dropped, listened); err != nil {
				t.Fatal(err)
			}
			if lines := strings.Count(out.String(), `"key":`); lines != want {
				t.Errorf("--count %d: %d lines of %d", count, lines, want)
			}
			if count == 0 && strings.Count(out.String(), `"kind":"lost"`) != 1 {
				t.Errorf("it does not say that messages are missing: %s", &out)
			}
		}
	}
}

// message is one that names a key.
func message(t *testing.T, key string) notify.Message {
	t.Helper()
	m, err := notify.Parse(string(notify.AppendItem([]byte("2"+notify.AnyCache), key, 1)))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestListenEnds: what was published before the end is received, also what waits in the socket.
func TestListenEnds(t *testing.T) {
	t.Parallel()
	tab := tableOf(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const n = 50
	var got []string
	err := listen(ctx, tab.config, tab.Names.Channel, tab.state.ID, func(h received) {
		if !h.live {
			h.items(func(i item) { got = append(got, i.key) }, func() {})
			return
		}
		for i := range n {
			payload := string(notify.AppendItem([]byte("2"+notify.AnyCache), fmt.Sprint("k", i), 1))
			if _, err := tab.db.ExecContext(t.Context(), "SELECT pg_notify($1, $2)", tab.Names.Channel, payload); err != nil {
				t.Error(err)
			}
		}
		cancel()
	})
	if err != nil || len(got) != n {
		t.Errorf("%v, %d of %d messages", err, len(got), n)
	}
}

// TestListenWaits: a wait that is over asks the server to cancel nothing, as statements that are given up do.
func TestListenWaits(t *testing.T) {
	t.Parallel()
	tab := tableOf(t)
	config := tab.config.Copy()
	config.BuildContextWatcherHandler = func(*pgconn.PgConn) ctxwatch.Handler { return watcher{t} }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := listen(ctx, config, tab.Names.Channel, tab.state.ID, func(received) { time.AfterFunc(100*time.Millisecond, cancel) }); err != nil {
		t.Error(err)
	}
}

// watcher objects to being asked.
type watcher struct{ t *testing.T }

func (w watcher) HandleCancel(context.Context) {
	w.t.Error("a wait that was over was cancelled on the server")
}
func (w watcher) HandleUnwatchAfterCancel() {}

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

func small(driver, codec string) config {
	return config{
		duration: 2 * time.Second, ttl: 2 * time.Second, pause: 4 * time.Millisecond,
		keys: 16, writers: 4, readers: 4, driver: driver, codec: codec, transport: windowed, more: true,
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	published, asked := small("pgx", "gob"), small("pgx", "json")
	published.transport, asked.transport = immediate, polled
	for _, cfg := range []config{small("pgx", "json"), small("pq", "msgpack"), published, asked} {
		t.Run(cfg.driver+" "+cfg.transport, func(t *testing.T) {
			if cfg.transport != polled {
				cfg.kill = 100 * time.Millisecond
			}
			var out bytes.Buffer
			code := onServer(t.Context(), cfg, testdb.DSN(t), "PostgreSQL", &out, &out)
			if code != fine {
				t.Errorf("exit code %d", code)
			}
			t.Log(out.String())
			for _, want := range []string{"4 writing and 4 reading nodes", "p99", "loader runs", "staleness", "sessions ended", "errors       0", "violations   0\n"} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the report lacks %q", want)
				}
			}
		})
	}
}

// An interrupt ends the run early and in good order.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	cfg := small("pgx", "gob")
	cfg.duration, cfg.writers, cfg.readers = time.Hour, 1, 1
	f := fleetOf(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	res, err := f.run(ctx, func(share float64) { cancel() })
	if breaches, failed := f.book.total(); err != nil || breaches+failed > 0 || res.tally.reads.n == 0 {
		t.Errorf("%v, %d violations, %d errors, %d reads: %v", err, breaches, failed, res.tally.reads.n, f.book.first)
	}
}

func fleetOf(t *testing.T, cfg config) *fleet {
	t.Helper()
	f, err := start(t.Context(), cfg, testdb.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return f
}

func TestSelftest(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{windowed, immediate, polled} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			cfg := small("pgx", "json")
			cfg.selftest, cfg.writers, cfg.readers, cfg.transport = true, 1, 1, transport
			var out bytes.Buffer
			if code := onServer(t.Context(), cfg, testdb.DSN(t), "PostgreSQL", &out, &out); code != fine {
				t.Errorf("exit code %d", code)
			}
			if n := strings.Count(out.String(), "noticed"); n != len(basicPlants)+len(morePlants) {
				t.Errorf("%d of %d noticed", n, len(basicPlants)+len(morePlants))
			}
			t.Log(out.String())
		})
	}
}

// Listeners are killed, and keys move: one Move, and what comes behind it.
func TestRunShards(t *testing.T) {
	t.Parallel()
	for _, shards := range []int{1, 3} {
		t.Run(fmt.Sprint(shards), func(t *testing.T) {
			t.Parallel()
			cfg := small("pgx", "json")
			cfg.shards, cfg.writers, cfg.readers, cfg.kill = shards, 2, 2, 200*time.Millisecond
			moves := ""
			if shards > 1 {
				cfg.move, cfg.duration, moves = 200*time.Millisecond, 7*time.Second, ", 1 moves"
			}
			var out bytes.Buffer
			if code := onServer(t.Context(), cfg, testdb.DSN(t), "PostgreSQL", &out, &out); code != fine {
				t.Errorf("exit code %d", code)
			}
			t.Log(out.String())
			for _, want := range []string{fmt.Sprint("shards       ", shards, moves), "errors       0", "violations   0\n"} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the report lacks %q", want)
				}
			}
		})
	}
}

// A Move that leaves something out is noticed.
func TestSkips(t *testing.T) {
	t.Parallel()
	cfg := small("pgx", "json")
	cfg.shards, cfg.writers, cfg.readers = 2, 2, 2
	these := skips[:1] // the others take a minute: make proof has them
	var out bytes.Buffer
	if err := testSkips(t.Context(), cfg, testdb.DSN(t), these, skipPatience, &out); err != nil {
		t.Error(err)
	}
	if n := strings.Count(out.String(), "noticed"); n != len(these) {
		t.Errorf("%d of %d noticed", n, len(these))
	}
	t.Log(out.String())
}

// A selftest that plants nothing wrong must fail: it would pass with any checker.
func TestSelftestNeedsPlants(t *testing.T) {
	t.Parallel()
	cfg := small("pgx", "json")
	cfg.selftest, cfg.writers, cfg.readers = true, 1, 1
	f := fleetOf(t, cfg)
	harmless := []plant{{"all is well", "", "P1", func(p *plot) error { p.set(0); return nil }}}
	err := f.selftest(t.Context(), harmless, 200*time.Millisecond, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "planted that all is well: not noticed") {
		t.Errorf("got %v", err)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	c, err := parse(nil, io.Discard)
	if err != nil || c.writers != 16 || c.readers != 32 || c.duration != 30*time.Second || c.ttl != 5*time.Second || c.keys != 64 || c.kill != 0 {
		t.Errorf("%+v, %v", c, err)
	}
	for _, args := range []string{
		"-duration 0s", "-ttl 1ms", "-kill -1s", "-keys 3", "-writers 0", "-readers -1", "-selftest -readers 0",
		"-shards -1", "-shards 9", "-shards 2 -soak 1m", "-move 1s", "-shards 1 -move 1s", "-driver mysql", "-codec xml", "-nonsense", "more",
	} {
		var says bytes.Buffer
		if _, err := parse(strings.Fields(args), &says); err == nil || !strings.Contains(says.String(), "Usage") {
			t.Errorf("%s: %v, and it says %q", args, err, says.String())
		}
	}
}

// A server that is too small is an error that says what is missing.
func TestTooManyNodes(t *testing.T) {
	t.Parallel()
	cfg := small("pq", "json")
	cfg.readers = 100_000
	var says bytes.Buffer
	if code := onServer(t.Context(), cfg, testdb.DSN(t), "PostgreSQL", io.Discard, &says); code != unused {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(says.String(), "100004 nodes need 500020 connections, 5 each, and the server has") {
		t.Errorf("it says %q", says.String())
	}
}

// Command harness lets a fleet of nodes work on one cache and checks every answer that any of them gives against the
// promises that the library makes (P1 to P8 in docs/promises.md). It exits with 1 if one was broken.
//
//	go run ./harness                          16 writing and 32 reading nodes, 30 s
//	go run ./harness -driver pq -kill 200ms   ... over lib/pq, while somebody ends a listener's session five times a second
//	go run ./harness -transport poll          ... that ask for changes instead of listening; or immediate
//	go run ./harness -soak 30m                judges no answers, but whether memory, goroutines, sessions or tables grow
//	go run ./harness -shards 3 -move 10s      ... over shards, of which one is taken out of the map or brought in again every 10 s
//	go run ./harness -selftest                plants stale and wrong values, and fails if they are not noticed
//
// It brings its own Postgres, or uses the one that PGCACHE_DSN names, in a schema of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/msgpack"
	"github.com/pgcache/go/internal/pgserver"
)

type config struct {
	duration, ttl, kill, pause, soak, move time.Duration
	keys, writers, readers, shards         int
	driver, codec, transport               string
	selftest, more                         bool
}

// How changes travel.
const (
	immediate = "immediate"
	windowed  = "window"
	polled    = "poll"
)

var codecs = map[string]codec.Codec{"json": codec.JSON{}, "gob": codec.Gob{}, "msgpack": msgpack.Codec{}}

// Exit codes.
const (
	fine   = 0
	broken = 1 // a promise was broken, or an operation failed
	unused = 2 // there was nothing to judge: wrong flags, no server
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt ends it at once
	code := harness(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func harness(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return fine
	}
	if err != nil {
		return unused
	}
	server, err := pgserver.Start(ctx, func(format string, args ...any) { say(stderr, format+"\n", args...) })
	if err != nil {
		say(stderr, "%v\n", err)
		return unused
	}
	code := onServer(ctx, cfg, server.DSN, "PostgreSQL "+server.Version, stdout, stderr)
	if err := server.Close(); err != nil {
		say(stderr, "%v\n", err)
	}
	return code
}

// onServer does what cfg asks for on the server that dsn names.
func onServer(ctx context.Context, cfg config, dsn, version string, stdout, stderr io.Writer) int {
	code := fine
	f, err := start(ctx, cfg, dsn)
	switch {
	case err != nil:
		code, err = unused, fmt.Errorf("start the nodes: %w", err)
	case cfg.selftest:
		err = f.selftest(ctx, cfg.plants(), patience, stdout)
		if cfg.shards > 1 {
			err = errors.Join(err, testSkips(ctx, cfg, dsn, skips, skipPatience, stdout))
		}
	case cfg.soak > 0:
		err = f.soak(ctx, stdout)
	default:
		var res result
		show := newProgress(stderr, f)
		res, err = f.run(ctx, show.update)
		show.end()
		f.report(stdout, version, res)
		if breaches, failed := f.book.total(); breaches+failed > 0 {
			code = broken
		}
	}
	// Not with ctx: it may be over, and there is a schema to be dropped.
	if stopped := f.stop(context.WithoutCancel(ctx)); stopped != nil {
		err = errors.Join(err, fmt.Errorf("stop the nodes: %w", stopped))
	}
	if err != nil {
		say(stderr, "harness: %v\n", err)
		code = max(code, broken)
	}
	return code
}

func parse(args []string, stderr io.Writer) (config, error) {
	var c config
	set := flag.NewFlagSet("harness", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.DurationVar(&c.duration, "duration", 30*time.Second, "how long to work")
	set.DurationVar(&c.ttl, "ttl", 5*time.Second, "how long most values live; others an eighth of it, or for ever")
	set.DurationVar(&c.kill, "kill", 0, "end the session of a random listener this often; 0: never")
	set.DurationVar(&c.pause, "pause", 4*time.Millisecond, "mean pause of a worker, of which a node has two, between operations")
	set.DurationVar(&c.soak, "soak", 0, "instead of -duration: work this long, and see whether anything grows")
	set.IntVar(&c.shards, "shards", 0, "spread the keys over this many shards, each a schema of its own; 0: a plain Cache")
	set.DurationVar(&c.move, "move", 0, "this often, take a shard out of the map or bring all in again; 0: never")
	set.IntVar(&c.keys, "keys", 64, "number of keys, at least 4: half of them written by one node each, a quarter by all, a quarter loaded")
	set.IntVar(&c.writers, "writers", 16, "number of writing nodes, which read too")
	set.IntVar(&c.readers, "readers", 32, "number of reading nodes")
	set.StringVar(&c.driver, "driver", "pgx", "pgx or pq")
	set.StringVar(&c.codec, "codec", "json", strings.Join(slices.Sorted(maps.Keys(codecs)), ", "))
	set.StringVar(&c.transport, "transport", windowed, "how changes travel: window, immediate or poll")
	set.BoolVar(&c.more, "more", true, "also groups, transactions, a watched table, stale and negative values, counters")
	set.BoolVar(&c.selftest, "selftest", false, "plant wrong values and see that they are noticed")
	if err := set.Parse(args); err != nil {
		return c, err
	}
	var wrong string
	switch {
	case set.NArg() > 0:
		wrong = fmt.Sprintf("unexpected argument %q", set.Arg(0))
	case c.duration <= 0:
		wrong = "-duration must be positive"
	case c.ttl < 100*time.Millisecond:
		wrong = "-ttl must be at least 100ms"
	case c.kill < 0 || c.pause < 0 || c.soak < 0:
		wrong = "-kill, -pause and -soak must not be negative"
	case c.shards < 0 || c.shards > mostShards || c.soak > 0 && c.shards > 0:
		wrong = fmt.Sprintf("-shards must be 0 to %d, and 0 with -soak", mostShards)
	case c.move < 0 || c.move > 0 && c.shards < 2:
		wrong = "-move must not be negative, and needs -shards 2 or more"
	case c.keys < 4:
		wrong = "-keys must be at least 4"
	case c.writers < 1 || c.readers < 0 || c.selftest && c.readers < 1:
		wrong = "-writers must be at least 1 and -readers not negative; -selftest needs a reader"
	case c.driver != "pgx" && c.driver != "pq":
		wrong = "-driver must be pgx or pq"
	case c.transport != immediate && c.transport != windowed && c.transport != polled:
		wrong = "-transport must be window, immediate or poll"
	case c.kill > 0 && c.transport == polled:
		wrong = "-kill needs listeners: with -transport poll there are none"
	case codecs[c.codec] == nil:
		wrong = "-codec must be one of " + strings.Join(slices.Sorted(maps.Keys(codecs)), ", ")
	default:
		c.more = c.more && c.soak == 0 // what a soak looks at is its own
		return c, nil
	}
	say(stderr, "harness: %v\n", wrong)
	set.Usage()
	return c, errors.New(wrong)
}

// Command faults lets small fleets of nodes work on a cache while faults are injected, and checks every answer that any
// of them gives against the promises that the library makes (P2 to P8 in docs/promises.md). It exits with 1 if one
// was broken.
//
//	go run ./faults                            every scenario, some seconds each
//	go run ./faults -quick                     every scenario, all in about a minute
//	go run ./faults -run 'link|lock' -v        those whose names match, with what failed
//	go run ./faults -out docs/reliability.md   writes what was measured
//	go run ./faults -selftest                  plants wrong values, and fails if they are not noticed
//
// It starts throw-away servers of its own: they are stopped, killed and filled up.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/pgcache/go/internal/pgserver"
)

type config struct {
	duration, pause time.Duration
	parallel        int
	run             *regexp.Regexp
	out             string
	selftest        bool
	verbose         bool
	args            []string
}

// slack is what a bound is longer by where more fleets run at a time than there are processors: the machine is late itself.
func (c config) slack() time.Duration {
	if c.parallel > runtime.GOMAXPROCS(0) {
		return 2 * time.Second
	}
	return 0
}

// Exit codes.
const (
	fine   = 0
	broken = 1 // a promise was broken, or a scenario could not be run
	unused = 2 // wrong flags
)

func main() {
	if given := os.Getenv(childEnv); given != "" {
		if err := serve(given); err != nil {
			fmt.Fprintln(os.Stderr, "faults: node:", err)
			os.Exit(broken)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt ends it at once
	code := faults(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func faults(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return fine
	}
	if err != nil {
		return unused
	}
	from, code := scenarios, fine
	if cfg.selftest {
		from = planted
	}
	var chosen []scenario
	for _, s := range from {
		if cfg.run.MatchString(s.name) {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		fmt.Fprintln(stderr, "faults: no scenario has such a name")
		return unused
	}
	results, version := performAll(ctx, cfg, chosen, stdout)
	for _, r := range results {
		if cfg.selftest && !r.noticed() {
			fmt.Fprintf(stdout, "NOT NOTICED: %s %v\n", r.scenario, r.err)
			code = broken
		} else if !cfg.selftest && r.bad() {
			code = broken
		}
	}
	if cfg.out != "" && ctx.Err() == nil {
		if err := os.WriteFile(cfg.out, []byte(markdown(cfg, version, results)), 0o644); err != nil {
			fmt.Fprintln(stderr, "faults:", err)
			code = broken
		}
	}
	if !cfg.selftest {
		summary(stdout, results)
	}
	return code
}

// performAll runs scenarios, some at a time, each of which uses a server alone. A server is used again by the next one.
func performAll(ctx context.Context, cfg config, scenarios []scenario, stdout io.Writer) (results []result, version string) {
	results = make([]result, len(scenarios))
	order := make([]int, len(scenarios)) // the long ones first: nothing else would be left to run beside them
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(scenarios[j].least, scenarios[i].least) })
	var mu sync.Mutex // of stdout, version and next
	next := 0
	var slots sync.WaitGroup
	for range min(cfg.parallel, len(scenarios)) {
		slots.Go(func() {
			var server *pgserver.Server
			for {
				mu.Lock()
				n := next
				next++
				mu.Unlock()
				if n >= len(order) || ctx.Err() != nil {
					break
				}
				i := order[n]
				var res result
				for range 2 { // a scenario that could not be run is tried a second time, on a new server
					res, server = performOne(ctx, cfg, scenarios[i], server)
					if res.err == nil || res.book != nil && res.book.violations > 0 || ctx.Err() != nil {
						break
					}
					fmt.Fprintf(stdout, "%s: %v\n", res.scenario, res.err)
					closeServer(server) // whatever state it is in
					server = nil
				}
				mu.Lock()
				results[i] = res
				if server != nil {
					version = server.Version
				}
				if !cfg.selftest {
					res.print(stdout, cfg.verbose)
				} else if res.noticed() {
					fmt.Fprintf(stdout, "noticed: %s\n    %s\n", res.scenario, res.book.lines[0])
				}
				mu.Unlock()
			}
			closeServer(server)
		})
	}
	slots.Wait()
	return results, version
}

// performOne runs a scenario on server, which is started if it is nil, or on one with settings of its own.
func performOne(ctx context.Context, cfg config, s scenario, server *pgserver.Server) (result, *pgserver.Server) {
	if server == nil {
		var err error
		if server, err = startServer(ctx, pgserver.Config{Own: true}); err != nil {
			return result{scenario: s.name, err: err}, nil
		}
	}
	bin, why := s.serverOf(server)
	if why != "" {
		return result{scenario: s.name, skipped: why}, server
	}
	if s.settings == nil && !s.disk && bin == "" {
		return s.perform(ctx, server, "", cfg.duration, cfg.pause, cfg.slack()), server
	}
	own := pgserver.Config{Own: true, Settings: s.settings, BinDir: bin}
	if !s.disk {
		another, err := startServer(ctx, own)
		if err != nil {
			return result{scenario: s.name, err: err}, server
		}
		defer closeServer(another)
		return s.perform(ctx, another, "", cfg.duration, cfg.pause, cfg.slack()), server
	}
	small, folder, release, why, err := onSmallDisk(ctx, own)
	if err != nil || why != "" {
		return result{scenario: s.name, err: err, skipped: why}, server
	}
	res := s.perform(ctx, small, folder, cfg.duration, cfg.pause, cfg.slack())
	closeServer(small)
	res.err = errors.Join(res.err, release())
	return res, server
}

func closeServer(s *pgserver.Server) {
	if s == nil {
		return
	}
	if err := s.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
	}
}

func parse(args []string, stderr io.Writer) (config, error) {
	c := config{args: args}
	set := flag.NewFlagSet("faults", flag.ContinueOnError)
	set.SetOutput(stderr)
	quick := set.Bool("quick", false, "all scenarios in about a minute: 4s for each, many at a time")
	pattern := set.String("run", "", "only the scenarios whose names match this expression")
	set.DurationVar(&c.duration, "duration", 20*time.Second, "how long each scenario works")
	set.DurationVar(&c.pause, "pause", 4*time.Millisecond, "mean pause of a reader, of which a node has two, between operations")
	set.IntVar(&c.parallel, "parallel", 2, "how many scenarios run at a time, each on a server of its own")
	set.StringVar(&c.out, "out", "", "write the results to this file")
	set.BoolVar(&c.selftest, "selftest", false, "plant wrong values and see that they are noticed")
	set.BoolVar(&c.verbose, "v", false, "say what failed")
	if err := set.Parse(args); err != nil {
		return c, err
	}
	var err error
	if c.run, err = regexp.Compile("(?i)" + *pattern); err == nil {
		switch {
		case set.NArg() > 0:
			err = fmt.Errorf("unexpected argument %q", set.Arg(0))
		case c.duration <= 0 || c.pause <= 0 || c.parallel < 1:
			err = errors.New("-duration, -pause and -parallel must be positive")
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, "faults:", err)
		set.Usage()
		return c, err
	}
	given := map[string]bool{}
	set.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if *quick || c.selftest {
		for name, value := range map[string]string{"duration": "4s", "pause": "15ms", "parallel": "8"} {
			if !given[name] {
				_ = set.Set(name, value) // it parses
			}
		}
	}
	return c, nil
}

// Command benchmarks measures pgcache beside Redis' clients, on servers that it starts itself, and says which of the
// project's targets are met. README.md tells how.
//
// A shape is one workload and its table: shapes.go lists them and holds those that compare clients; the files that end in shape.go
// hold one each, tableshapes.go those about what tables and memory take. bench.go runs them, with the load of drive.go and the
// backends of pgbackends.go, redisbackends.go and bare.go, on what servers.go starts. result.go keeps the figures; report.go,
// targets.go and charts.go show them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// config is what a run was asked for.
type config struct {
	args       []string
	out        string
	shapes     []string
	backends   []string // empty: all
	reps       int
	duration   time.Duration // of one measurement
	warmup     time.Duration
	valueBytes int
	rows       []int
	soak       time.Duration
	window     time.Duration // 0: the library's default
	quick      bool
	report     bool
	cpuProfile string
	sizes      sizes
}

func parse(args []string, errs io.Writer) (config, error) {
	c := config{args: args}
	flags := flag.NewFlagSet("benchmarks", flag.ContinueOnError)
	flags.SetOutput(errs)
	names := shapeNames()
	var shapes, backends, rows string
	flags.StringVar(&c.out, "out", "", "folder for the raw figures (JSON), results.md and the charts (SVG); empty: print only")
	flags.StringVar(&shapes, "shapes", "", "which tables to measure, of "+strings.Join(names, ",")+"; empty: all")
	flags.StringVar(&backends, "backends", "", "only these backends, by the names in the tables; empty: all")
	flags.IntVar(&c.reps, "reps", 5, "repetitions at the most; the tables show medians")
	flags.DurationVar(&c.duration, "duration", 1500*time.Millisecond, "how long one measurement takes, where it is not a count")
	flags.IntVar(&c.valueBytes, "value", 256, "bytes of a value")
	flags.StringVar(&rows, "rows", "10000,1000000,10000000", "table sizes for the shape size")
	flags.DurationVar(&c.soak, "soak", 2*time.Minute, "how long the shape soak takes")
	flags.DurationVar(&c.window, "window", 0, "invalidation window of postgres-cache; 0: the library's default")
	flags.BoolVar(&c.quick, "quick", false, "a smoke run of seconds: the figures mean nothing")
	flags.BoolVar(&c.report, "report", false, "measure nothing: print tables, targets and charts anew from the JSON in -out")
	flags.StringVar(&c.cpuProfile, "cpuprofile", "", "file for a CPU profile of this process while it measures")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	if flags.NArg() > 0 {
		return c, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	set := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { set[f.Name] = true })

	c.sizes = fullSizes()
	c.warmup = 300 * time.Millisecond
	if c.quick {
		c.sizes, c.warmup = quickSizes(), 20*time.Millisecond
		for name, apply := range map[string]func(){
			"reps": func() { c.reps = 1 }, "duration": func() { c.duration = 60 * time.Millisecond },
			"rows": func() { rows = "200,2000" }, "soak": func() { c.soak = time.Second },
		} {
			if !set[name] {
				apply()
			}
		}
	}
	for _, s := range list(rows) {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > maxRows {
			return c, fmt.Errorf("-rows: %q is not a number from 1 to %d", s, maxRows)
		}
		c.rows = append(c.rows, n)
	}
	c.shapes, c.backends = list(shapes), list(backends)
	for _, s := range c.shapes {
		if !slices.Contains(names, s) {
			return c, fmt.Errorf("-shapes: there is no %q; there are %s", s, strings.Join(names, ", "))
		}
	}
	for _, s := range c.backends {
		if !slices.Contains(backendNames, s) {
			return c, fmt.Errorf("-backends: there is no %q; there are %s", s, strings.Join(backendNames, ", "))
		}
	}
	switch {
	case c.reps < 1:
		return c, fmt.Errorf("-reps is %d, at least 1 is needed", c.reps)
	case c.duration <= 0 || c.soak <= 0:
		return c, errors.New("-duration and -soak must be positive")
	case c.valueBytes < stampBytes:
		return c, fmt.Errorf("-value is %d, at least %d bytes are needed: a value says which write it is", c.valueBytes, stampBytes)
	case c.report && c.out == "":
		return c, errors.New("-report needs -out, the folder with the JSON")
	}
	return c, nil
}

func list(s string) (out []string) {
	for _, part := range strings.Split(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

func run(ctx context.Context, args []string, out, errs io.Writer) error {
	cfg, err := parse(args, errs)
	if err != nil {
		return err
	}
	if cfg.report {
		results, err := load(cfg.out)
		if err != nil {
			return err
		}
		return publish(results, cfg.out, out)
	}
	if err := cfg.spoils(); err != nil {
		return err
	}
	if cfg.cpuProfile != "" {
		file, err := os.Create(cfg.cpuProfile)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	results, err := measure(ctx, cfg, errs)
	if ctx.Err() != nil {
		err = errors.New("stopped; the shape under way is not shown")
	}
	// What was measured before an error, or before Ctrl-C, is shown all the same.
	if len(results) > 0 {
		err = errors.Join(err, publish(results, cfg.out, out))
	}
	return err
}

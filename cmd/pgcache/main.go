// Command pgcache looks after a cache in Postgres: it migrates, reads and writes entries, shows invalidations and figures live,
// measures, and demonstrates. See docs/cli.md.
//
//	pgcache help
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code := run(ctx, &app{in: os.Stdin, out: os.Stdout, errs: os.Stderr, getenv: os.Getenv}, os.Args[1:])
	stop()
	os.Exit(code)
}

// app is what a command knows of its surroundings, and the flags that all commands have.
type app struct {
	in        io.Reader
	out, errs io.Writer
	getenv    func(string) string

	global  globals
	secrets []string // never to be shown
}

// run runs one command line and returns the exit code.
func run(ctx context.Context, a *app, args []string) int {
	root := newRoot(a)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code := exitCode(ctx, err)
	text := a.scrub(strings.TrimPrefix(shown(err).Error(), "pgcache: "))
	if a.global.json {
		writeJSON(a.errs, errorJSON{Error: text, Code: code}) //nolint:errcheck // there is nowhere else to say it
		return code
	}
	fmt.Fprintf(a.errs, "pgcache: %s\n", text)
	if code == exitUsage {
		fmt.Fprintln(a.errs, "See 'pgcache help'.")
	}
	return code
}

type errorJSON struct {
	Error string `json:"error"`
	Code  int    `json:"code"`
}

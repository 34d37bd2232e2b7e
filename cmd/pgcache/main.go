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
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/pgcache/go/internal/sqlerr"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends what takes too long to end
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
func run(ctx context.Context, a *app, args []string) (code int) {
	defer func() {
		// What a panic says could quote a DSN.
		if p := recover(); p != nil {
			code = exitFailed
			a.fail(fmt.Sprintf("this is a bug in pgcache: %v\n%s", p, debug.Stack()), args, code)
		}
	}()
	root := newRoot(a)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code = exitCode(ctx, err)
	text := strings.TrimPrefix(shown(err).Error(), "pgcache: ")
	switch {
	case code == exitInterrupted:
		text = "interrupted"
	case sqlerr.Canceled(err):
		text = fmt.Sprintf("the statement took longer than --timeout %v, or than statement_timeout of the server, or an administrator canceled it", a.global.timeout)
	case sqlerr.Denied(err) && !strings.Contains(text, "docs/rights.md"):
		text += "; docs/rights.md has the GRANTs, and pgcache doctor says what is lacking"
	}
	a.fail(text, args, code)
	return code
}

// fail prints an error.
func (a *app) fail(text string, args []string, code int) {
	text = a.scrub(text)
	if a.global.json || wantsJSON(args) {
		writeJSON(a.errs, errorJSON{Error: text, Code: code}) //nolint:errcheck // there is nowhere else to say it
		return
	}
	fmt.Fprintf(a.errs, "pgcache: %s\n", harmless([]byte(text)))
	if code == exitUsage {
		fmt.Fprintln(a.errs, "See 'pgcache help'.")
	}
}

// wantsJSON looks for --json in a command line that could not be taken apart as far as there.
func wantsJSON(args []string) bool {
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	return slices.Contains(args, "--json") || slices.Contains(args, "--json=true")
}

type errorJSON struct {
	Error string `json:"error"`
	Code  int    `json:"code"`
}

package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/pgcache/go/pgcachetest"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	testscript.Main(pgcachetest.Main(m), map[string]func(){"pgcache": func() {
		// A script interrupts what runs in the background at its end.
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		code := run(ctx, &app{in: os.Stdin, out: os.Stdout, errs: os.Stderr, getenv: os.Getenv}, os.Args[1:])
		stop()
		os.Exit(code)
	}})
}

// TestScripts runs each script in a schema of its own, on a real Postgres.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) {
			t.Parallel()
			dsn := pgcachetest.DSN(t)
			testscript.Run(t, testscript.Params{
				Files:         []string{script},
				UpdateScripts: *update,
				Setup: func(env *testscript.Env) error {
					env.Setenv("PGCACHE_DSN", dsn)
					env.Setenv("PGCACHE_PG_BIN", os.Getenv("PGCACHE_PG_BIN"))
					return nil
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": code},
			})
		})
	}
}

// code runs pgcache and compares its exit code: code 3 get nothing
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N ARGS...")
	}
	var out, errs bytes.Buffer
	a := &app{in: strings.NewReader(""), out: &out, errs: &errs, getenv: ts.Getenv}
	got := run(context.Background(), a, args[1:])
	ts.Logf("%s%s", &out, &errs)
	if want := args[0]; want != string(rune('0'+got)) {
		ts.Fatalf("exit code %d, want %s", got, want)
	}
}

// TestHelp compares the help of every command with a golden file.
func TestHelp(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	var all func(c *cobra.Command)
	all = func(c *cobra.Command) {
		b.WriteString("== " + c.CommandPath() + "\n")
		c.SetOut(&b)
		c.InitDefaultHelpFlag()
		if err := c.Help(); err != nil {
			t.Error(err)
		}
		for _, sub := range c.Commands() {
			all(sub)
		}
	}
	all(newRoot(&app{out: &b, errs: &b, getenv: func(string) string { return "" }}))
	const golden = "testdata/help.txt"
	if *update {
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, b.Bytes()) {
		t.Errorf("the help has changed; go test -run TestHelp -update writes %s anew. It is:\n%s", golden, &b)
	}
}

// TestPasswordsAreNotShown: whatever is wrong, no output has the password.
func TestPasswordsAreNotShown(t *testing.T) {
	t.Parallel()
	const secret = "hunter2%5E"
	for _, args := range [][]string{
		{"get", "k", "--dsn", "postgres://u:" + secret + "@127.0.0.1:1/db"},
		{"get", "k", "--dsn", "postgres://u:" + secret + "@127.0.0.1:port/db"},
		{"get", "k", "--dsn", "host=127.0.0.1 port=1 password=" + secret},
		{"get", "k", "--dsn", "host=127.0.0.1 port=x password='" + secret + "'"},
		{"get", "--dns=postgres://u:" + secret + "@h/db"},
		{"get", "k", "--timeout", "postgres://u:" + secret + "@h/db"},
		{"postgres://u:" + secret + "@h/db"},
		{"tail", "--dsn", "postgres://u:" + secret + "@127.0.0.1:1/db", "--json"},
		{"set", "k", "v", "--ttl", "password=" + secret},
	} {
		var out bytes.Buffer
		a := &app{in: strings.NewReader(""), out: &out, errs: &out, getenv: func(string) string { return "" }}
		code := run(t.Context(), a, args)
		if code == exitOK || out.Len() == 0 || strings.Contains(out.String(), "hunter2") {
			t.Errorf("%q: code %d, %s", args, code, &out)
		}
	}
}

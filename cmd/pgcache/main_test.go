package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	testscript.Main(pgcachetest.Main(m), map[string]func(){"pgcache": main})
}

// TestScripts runs each script in a schema of its own, on a real Postgres.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			// Its sessions are told apart by their application_name, and what it publishes by its channel.
			name := "script-" + strings.ToLower(rand.Text()[:12])
			dsn := pgserver.WithParam(pgcachetest.DSN(t), "application_name", name)
			s := &script{db: pgcachetest.DB(t), name: name}
			testscript.Run(t, testscript.Params{
				Files:         []string{file},
				UpdateScripts: *update,
				Setup: func(env *testscript.Env) error {
					env.Setenv("PGCACHE_DSN", dsn)
					// Sessions with it find functions of the script's schema before those of the server.
					schema := regexp.MustCompile(`search_path=(\w+)`).FindStringSubmatch(dsn)
					env.Setenv("SHADOWED", pgserver.WithParam(dsn, "search_path", schema[1]+",pg_catalog"))
					env.Setenv("CHANNEL", strings.ReplaceAll(name, "-", "_"))
					env.Setenv("TOO_LONG", strings.Repeat("x", pgcache.MaxKeyBytes+1))
					env.Setenv("PGCACHE_PG_BIN", os.Getenv("PGCACHE_PG_BIN"))
					return nil
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": code, "sql": s.sql, "listening": s.listening, "sessions": s.sessions},
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

// script is what the commands of a script know of the server.
type script struct {
	db   *sql.DB
	name string // application_name of the sessions of its commands
}

// sql runs a statement in the schema of the script: sql 'DELETE FROM cache_entries'
func (s *script) sql(ts *testscript.TestScript, neg bool, args []string) {
	schema := regexp.MustCompile(`search_path=(\w+)`).FindStringSubmatch(ts.Getenv("PGCACHE_DSN"))
	if len(args) != 1 || schema == nil {
		ts.Fatalf("usage: sql STATEMENT")
	}
	conn, err := s.db.Conn(context.Background())
	ts.Check(err)
	defer conn.Close()
	_, err = conn.ExecContext(context.Background(), "SET search_path = "+schema[1])
	ts.Check(err)
	for _, statement := range strings.Split(args[0], ";") {
		_, err = conn.ExecContext(context.Background(), statement)
		if neg != (err != nil) {
			ts.Fatalf("%v", err)
		}
	}
}

// listening waits until so many sessions of the script listen: listening 2
func (s *script) listening(ts *testscript.TestScript, _ bool, args []string) {
	s.wait(ts, args, " AND (query LIKE 'LISTEN %' OR query = ';') AND state = 'idle'") // ; is the heartbeat
}

// sessions waits until the script has so many sessions: sessions 0
func (s *script) sessions(ts *testscript.TestScript, _ bool, args []string) { s.wait(ts, args, "") }

func (s *script) wait(ts *testscript.TestScript, args []string, which string) {
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var n int
		ts.Check(s.db.QueryRow("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1"+which, s.name).Scan(&n))
		if fmt.Sprint(n) == args[0] {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("there are %d sessions", n)
		}
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
		{"get", "k", "--dsn", "postgres://u:abc@" + secret + "@127.0.0.1:1/db"},
		{"get", "k", "--dsn", "postgres://u:abc@" + secret + "@127.0.0.1:1,127.0.0.1:2/db"},
		{"get", "--dns=postgres://u:" + secret + "@h/db"},
		{"get", "k", "--timeout", "postgres://u:" + secret + "@h/db"},
		{"postgres://u:" + secret + "@h/db"},
		{"tail", "--dsn", "postgres://u:" + secret + "@127.0.0.1:1/db", "--json"},
		{"doctor", "--dsn", "postgres://u:" + secret + "@127.0.0.1:1/db", "--json"},
		{"watch", "t", "--key", "{id}", "--dsn", "postgres://u:" + secret + "@127.0.0.1:1/db"},
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

// panics is an input that panics with a DSN.
type panics struct{}

func (panics) Read([]byte) (int, error) { panic("postgres://u:hunter2@h/db") }

// TestPanics: a bug says that it is one, and shows no password.
func TestPanics(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	a := &app{in: panics{}, out: &out, errs: &errs, getenv: func(string) string { return "" }}
	code := run(t.Context(), a, []string{"set", "k"})
	if code != exitFailed || !strings.Contains(errs.String(), "a bug in pgcache") || !strings.Contains(errs.String(), ".Read(") || strings.Contains(errs.String(), "hunter2") {
		t.Errorf("%d: %s", code, &errs)
	}
}

// TestJSON: with --json every line of both outputs is a JSON document, whatever the command and whatever is wrong.
func TestJSON(t *testing.T) {
	t.Parallel()
	dsn := pgcachetest.DSN(t)
	for _, args := range [][]string{
		{"get", "k"},
		{"migrate", "status"},
		{"doctor"},
		{"migrate", "up"},
		{"migrate", "up"},
		{"migrate", "status"},
		{"migrate", "sql"},
		{"set", "k", "1", "--tag", "t"},
		{"get", "k"},
		{"inspect", "k"},
		{"keys", "k"},
		{"tags"},
		{"watch"},
		{"watch", "users", "--key", "user:{id}", "--sql"},
		{"watch", "nope", "--key", "user:{id}"},
		{"unwatch", "nope"},
		{"doctor"},
		{"del", "k"},
		{"del", "--tag", "t", "--beginning", "a"},
		{"get", "k"},
		{"get", "\xff"},
		{"clear", "--yes"},
		{"clear"},
		{"tail", "--for", "10ms"},
		{"top", "--count", "1", "--interval", "100ms"},
		{"bench", "--span", "10ms", "--callers", "2"},
		{"demo", "--listen", "nowhere:nothing"},
		{"nonsense"},
		{"get", "--nonsense"},
		{"get"},
		{"set", "k", "1", "--ttl", "0"},
		{"get", "k", "--timeout", "0"},
		{"get", "k", "--dsn", "postgres://127.0.0.1:1/none"},
	} {
		var out bytes.Buffer
		a := &app{in: strings.NewReader(""), out: &out, errs: &out, getenv: func(key string) string {
			if key == "PGCACHE_DSN" {
				return dsn
			}
			return ""
		}}
		code := run(t.Context(), a, append(args, "--json"))
		if out.Len() == 0 && args[0] != "tail" {
			t.Errorf("%q: code %d and no output", args, code)
		}
		for line := range strings.Lines(out.String()) {
			if !json.Valid([]byte(line)) {
				t.Errorf("%q: code %d, %s", args, code, line)
			}
		}
	}
}

// TestInterrupted: what a command was doing on the server ends with it.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	tab := tableOf(t)
	name := "interrupted-" + strings.ToLower(rand.Text()[:12])
	dsn := pgserver.WithParam(tab.config.ConnString(), "application_name", name)
	tx, err := tab.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // it holds a lock until then
	if _, err := tx.Exec("LOCK TABLE cache_entries"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var errs bytes.Buffer
	a := &app{in: strings.NewReader(""), out: io.Discard, errs: &errs, getenv: func(string) string { return "" }}
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, a, []string{"tags", "--dsn", dsn, "--timeout", "1m"}) }()
	running := func() (n int) {
		if err := tab.db.QueryRow("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'", name).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for end := time.Now().Add(time.Minute); running() == 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if code := <-ended; code != exitInterrupted || errs.String() != "pgcache: interrupted\n" {
		t.Errorf("%d: %s", code, &errs)
	}
	for end := time.Now().Add(time.Minute); running() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the statement still waits on the server")
		}
	}
}

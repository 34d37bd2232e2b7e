package main

import (
	"bufio"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRedirect(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ dsn, want string }{
		{"postgres://u:p@db:5432/app?sslmode=disable&host=/tmp", "postgres://u:p@127.0.0.1:99/app?sslmode=disable"},
		{"host=db port=5432 user=u", "host=db port=5432 user=u host='127.0.0.1' port='99'"},
	} {
		if got, err := redirect(test.dsn, "127.0.0.1:99"); got != test.want || err != nil {
			t.Errorf("%s: got %s, %v", test.dsn, got, err)
		}
	}
	if _, err := redirect("postgres://u:secret@a:1/app%zz", "127.0.0.1:99"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a bad URL: got %v", err)
	}
}

func TestRedisVersion(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ info, want string }{
		{"# Server\r\nredis_version:7.0.15\r\nos:Linux", "redis 7.0.15"},
		{"# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\n", "valkey 8.1.1"},
	} {
		if got := redisVersion(test.info); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

// The server ends with us, however we end: all that it has of us is a pipe.
func TestLifeline(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/bin/sh", "-c", withLifeline, "sh", "/bin/sh", "-c", "echo $$; exec sleep 600")
	lifeline, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("it does not run: %v", err)
	}
	lifeline.Close()
	cmd.Wait()
	for end := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("it lives on")
		}
	}
}

package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// bouncer starts a PgBouncer in front of the server, in a pool mode of it, and returns the DSN that leads through it.
func bouncer(t *testing.T, s *server, mode string) (dsn string) {
	t.Helper()
	program, err := findBouncer()
	if err != nil {
		t.Fatal(err)
	}
	config, err := pgx.ParseConfig(s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.MkdirTemp("", "pgcache-pgbouncer-") // not t.TempDir, where only root may look
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	port := freePort(t)
	login := "user=" + config.User
	if config.Password != "" { // it does not take an empty one
		login += " password=" + config.Password
	}
	// Every user is let in, as the one who may log in to the server. The pool has room for all tests at once where a
	// client keeps its session; where it does not, it is small enough that clients really share.
	size := map[string]int{"session": 300, "transaction": 20}[mode]
	ini := fmt.Sprintf(`[databases]
%s = host=%s port=%d %s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = %s
default_pool_size = %d
max_client_conn = 1000
ignore_startup_parameters = extra_float_digits
`, config.Database, config.Host, config.Port, login, port, mode, size)
	path := filepath.Join(folder, "pgbouncer.ini")
	if err := errors.Join(os.WriteFile(path, []byte(ini), 0o644), os.Chmod(folder, 0o755)); err != nil {
		t.Fatal(err)
	}
	args := []string{path}
	if os.Geteuid() == 0 { // as whom it refuses to run
		args = []string{"-u", "nobody", path}
	}
	stop, log, err := runUntilEOF(append([]string{program}, args...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("PgBouncer says:\n%s", complaints(log.String()))
		}
	})
	dsn = fmt.Sprintf("postgres://pgcache@127.0.0.1:%d/%s?sslmode=disable", port, config.Database)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, dsn)
		if err == nil {
			conn.Close(ctx)
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("PgBouncer does not answer: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	version, _ := exec.CommandContext(ctx, program, "--version").Output()
	ran.add("PgBouncer " + string(regexp.MustCompile(`[\d.]+`).Find(version)) + " (" + mode + " mode)")
	return dsn
}

// complaints are the lines of a log that may say why something failed.
func complaints(log string) string {
	var lines []string
	for line := range strings.Lines(log) {
		if !strings.Contains(line, " LOG ") || strings.Contains(line, "failed") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[:min(len(lines), 50)], "")
}

func findBouncer() (string, error) {
	if path, err := exec.LookPath("pgbouncer"); err == nil {
		return path, nil
	}
	for _, path := range []string{"/usr/sbin/pgbouncer", "/usr/local/sbin/pgbouncer", "/opt/homebrew/bin/pgbouncer"} { // not on everybody's PATH
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("there is no pgbouncer on this machine, through which the library must be tested too: " +
		"apt-get install pgbouncer, dnf install pgbouncer or brew install pgbouncer")
}

// runUntilEOF starts a program that ends with stop, and also if we are killed: a shell ends it when our end of its pipe is
// closed.
func runUntilEOF(args []string) (stop func(), log fmt.Stringer, err error) {
	cmd := exec.Command("sh", append([]string{"-c", `"$@" & cat >/dev/null; kill -9 $!; wait`, "sh"}, args...)...)
	var output safeBuffer
	cmd.Stdout, cmd.Stderr = &output, &output
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	return func() {
		pipe.Close()
		_ = cmd.Wait() // it has been killed
	}, &output, nil
}

// safeBuffer can be read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

var _ io.Writer = (*safeBuffer)(nil)

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	n, _ := strconv.Atoi(port)
	return n
}

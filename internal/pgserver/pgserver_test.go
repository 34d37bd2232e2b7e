//go:build unix && !solaris && !aix

package pgserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(helperMode) != "" {
		helper() // this process plays a program that uses the package
		return
	}
	goleak.VerifyTestMain(m)
}

// bare is a machine with nothing on it.
func bare(env map[string]string) machine {
	return machine{
		getenv:  func(key string) string { return env[key] },
		folders: func(context.Context) []string { return nil },
		fetch:   func(context.Context, logf) (string, error) { return "", errNoNetwork },
	}
}

var errNoNetwork = errors.New("dial tcp: no network")

func TestNothingFoundListsAllThreeWays(t *testing.T) {
	t.Parallel()
	m := bare(nil)
	empty := t.TempDir()
	m.folders = func(context.Context) []string { return []string{empty} }
	for _, own := range []bool{false, true} {
		_, err := m.start(t.Context(), Config{Own: own})
		if !errors.Is(err, errNoNetwork) || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("own %v: the error does not wrap its causes: %v", own, err)
		}
		for _, part := range []string{
			"pgcache: no Postgres found", "PGCACHE_DSN", "PGCACHE_PG_BIN", empty, "dial tcp: no network", "apt-get install",
		} {
			if !strings.Contains(fmt.Sprint(err), part) {
				t.Errorf("own %v: no %q in: %v", own, part, err)
			}
		}
	}
	_, err := bare(nil).start(t.Context(), Config{})
	if !errors.Is(err, errNoFolder) {
		t.Errorf("got %v, want %v in it", err, errNoFolder)
	}
}

func TestWhatTheEnvironmentNamesMustWork(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	for _, test := range []struct {
		name string
		env  map[string]string
		cfg  Config
		want []string
	}{
		{"refused", map[string]string{envDSN: "postgres://me:secret@127.0.0.1:1/x"}, Config{}, []string{envDSN, "refused"}},
		{"silent", map[string]string{envDSN: "host=127.0.0.1 port=" + portOf(silent)}, Config{}, []string{envDSN}},
		{"nonsense", map[string]string{envDSN: "postgres://%%"}, Config{}, []string{envDSN}},
		{"no folder", map[string]string{envPGBin: "/nowhere/at/all"}, Config{}, []string{envPGBin, "/nowhere/at/all"}},
		{"no folder in Config", nil, Config{BinDir: "/nowhere/at/all"}, []string{"/nowhere/at/all"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			m := bare(test.env)
			m.folders = func(context.Context) []string { t.Error("looked for binaries"); return nil }
			m.fetch = func(context.Context, logf) (string, error) { t.Error("tried a download"); return "", nil }
			_, err := m.start(ctx, test.cfg)
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range append(test.want, "pgcache: ") {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("no %q in: %v", part, err)
				}
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error publishes the password: %v", err)
			}
		})
	}
}

func portOf(l net.Listener) string {
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func TestUsable(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, initdb, postgres, want string }{
		{"good", "echo 'initdb (PostgreSQL) 17.5'", "echo 'postgres (PostgreSQL) 17.5 (Debian)'", ""},
		{"beta", "echo 'initdb (PostgreSQL) 19beta1'", "echo 'postgres (PostgreSQL) 19beta1'", ""},
		{"old", "echo 'initdb (PostgreSQL) 9.6.24'", "echo 'postgres (PostgreSQL) 9.6.24'", "is PostgreSQL 9"},
		{"broken", "echo libpq.so.5: no such file >&2; exit 127", "exit 0", "libpq.so.5"},
		{"no server", "echo 'initdb (PostgreSQL) 17.5'", "", "no such file"},
		{"something else", "echo hello", "echo hello", "hello"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := publicDir(t)
			for name, script := range map[string]string{"initdb": test.initdb, "postgres": test.postgres} {
				if script != "" {
					writeScript(t, filepath.Join(dir, name), script)
				}
			}
			err := usable(t.Context(), dir)
			if (err == nil) != (test.want == "") || !strings.Contains(fmt.Sprint(err), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestBrokenInstallationDoesNotHideAGoodOne(t *testing.T) {
	t.Parallel()
	broken, good := publicDir(t), publicDir(t)
	writeScript(t, filepath.Join(broken, "initdb"), "exit 127")
	writeScript(t, filepath.Join(good, "initdb"), "echo 'initdb (PostgreSQL) 17.5'; [ $1 = --version ]")
	writeScript(t, filepath.Join(good, "postgres"), "echo 'postgres (PostgreSQL) 17.5'")
	m := bare(nil)
	m.folders = func(context.Context) []string { return []string{broken, good} }
	m.fetch = func(context.Context, logf) (string, error) { t.Error("tried a download"); return "", errNoNetwork }
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(here, good)
	if err != nil {
		t.Fatal(err)
	}
	for _, cfg := range []Config{{}, {BinDir: relative}} {
		_, err := m.start(t.Context(), cfg)
		if want := "from " + good + ": initdb: exit status 1"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q: the good one was chosen", cfg, err, want)
		}
	}
}

func TestNewestFirst(t *testing.T) {
	t.Parallel()
	got := []string{"/opt/postgresql/bin", "/opt/postgresql@9.6/bin", "/opt/postgresql@17/bin", "/opt/postgresql@9.5/bin"}
	slices.SortFunc(got, newestFirst)
	want := []string{"/opt/postgresql@17/bin", "/opt/postgresql@9.6/bin", "/opt/postgresql@9.5/bin", "/opt/postgresql/bin"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// publicDir is t.TempDir for everybody: the server may run as another user.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgcache-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	return dir
}

func writeScript(t *testing.T, path, script string) {
	t.Helper()
	// A process that is forked meanwhile would inherit the file open for writing, and executing it would fail: ETXTBSY.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

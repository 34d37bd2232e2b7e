//go:build unix && !solaris && !aix

package pgserver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
)

func open(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func query(t *testing.T, db *sql.DB, sql string) string {
	t.Helper()
	var s string
	if err := db.QueryRowContext(t.Context(), sql).Scan(&s); err != nil {
		t.Errorf("%s: %v", sql, err)
	}
	return s
}

// TestThrowAwayCluster follows one cluster from Start to Close.
func TestThrowAwayCluster(t *testing.T) {
	t.Parallel()
	s, err := StartWith(t.Context(), Config{
		Logf:     t.Logf,
		Settings: map[string]string{"max_connections": "77", "search_path": `it's, "a\b"`},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, driver := range []string{"pgx", "postgres"} {
		t.Run("settings by "+driver, func(t *testing.T) { wantSettings(t, s, open(t, driver, s.DSN)) })
	}
	t.Run("restart", func(t *testing.T) { wantRestarts(t, s) })
	t.Run("in PGCACHE_DSN", func(t *testing.T) { wantLeftAlone(t, s) })

	folder := s.own.(*cluster).folder
	var closers sync.WaitGroup
	for range 3 {
		closers.Go(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	closers.Wait()
	if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Close left %s: %v", folder, err)
	}
	if version, _, err := ask(t.Context(), s.DSN); err == nil {
		t.Errorf("after Close, PostgreSQL %s still answers", version)
	}
	if err := s.Restart(t.Context(), "fast"); err == nil {
		t.Error("restarted a closed cluster")
	}
}

func wantSettings(t *testing.T, s *Server, db *sql.DB) {
	want := map[string]string{
		"max_connections": "77", "search_path": `it's, "a\b"`, "fsync": "off", "TimeZone": "UTC",
		"synchronous_commit": "on", "autovacuum": "on", "unix_socket_directories": "", "listen_addresses": "127.0.0.1",
		"server_encoding": "UTF8", "max_wal_size": "64MB",
	}
	got := map[string]string{}
	for name := range want {
		got[name] = query(t, db, "SHOW "+name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if version := query(t, db, "SHOW server_version"); !strings.HasPrefix(version, s.Version) || s.Version == "" {
		t.Errorf("Version is %q, the server says %q", s.Version, version)
	}
}

func wantRestarts(t *testing.T, s *Server) {
	db := open(t, "pgx", s.DSN)
	for _, stmt := range []string{"CREATE UNLOGGED TABLE public.fleeting (i int)", "INSERT INTO public.fleeting VALUES (1)"} {
		if _, err := db.ExecContext(t.Context(), stmt); err != nil {
			t.Fatal(err)
		}
	}
	// A shutdown keeps unlogged rows, a crash empties the table: the two modes differ as they should.
	for _, step := range []struct{ mode, rows string }{{"fast", "1"}, {"immediate", "0"}} {
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Restart(t.Context(), step.mode); err != nil {
			t.Fatalf("%s: %v", step.mode, err)
		}
		if err := conn.PingContext(t.Context()); err == nil {
			t.Errorf("%s: a connection survived", step.mode)
		}
		conn.Close()
		if got := query(t, db, "SELECT count(*) FROM public.fleeting"); got != step.rows {
			t.Errorf("%s: %s rows, want %s", step.mode, got, step.rows)
		}
	}
	if err := s.Restart(t.Context(), "gently"); err == nil || !strings.Contains(err.Error(), `"gently"`) {
		t.Errorf("mode gently: got %v", err)
	}
}

func wantLeftAlone(t *testing.T, theirs *Server) {
	var said []string
	m := bare(map[string]string{envDSN: strings.TrimSuffix(theirs.DSN, "?sslmode=disable")})
	s, err := m.start(t.Context(), Config{Logf: func(f string, args ...any) { said = append(said, fmt.Sprintf(f, args...)) }})
	if err != nil {
		t.Fatal(err)
	}
	for _, driver := range []string{"pgx", "postgres"} { // lib/pq must be given sslmode=disable
		query(t, open(t, driver, s.DSN), "SELECT 1")
	}
	if diff := cmp.Diff([]string{theirs.DSN, envDSN, theirs.Version}, []string{s.DSN, s.Source, s.Version}); diff != "" {
		t.Error(diff)
	}
	if len(said) != 1 || !strings.Contains(said[0], envDSN) {
		t.Errorf("said %q, want one line about %s", said, envDSN)
	}
	if err := s.Restart(t.Context(), "fast"); err == nil {
		t.Error("restarted somebody else's server")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := ask(t.Context(), theirs.DSN); err != nil {
		t.Errorf("Close stopped somebody else's server: %v", err)
	}
	// It cannot be given settings, so those ask for another one.
	_, err = m.start(t.Context(), Config{Settings: map[string]string{"work_mem": "1MB"}})
	if !errors.Is(err, errNoFolder) {
		t.Errorf("with Settings: got %v, want a search for binaries", err)
	}
}

// Two servers that start at the same time want the same port. What the loser finds there is a server that answers, but not
// its own.
func TestTwoWantOnePort(t *testing.T) {
	t.Parallel()
	folders := binaryFolders(t.Context())
	if len(folders) == 0 {
		t.Fatal("needs server binaries on this machine")
	}
	first := anyPort()
	var starts sync.WaitGroup
	var ports sync.Map
	for range 2 {
		tries := 0
		next := func() int {
			if tries++; tries == 1 {
				return first
			}
			return anyPort()
		}
		starts.Go(func() {
			s, err := newCluster(t.Context(), folders[0], nil, next)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { s.Close() }) // both run until both have been looked at
			c := s.own.(*cluster)
			ports.Store(c.port, true)
			if got, want := query(t, open(t, "pgx", s.DSN), "SHOW data_directory"), c.data(); got != want {
				t.Errorf("%s leads to the server of %s, want %s", s.DSN, got, want)
			}
		})
	}
	starts.Wait()
	if _, ok := ports.Load(first); !ok {
		t.Error("nobody got the port that both wanted first")
	}
}

func TestFailedStartSaysWhyAndLeavesNothing(t *testing.T) {
	dir := publicDir(t)
	t.Setenv("TMPDIR", dir)
	for _, test := range []struct {
		name     string
		settings map[string]string
		want     string
	}{
		{"bad value", map[string]string{"max_connections": "many"}, `invalid value for parameter "max_connections": "many"`},
		{"bad name", map[string]string{"port = 1\nfsync": "on"}, "postgresql.conf cannot hold it"},
		{"two lines", map[string]string{"work_mem": "1MB'\nfsync = 'on"}, "postgresql.conf cannot hold it"},
	} {
		_, err := StartWith(t.Context(), Config{Settings: test.settings})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	lunch := errors.New("the user went for lunch")
	go func() {
		waitFor(t, "initdb at work", func() bool { return len(glob(t, dir, "*/data/base/1/*")) > 0 })
		cancel(lunch)
	}()
	if _, err := StartWith(ctx, Config{Own: true}); !errors.Is(err, lunch) {
		t.Errorf("cancelled during initdb: got %v, want %v", err, lunch)
	}
	if left := glob(t, dir, "*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAnyPortIsNotOneTheSystemDealsOut(t *testing.T) {
	t.Parallel()
	for range 50 {
		port := anyPort()
		if port < 20000 || port >= 32000 {
			t.Fatalf("port %d", port)
		}
		listener, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			continue // somebody was faster
		}
		listener.Close()
	}
}

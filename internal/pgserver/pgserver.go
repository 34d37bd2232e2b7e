// Package pgserver brings a Postgres to people who only want to try something, and to tests: one that is running already,
// one started from binaries that lie on this machine, or one downloaded. Start says which it took.
package pgserver

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	envDSN    = "PGCACHE_DSN"
	envPGBin  = "PGCACHE_PG_BIN"
	askLimit  = 10 * time.Second // a server that runs already answers within this
	initLimit = time.Minute      // a throw-away cluster takes a second or two; a loaded machine gets more
)

// Server is a Postgres that answered when Start returned. Its methods are safe for concurrent use.
type Server struct {
	// DSN connects to it, with lib/pq as well as with pgx: a URL, or key=value pairs if that is what PGCACHE_DSN holds.
	DSN string
	// Source says in a few words where the server comes from: "PGCACHE_DSN", or "binaries in" a folder.
	Source string
	// Version is what the server calls server_version, such as "17.5".
	Version string

	own ownCluster // nil when somebody else runs the server
}

// ownCluster is a throw-away cluster that this process has started, where the operating system can run one.
type ownCluster interface {
	restart(ctx context.Context, mode string) error
	close() error
}

// Config says what StartWith may not choose by itself. The zero value leaves everything to it.
type Config struct {
	// Logf is the logf of Start. Nil: nothing is logged.
	Logf func(format string, args ...any)
	// Own asks for a throw-away cluster even where PGCACHE_DSN is set: for tests that restart their server. A BinDir or
	// Settings ask for one too.
	Own bool
	// BinDir is the folder of the binaries to use (initdb, postgres), whatever the environment says. Empty: look for one.
	BinDir string
	// Settings are lines of postgresql.conf beyond the usual ones, which they override: max_connections to "20".
	Settings map[string]string
}

// Start returns the first Postgres it can get:
//
//  1. the one that the environment names in PGCACHE_DSN (a URL or key=value pairs). It is never stopped;
//  2. a throw-away cluster from the server binaries on this machine: in the folder PGCACHE_PG_BIN if that is set, else
//     on the PATH, where pg_config points, or where the distributions put them. Postgres 14 or newer;
//  3. a throw-away cluster from binaries that it downloads, once, into the user's cache folder.
//
// PGCACHE_DSN or PGCACHE_PG_BIN set to something unusable is an error at once, not a reason to try the next. If nothing
// helps, the error lists all three with what went wrong and what to do.
//
// A throw-away cluster listens on a free port of 127.0.0.1, for anybody on this machine and without a password: keep
// nothing in it that others may not read. It promises nothing after a power cut (fsync is off), and it ends, folder and
// all, with Close or with the process that started it, even if that is killed.
//
// logf, unless it is nil, is called with one line that says which server is used, and with one more before a download. Servers can be
// started at the same time. A download takes two minutes at the most, all else one.
func Start(ctx context.Context, logf func(format string, args ...any)) (*Server, error) {
	return StartWith(ctx, Config{Logf: logf})
}

// StartWith is Start where cfg leaves it the choice.
func StartWith(ctx context.Context, cfg Config) (*Server, error) {
	return thisMachine().start(ctx, cfg)
}

// Close stops a throw-away cluster and removes its folder, however many clients are connected. It does nothing to a
// server that PGCACHE_DSN named, nor when called again.
func (s *Server) Close() error {
	if s.own == nil {
		return nil
	}
	if err := s.own.close(); err != nil {
		return fmt.Errorf("pgcache: closing the Postgres from %s: %w", s.Source, err)
	}
	return nil
}

// Restart stops a throw-away cluster and starts it again on the same port and data. Mode "fast" is an orderly shutdown,
// "immediate" is a crash with recovery. After an error the server may be down. Somebody else's server is not restarted:
// that is an error.
func (s *Server) Restart(ctx context.Context, mode string) error {
	if s.own == nil {
		return fmt.Errorf("pgcache: restarting the Postgres from %s: only a throw-away cluster can be restarted", s.Source)
	}
	if err := s.own.restart(ctx, mode); err != nil {
		return fmt.Errorf("pgcache: restarting the Postgres from %s: %w", s.Source, err)
	}
	return nil
}

// machine is what start asks its surroundings for. Tests give other answers.
type machine struct {
	getenv  func(key string) string
	folders func(ctx context.Context) []string                           // that may hold server binaries, best first
	fetch   func(ctx context.Context, logf logf) (dir string, err error) // downloads binaries
}

type logf func(format string, args ...any)

func (m machine) start(ctx context.Context, cfg Config) (*Server, error) {
	var say logf = func(string, ...any) {}
	if cfg.Logf != nil {
		say = cfg.Logf
	}

	own := cfg.Own || cfg.BinDir != "" || len(cfg.Settings) > 0
	if dsn, source := m.named(); dsn != "" && !own {
		version, encrypted, err := ask(ctx, dsn)
		if err != nil {
			return nil, fmt.Errorf("pgcache: the server that %s names does not answer: %w", source, err)
		}
		if !encrypted { // pgx gets by without TLS if nothing was said about it, lib/pq insists
			dsn = WithParam(dsn, "sslmode", "disable")
		}
		say("pgcache: using the PostgreSQL %s that %s names", version, source)
		return &Server{DSN: dsn, Source: source, Version: version}, nil
	}

	if dir := cmp.Or(cfg.BinDir, m.getenv(envPGBin)); dir != "" {
		dir, err := filepath.Abs(dir) // the binaries run in another folder
		if err == nil {
			err = usable(ctx, dir)
		}
		if err != nil {
			if cfg.BinDir == "" {
				err = fmt.Errorf("%w; %s must name a folder with initdb and postgres", err, envPGBin)
			}
			return nil, fmt.Errorf("pgcache: no server can be started: %w", err)
		}
		return startFrom(ctx, dir, cfg.Settings, say)
	}

	var noBinaries error
	folders := m.folders(ctx)
	for _, dir := range folders {
		err := usable(ctx, dir)
		if err == nil {
			return startFrom(ctx, dir, cfg.Settings, say)
		}
		noBinaries = errors.Join(noBinaries, err)
	}
	noBinaries = cmp.Or(noBinaries, errNoFolder)

	dir, noDownload := m.fetch(ctx, say)
	if noDownload == nil {
		return startFrom(ctx, dir, cfg.Settings, say)
	}
	return nil, nothingError{own: own, binaries: noBinaries, download: noDownload}
}

// named is the server that the environment names, and the variable that does. PGHOST doesn't count: who has it set for psql
// does not expect tests on that server.
func (m machine) named() (dsn, source string) {
	if dsn := m.getenv(envDSN); dsn != "" {
		return dsn, envDSN
	}
	return "", ""
}

// startFrom starts a throw-away cluster and says so.
func startFrom(ctx context.Context, dir string, settings map[string]string, say logf) (*Server, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, initLimit, fmt.Errorf("not ready after %v", initLimit))
	defer cancel()
	s, err := startCluster(ctx, dir, settings)
	if err != nil {
		return nil, fmt.Errorf("pgcache: starting a throw-away Postgres from %s: %w", dir, err)
	}
	say("pgcache: started a throw-away PostgreSQL %s from %s in %v: %s",
		s.Version, dir, time.Since(began).Round(time.Millisecond), s.DSN)
	return s, nil
}

// ask connects, and returns the server's version and whether the connection is encrypted.
func ask(ctx context.Context, dsn string) (version string, encrypted bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askLimit, fmt.Errorf("no answer within %v", askLimit))
	defer cancel()
	conn, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return "", false, err
	}
	defer conn.Close(ctx)
	results, err := conn.Exec(ctx, "SHOW server_version").ReadAll()
	if err != nil {
		return "", false, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return "", false, errors.New("SHOW server_version returned no row")
	}
	// Debian says "15.10 (Debian 15.10-0+deb12u1)".
	version, _, _ = strings.Cut(string(results[0].Rows[0][0]), " ")
	_, encrypted = conn.Conn().(*tls.Conn)
	return version, encrypted, nil
}

// nothingError is the error of somebody who has no Postgres yet: it has to say how to get one.
type nothingError struct {
	own                bool // the caller needs a throw-away cluster, so the environment was not asked
	binaries, download error
}

func (e nothingError) Error() string {
	server := envDSN + " is not set"
	if e.own {
		server = "does not serve here: a server that can be configured and restarted is needed"
	}
	return "pgcache: no Postgres found; one of these three is enough:\n" +
		"1. a running server: " + server + "\n" +
		"   to do: export " + envDSN + "='postgres://user:password@localhost:5432/postgres'\n" +
		"2. server binaries on this machine: " + indent(e.binaries) + "\n" +
		"   to do: install them (apt-get install postgresql, dnf install postgresql-server, brew install postgresql),\n" +
		"   or name the folder that holds initdb and postgres in " + envPGBin + "\n" +
		"3. a download: " + indent(e.download) + "\n" +
		"   to do: go online, or set HTTPS_PROXY if there is a proxy"
}

func (e nothingError) Unwrap() []error { return []error{e.binaries, e.download} }

func indent(err error) string { return strings.ReplaceAll(err.Error(), "\n", "\n   ") }

package integration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgcache/go/internal/pgserver"
)

// envBins names folders that hold initdb and postgres, separated by colons or spaces.
const envBins = "PGCACHE_PG_BINS"

// startLimit is for one server, the pull of its image or the download of its binaries included.
const startLimit = 5 * time.Minute

// server is a PostgreSQL of ours.
type server struct {
	major   int
	version string
	where   string // a container, or the folder of its binaries
	dsn     string
	// crash ends the server without a farewell and returns when it has recovered: UNLOGGED tables are then empty.
	crash func(ctx context.Context) error
	close func() error
}

func (s *server) String() string { return fmt.Sprintf("PostgreSQL %s (%s)", s.version, s.where) }

// errNone says that there is no such version here, which is no fault.
var errNone = errors.New("there are no binaries of it here")

// start returns a server of a major version: in a container where Docker answers, else from binaries.
func start(t *testing.T, major int) (*server, error) {
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	s, err := startContainer(ctx, major)
	if err != nil {
		if !errors.Is(err, errNoDocker) {
			t.Logf("PostgreSQL %d: no container, trying binaries: %v", major, err)
		}
		if s, err = startBinaries(ctx, t, major); err != nil {
			return nil, err
		}
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Errorf("stop %v: %v", s, err)
		}
	})
	t.Logf("running against %v", s)
	ran.add(s.String())
	return s, nil
}

// newest returns a server of the newest version there is.
func newest(t *testing.T) *server {
	t.Helper()
	var all error
	for i := len(supported) - 1; i >= 0; i-- {
		s, err := start(t, supported[i])
		if err == nil {
			return s
		}
		all = errors.Join(all, fmt.Errorf("PostgreSQL %d: %w", supported[i], err))
	}
	t.Fatalf("no PostgreSQL to run against: %v\n%s", all, howTo)
	return nil
}

const howTo = `one of these is enough:
- Docker: start its daemon, or set DOCKER_HOST
- binaries: set ` + envBins + ` to folders that hold initdb and postgres
- npm, with which ./binaries fetches them (see README.md)`

func startBinaries(ctx context.Context, t *testing.T, major int) (*server, error) {
	dir, err := folder(ctx, t, major)
	if err != nil {
		return nil, err
	}
	own, err := pgserver.StartWith(ctx, pgserver.Config{BinDir: dir})
	if err != nil {
		return nil, err
	}
	return &server{
		major: major, version: own.Version, where: dir, dsn: own.DSN, close: own.Close,
		crash: func(ctx context.Context) error { return own.Restart(ctx, "immediate") },
	}, nil
}

// folder returns where the binaries of a major version are.
func folder(ctx context.Context, t *testing.T, major int) (string, error) {
	if os.Getenv(envBins) != "" {
		dirs, err := named()
		return cmp.Or(dirs[major], ""), cmp.Or(err, missing(dirs, major))
	}
	t.Logf("PostgreSQL %d: no container, and %s is not set: asking ./binaries", major, envBins)
	out, err := exec.CommandContext(ctx, "bash", "./binaries", strconv.Itoa(major)).Output()
	if err == nil {
		return strings.TrimSpace(string(out)), nil
	}
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", errNone, strings.TrimSpace(string(exit.Stderr)))
	}
	return "", err
}

func missing(dirs map[int]string, major int) error {
	if dirs[major] == "" {
		return fmt.Errorf("%w: %s does not name any", errNone, envBins)
	}
	return nil
}

var postgresVersion = regexp.MustCompile(`PostgreSQL\) (\d+)`)

// named returns the folders in the environment by their major version.
var named = sync.OnceValues(func() (map[int]string, error) {
	dirs := map[int]string{}
	for _, dir := range strings.FieldsFunc(os.Getenv(envBins), func(r rune) bool { return r == ':' || r == ' ' || r == '\n' }) {
		out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %s is not a folder of server binaries: %w", envBins, dir, err)
		}
		match := postgresVersion.FindSubmatch(out)
		if match == nil {
			return nil, fmt.Errorf("%s: %s/postgres --version says %q", envBins, dir, out)
		}
		major, _ := strconv.Atoi(string(match[1]))
		if dirs[major] == "" {
			dirs[major] = dir
		}
	}
	return dirs, nil
})

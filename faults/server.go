package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/pgcache/go/internal/pgserver"
)

// starting is held while a server starts: where it puts its files is a matter of the environment.
var starting sync.Mutex

func startServer(ctx context.Context, cfg pgserver.Config) (*pgserver.Server, error) {
	starting.Lock()
	defer starting.Unlock()
	return pgserver.StartWith(ctx, cfg)
}

// serverOf returns the folder of the binaries that a scenario needs, "" for those of server, or why there are none.
// PGCACHE_PG_BINS names folders of other versions.
func (s scenario) serverOf(server *pgserver.Server) (folder, why string) {
	if major(server.Version) >= s.version {
		return "", ""
	}
	for _, folder := range filepath.SplitList(os.Getenv("PGCACHE_PG_BINS")) {
		out, err := exec.Command(filepath.Join(folder, "postgres"), "--version").Output() //nolint:noctx // it returns at once
		if fields := strings.Fields(string(out)); err == nil && len(fields) > 2 && major(fields[2]) >= s.version {
			return folder, ""
		}
	}
	return "", fmt.Sprintf("needs PostgreSQL %d: %s", s.version, s.why)
}

func major(version string) int {
	digits, _, _ := strings.Cut(version, ".")
	n, _ := strconv.Atoi(strings.TrimRight(digits, "abcdefghijklmnopqrstuvwxyz"))
	return n
}

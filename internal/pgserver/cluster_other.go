//go:build !unix || solaris || aix

package pgserver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
)

// canRun says why this operating system cannot run a throw-away cluster.
func canRun() error {
	return errors.New("throw-away servers are not supported on " + runtime.GOOS + ": use " + envDSN)
}

func startCluster(context.Context, string, map[string]string) (*Server, error) { return nil, canRun() }

func output(context.Context, string, ...string) ([]byte, error) { return nil, canRun() }

func cacheFolder() (string, error) {
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "pgcache"), err
}

func lockFolder(context.Context, string) (func(), error) { return nil, canRun() }

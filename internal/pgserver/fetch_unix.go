//go:build unix && !solaris && !aix

package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// cacheFolder is where downloaded binaries stay: in a place that only we write to, and that the account can read.
func cacheFolder() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/cache/pgcache", nil
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "pgcache"), err
}

// lockFolder waits until no other process holds the lock of dir.
func lockFolder(ctx context.Context, dir string) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil // closing it unlocks
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			file.Close()
			return nil, fmt.Errorf("locking %s: %w", file.Name(), err)
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("waiting for another download: %w", context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

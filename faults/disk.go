package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pgcache/go/internal/pgserver"
)

// onSmallDisk starts a server on a file system of its own, in folder. why says that it can't be had.
func onSmallDisk(ctx context.Context, cfg pgserver.Config) (s *pgserver.Server, folder string, release func() error, why string, err error) {
	folder, err = os.MkdirTemp("", "pgcache-faults-")
	if err != nil {
		return nil, "", nil, "", err
	}
	unmount, err := mount(folder)
	if err != nil {
		return nil, "", nil, fmt.Sprintf("needs to mount a small file system: %v", err), os.Remove(folder)
	}
	release = func() error { return errors.Join(unmount(), os.Remove(folder)) }
	starting.Lock()
	defer starting.Unlock()
	before, set := os.LookupEnv("TMPDIR")
	if err := os.Setenv("TMPDIR", folder); err != nil {
		return nil, "", nil, "", errors.Join(err, release())
	}
	s, err = pgserver.StartWith(ctx, cfg)
	if set {
		err = errors.Join(err, os.Setenv("TMPDIR", before))
	} else {
		err = errors.Join(err, os.Unsetenv("TMPDIR"))
	}
	if err != nil {
		return nil, "", nil, "", errors.Join(err, release())
	}
	return s, folder, release, "", nil
}

// fillDisk leaves the server's file system without a free byte. A server that then can't write what it must ends; it is
// started again when there is room.
func fillDisk(ctx context.Context, r *run) (func() error, error) {
	before, err := r.incarnation(ctx)
	if err != nil {
		return nil, err
	}
	end := r.wipe()
	fill := filepath.Join(r.folder, "fill")
	file, err := os.Create(fill)
	if err != nil {
		return nil, err
	}
	for size := 1 << 20; size > 0 && err == nil; {
		if _, full := file.Write(make([]byte, size)); errors.Is(full, syscall.ENOSPC) {
			size /= 2
		} else {
			err = full
		}
	}
	return func() error {
		if err := errors.Join(file.Close(), os.Remove(fill)); err != nil {
			return err
		}
		soon, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		if up(soon, r.admin) != nil {
			if err := r.server.Restart(ctx, "immediate"); err != nil {
				return err
			}
			if err := up(ctx, r.admin); err != nil {
				return err
			}
		}
		after, err := r.incarnation(ctx)
		end(after != before)
		return err
	}, err
}

// incarnation differs after a crash from before.
func (r *run) incarnation(ctx context.Context) (id int64, err error) {
	err = r.admin.QueryRowContext(ctx, "SELECT coalesce((SELECT id FROM "+r.table("incarnation")+"), 0)").Scan(&id)
	return id, err
}

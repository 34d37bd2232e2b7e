//go:build linux

package main

import "syscall"

const (
	sigStop = syscall.SIGSTOP
	sigCont = syscall.SIGCONT
)

func kill(pid int, s syscall.Signal) error { return syscall.Kill(pid, s) }

// mount puts a small file system of its own on a folder.
func mount(folder string) (unmount func() error, err error) {
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size=160m,mode=1777"); err != nil {
		return nil, err
	}
	return func() error { return syscall.Unmount(folder, 0) }, nil
}

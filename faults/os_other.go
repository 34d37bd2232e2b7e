//go:build !linux

package main

import (
	"errors"
	"syscall"
)

const (
	sigStop = syscall.Signal(-1)
	sigCont = syscall.Signal(-1)
)

func kill(int, syscall.Signal) error { return errors.ErrUnsupported }

func mount(string) (unmount func() error, err error) { return nil, errors.ErrUnsupported }

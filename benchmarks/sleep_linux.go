package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// sleeper sleeps for fractions of a millisecond. The runtime's timers don't: an idle process wakes up by epoll, which
// counts whole milliseconds, so 0.75 ms become more than 1.
type sleeper struct{ timer *os.File }

func newSleeper() (*sleeper, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	return &sleeper{os.NewFile(uintptr(fd), "timer")}, nil
}

// sleep is for one goroutine at a time. A sleeper that is closed does not sleep well.
func (s *sleeper) sleep(d time.Duration) {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(int64(d), 1))}
	conn, err := s.timer.SyscallConn()
	if err == nil {
		err = conn.Control(func(fd uintptr) { _ = unix.TimerfdSettime(int(fd), 0, &spec, nil) })
	}
	var expired [8]byte
	if err == nil {
		_, err = s.timer.Read(expired[:])
	}
	if err != nil {
		time.Sleep(d)
	}
}

func (s *sleeper) close() error { return s.timer.Close() }

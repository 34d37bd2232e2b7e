//go:build !linux

package main

import "time"

// sleeper sleeps as precisely as the runtime's timers.
type sleeper struct{}

func newSleeper() (*sleeper, error) { return &sleeper{}, nil }

func (*sleeper) sleep(d time.Duration) { time.Sleep(d) }
func (*sleeper) close() error          { return nil }

package window

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestLargeWindow: a window longer than a sweep's delay sweeps later, not without a pause.
func TestLargeWindow(t *testing.T) {
	t.Parallel()
	for _, window := range []time.Duration{time.Millisecond, time.Second, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			s := &script{began: time.Now()}
			w := New(window, false, s)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); w.Run(ctx) }()
			synctest.Wait()
			w.Heard(w.node+1, true)
			s.rest(time.Hour)
			if n := len(s.flushes); n < 1 || n > 3 {
				t.Errorf("window %v: %d flushes after one notification", window, n)
			}
			cancel()
			<-done
		})
	}
}

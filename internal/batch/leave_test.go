package batch

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestLeave: a shared statement is canceled when the last of its callers has given up, but not before it has had Patience; where one still
// waits it goes on.
func TestLeave(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		patience time.Duration
		leave    [2]time.Duration // when each of two callers gives up, after their statement was sent; 0: never
		ends     time.Duration    // when that ends
	}{
		"nobody gives up":     {30 * time.Second, [2]time.Duration{}, 50 * time.Second},
		"one gives up":        {30 * time.Second, [2]time.Duration{10 * time.Second, 0}, 50 * time.Second},
		"both, late":          {30 * time.Second, [2]time.Duration{10 * time.Second, 40 * time.Second}, 40 * time.Second},
		"both, early":         {30 * time.Second, [2]time.Duration{10 * time.Second, 5 * time.Second}, 30 * time.Second},
		"both, for no bound":  {0, [2]time.Duration{10 * time.Second, 5 * time.Second}, 50 * time.Second},
		"both, when it ended": {30 * time.Second, [2]time.Duration{51 * time.Second, 52 * time.Second}, 50 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var s server
				b := s.queue(1)
				b.Patience = c.patience
				var began, ended time.Time
				b.Many = func(ctx context.Context, qs []int) ([]string, error) {
					began = time.Now()
					defer func() { ended = time.Now() }()
					select {
					case <-time.After(50 * time.Second):
						return make([]string, len(qs)), nil
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				}
				ask(t, b, t.Context(), 1, func(string, error) {}) // the others share the next
				sent := time.Now().Add(time.Second)
				for i, after := range c.leave {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					if after > 0 {
						time.AfterFunc(time.Until(sent)+after, cancel)
					}
					ask(t, b, ctx, 2+i, func(_ string, err error) {
						if gaveUp := after > 0 && after < 50*time.Second; gaveUp != errors.Is(err, context.Canceled) || !gaveUp && err != nil {
							t.Errorf("caller %d: %v", i, err)
						}
					})
				}
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				if took := ended.Sub(began); took != c.ends {
					t.Errorf("the statement took %v, want %v", took, c.ends)
				}
				if len(b.sent) != 0 || b.busy != 0 {
					t.Errorf("%d statements, %d slots", len(b.sent), b.busy)
				}
			})
		})
	}
}

package batch

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

var errLocked = errors.New("somebody holds a lock")

// locking is a server's queue on which requests below limit find a lock until unlock is closed.
func locking(s *server, limit int) (b *Queue[int, string], unlock chan struct{}) {
	unlock = make(chan struct{})
	isLocked := func(n int) bool {
		select {
		case <-unlock:
			return false
		default:
			return n < limit
		}
	}
	b = s.queue(1)
	b.Patience = 3 * time.Second
	b.Overlap = func(a, b int) bool { return a == b }
	b.MaxWeight = 100
	b.Apart = func(error) bool { return true }
	b.Locked = func(err error) bool { return errors.Is(err, errLocked) }
	answer := b.One
	b.One = func(ctx context.Context, n int) (string, error) {
		if n < limit {
			select {
			case <-unlock:
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}
		return answer(ctx, n)
	}
	b.Try = func(ctx context.Context, n int) (string, error) {
		time.Sleep(10 * time.Millisecond)
		if isLocked(n) {
			return "", errLocked
		}
		return answer(ctx, n)
	}
	many := b.Many
	b.Many = func(ctx context.Context, ns []int) ([]string, error) {
		if slices.ContainsFunc(ns, isLocked) {
			time.Sleep(50 * time.Millisecond)
			return nil, errLocked
		}
		return many(ctx, ns)
	}
	return b, unlock
}

// TestApart: requests that no lock concerns are answered, however many others wait for locks; only a few of those are
// sent, and all are answered when the locks are gone.
func TestApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s server
		b, unlock := locking(&s, 10)
		answered := map[int]time.Duration{}
		began := time.Now()
		for n := range 20 {
			ask(t, b, t.Context(), n, func(r string, err error) {
				if err != nil {
					t.Error(n, err)
				}
				answered[n] = time.Since(began).Round(time.Second)
			})
		}
		most := 0
		for range 20 {
			time.Sleep(time.Second)
			b.mu.Lock()
			most = max(most, len(b.sent))
			b.mu.Unlock()
		}
		synctest.Wait()
		checking.Lock()
		for n := 10; n < 20; n++ {
			if took, ok := answered[n]; !ok || took > 10*time.Second {
				t.Errorf("%d: %v after %v", n, ok, took)
			}
		}
		if len(answered) != 10 || most > b.LockWaits+b.Slots {
			t.Errorf("%v; %d statements under way", answered, most)
		}
		checking.Unlock()
		close(unlock)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if len(answered) != 20 || len(b.sent)+len(b.apart)+len(b.waiting)+b.busy+b.trying != 0 {
			t.Error(answered, b.sent, b.apart, b.waiting, b.busy, b.trying)
		}
	})
}

// TestApartTooLong: who waits for a place longer than Timeout, or leaves, is let go; the others go on.
func TestApartTooLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s server
		b, unlock := locking(&s, 10)
		gone, leave := context.WithCancel(t.Context())
		failed := map[int]error{}
		for n := range 6 {
			ctx := t.Context()
			if n == 5 {
				ctx = gone
			}
			ask(t, b, ctx, n, func(_ string, err error) { failed[n] = err })
		}
		time.Sleep(30 * time.Second)
		leave()
		synctest.Wait()
		checking.Lock()
		if len(failed) != 1 || !errors.Is(failed[5], context.Canceled) {
			t.Error(failed)
		}
		checking.Unlock()
		time.Sleep(40 * time.Second)
		synctest.Wait()
		checking.Lock()
		defer checking.Unlock()
		for n := range 5 {
			if !errors.Is(failed[n], context.DeadlineExceeded) {
				t.Errorf("%d: %v", n, failed[n])
			}
		}
		if r, err := b.Do(t.Context(), 11); r != "11" || err != nil {
			t.Error(r, err)
		}
		close(unlock)
	})
}

// TestPanics: a statement that panics answers everybody with an error.
func TestPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := server{fail: func([]int) error { panic("out of range") }}
		b := s.queue(1)
		n := 0
		for i := range 6 {
			ask(t, b, t.Context(), i, func(_ string, err error) {
				if err != nil {
					n++
				}
			})
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n != 6 {
			t.Errorf("%d callers got an error", n)
		}
		s.fail = nil
		if _, err := b.Do(t.Context(), 1); err != nil || b.busy+len(b.sent) != 0 {
			t.Error(err)
		}
	})
}

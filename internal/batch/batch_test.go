package batch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server answers after a second, and remembers what it was asked together.
type server struct {
	mu         sync.Mutex
	statements [][]int
	fail       func(qs []int) error
}

func (s *server) queue(slots int) *Queue[int, string] {
	answer := func(ctx context.Context, qs []int) ([]string, error) {
		s.mu.Lock()
		s.statements = append(s.statements, qs)
		s.mu.Unlock()
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if s.fail != nil {
			if err := s.fail(qs); err != nil {
				return nil, err
			}
		}
		rs := make([]string, len(qs))
		for i, q := range qs {
			rs[i] = fmt.Sprint(q)
		}
		return rs, nil
	}
	return &Queue[int, string]{
		Slots: slots, Timeout: time.Minute, MaxWeight: 4, LockWaits: 2,
		One: func(ctx context.Context, q int) (string, error) {
			rs, err := answer(ctx, []int{q})
			if err != nil {
				return "", err
			}
			return rs[0], nil
		},
		Many:  answer,
		Apart: func(err error) bool { return errors.Is(err, errBad) },
	}
}

var errBad = errors.New("bad request")

// checking keeps the checks of callers that are answered together apart.
var checking sync.Mutex

// ask asks for n in a goroutine and lets it come to rest.
func ask(t *testing.T, b *Queue[int, string], ctx context.Context, n int, check func(r string, err error)) {
	t.Helper()
	go func() {
		r, err := b.Do(ctx, n)
		checking.Lock()
		defer checking.Unlock()
		check(r, err)
	}()
	synctest.Wait()
}

func TestShare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s server
		b := s.queue(1)
		var answered []string
		for n := 1; n <= 7; n++ {
			ask(t, b, t.Context(), n, func(r string, err error) {
				if err != nil || r != fmt.Sprint(n) {
					t.Errorf("%d got the answer %q, %v", n, r, err)
				}
				answered = append(answered, r)
			})
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		// The first runs at once and alone, the others share; 4 is the most that one statement takes.
		if d := cmp.Diff([][]int{{1}, {2, 3, 4, 5}, {6, 7}}, s.statements); d != "" {
			t.Error(d)
		}
		if len(answered) != 7 {
			t.Error(answered)
		}
		if _, err := b.Do(t.Context(), 8); err != nil {
			t.Error(err)
		}
		if d := cmp.Diff([]int{8}, s.statements[3]); d != "" {
			t.Error("the slot was not freed:", d)
		}
	})
}

func TestOneCallersContextIsItsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s server
		b := s.queue(1)
		gone, leave := context.WithCancel(t.Context())
		var errs, others []error
		for n := 1; n <= 4; n++ {
			if n == 2 || n == 4 {
				ask(t, b, gone, n, func(_ string, err error) { errs = append(errs, err) })
			} else {
				ask(t, b, t.Context(), n, func(_ string, err error) { others = append(others, err) })
			}
		}
		time.Sleep(1500 * time.Millisecond) // 2, 3 and 4 are under way
		leave()
		synctest.Wait()
		if len(errs) != 2 || !errors.Is(errs[0], context.Canceled) || !errors.Is(errs[1], context.Canceled) {
			t.Error(errs)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if d := cmp.Diff([]error{nil, nil}, others); d != "" {
			t.Error(d)
		}
		// Those who left before their statement are not in it.
		ask(t, b, t.Context(), 5, func(string, error) {})
		ask(t, b, gone, 6, func(string, error) {})
		ask(t, b, t.Context(), 7, func(string, error) {})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if d := cmp.Diff([][]int{{1}, {2, 3, 4}, {5}, {7}}, s.statements); d != "" {
			t.Error(d)
		}
		if len(b.waiting) != 0 {
			t.Errorf("%d callers that left are kept", len(b.waiting))
		}
	})
}

func TestOneBadRequestFailsAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := server{fail: func(qs []int) error {
			for _, q := range qs {
				if q == 3 {
					return errBad
				}
			}
			return nil
		}}
		b := s.queue(1)
		errs := map[int]error{}
		for n := 1; n <= 4; n++ {
			ask(t, b, t.Context(), n, func(_ string, err error) { errs[n] = err })
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for n := 1; n <= 4; n++ {
			if bad := errors.Is(errs[n], errBad); bad != (n == 3) {
				t.Errorf("%d: %v", n, errs[n])
			}
		}
	})
}

func TestErrorReachesAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("no connection")
		s := server{fail: func([]int) error { return down }}
		b := s.queue(1)
		var n int
		for i := range 4 {
			ask(t, b, t.Context(), i, func(_ string, err error) {
				if errors.Is(err, down) {
					n++
				}
			})
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n != 4 || len(s.statements) != 2 {
			t.Errorf("%d callers got the error of %d statements", n, len(s.statements))
		}
	})
}

func TestSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s server
		b := s.queue(2)
		for n := 1; n <= 4; n++ {
			ask(t, b, t.Context(), n, func(string, error) {})
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if d := cmp.Diff([][]int{{1}, {2}, {3, 4}}, s.statements); d != "" {
			t.Error(d)
		}
	})
}

// TestStuck: a statement that does not come back holds up only what would wait with it.
func TestStuck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s server
		release := make(chan struct{})
		s.fail = func(qs []int) error {
			if qs[0] == 1 {
				<-release
			}
			return nil
		}
		b := s.queue(1)
		b.Patience = 3 * time.Second
		b.Overlap = func(a, b int) bool { return a%10 == b%10 }
		answered := map[int]time.Duration{}
		began := time.Now()
		for _, n := range []int{1, 11, 2, 12, 3} {
			ask(t, b, t.Context(), n, func(_ string, err error) {
				if late := n == 11; errors.Is(err, context.DeadlineExceeded) != late || (err != nil) != late {
					t.Errorf("%d: %v", n, err)
				}
				answered[n] = time.Since(began)
			})
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if d := cmp.Diff(map[int]time.Duration{2: 4 * time.Second, 12: 4 * time.Second, 3: 4 * time.Second}, answered); d != "" {
			t.Error(d)
		}
		ask(t, b, t.Context(), 21, func(string, error) {}) // waits, although there is a free slot
		time.Sleep(45 * time.Second)                       // and 11 has waited for a whole timeout
		synctest.Wait()
		if took := answered[11]; took < b.Timeout || took > b.Timeout+b.Patience {
			t.Errorf("it waited %v", took)
		}
		if d := cmp.Diff([][]int{{1}, {2, 12, 3}}, s.statements); d != "" {
			t.Error(d)
		}
		close(release)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if d := cmp.Diff([][]int{{1}, {2, 12, 3}, {21}}, s.statements); d != "" {
			t.Error(d)
		}
		if _, err := b.Do(t.Context(), 4); err != nil || b.busy != 0 || len(b.sent)+len(b.waiting) != 0 {
			t.Error(err, b.busy, b.sent, b.waiting)
		}
		time.Sleep(b.Patience)
		if b.ticking {
			t.Error("a timer runs although nobody waits")
		}
	})
}

// TestCrowd: callers that come back as soon as they have their answer go on sharing, all of them.
func TestCrowd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s server
		b := s.queue(1)
		var wg sync.WaitGroup
		for n := range 4 {
			wg.Go(func() {
				for range 10 {
					if _, err := b.Do(t.Context(), n); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if len(s.statements) > 14 { // 1, 3, and then 4 each time but for the last; one by one and 3 by turns would be 20
			t.Errorf("%d statements: %v", len(s.statements), s.statements)
		}
	})
}

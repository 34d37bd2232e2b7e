//go:build !race

// These tests look at fields of what they test while time stands still, without their locks: the race detector does not know that
// nothing else runs then.

package batch

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sends counts the statements of a queue by the function that sends them, and keeps their contexts.
type sends struct {
	mu             sync.Mutex
	one, many, try []int
	trying, most   int
	contexts       []context.Context
}

func (n *sends) count(b *Queue[int, string]) {
	note := func(ctx context.Context, list *[]int, qs ...int) {
		n.mu.Lock()
		defer n.mu.Unlock()
		*list, n.contexts = append(*list, qs...), append(n.contexts, ctx)
	}
	one, many, try := b.One, b.Many, b.Try
	b.One = func(ctx context.Context, q int) (string, error) { note(ctx, &n.one, q); return one(ctx, q) }
	b.Many = func(ctx context.Context, qs []int) ([]string, error) { note(ctx, &n.many, qs...); return many(ctx, qs) }
	if try == nil {
		return
	}
	b.Try = func(ctx context.Context, q int) (string, error) {
		note(ctx, &n.try, q)
		n.mu.Lock()
		n.trying++
		n.most = max(n.most, n.trying)
		n.mu.Unlock()
		defer func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.trying--
		}()
		return try(ctx, q)
	}
}

func nothing(string, error) {}

// TestPlaces: as many statements as LockWaits allows wait for locks, no fewer and no more. While all places are taken, a
// request that no lock concerns is sent at once, but not in a statement that would wait for a lock; and a request for a
// row that others wait for is not sent.
func TestPlaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s server
		var n sends
		b, unlock := locking(&s, 10)
		b.Patience = 30 * time.Second
		n.count(b)
		done := map[int]time.Duration{}
		began := time.Now()
		get := func(q int) {
			ask(t, b, t.Context(), q, func(_ string, err error) {
				if err != nil {
					t.Error(q, err)
				}
				done[q] = time.Since(began)
			})
		}
		for _, q := range []int{20, 0, 0, 1, 2, 3, 21} { // 20 goes alone, the others together
			get(q)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(b.sent) != b.LockWaits || b.busy != 0 || len(b.apart) != 5 {
			t.Errorf("%d statements wait, %d have a slot, %d requests are apart", len(b.sent), b.busy, len(b.apart))
		}
		if n.most != b.LockWaits {
			t.Errorf("%d requests were tried at a time", n.most)
		}
		waiting := map[int]int{}
		for _, s := range b.sent {
			waiting[s.lone]++
		}
		if len(waiting) != 2 {
			t.Errorf("the statements wait for %v: two for one row", waiting)
		}
		// A lone request is not sent with One: that would wait if it met a lock.
		ones, manys := len(n.one), len(n.many)
		began = time.Now()
		get(22)
		get(3)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if done[22] != time.Second || len(n.one) != ones || cmp.Diff([]int{22}, n.many[manys:]) != "" {
			t.Errorf("after %v, %v with One, %v with Many", done[22], n.one[ones:], n.many[manys:])
		}
		// Places are taken again at once, not when a timer goes off. 0 is asked for twice, one after the other.
		close(unlock)
		began = time.Now()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(b.apart)+len(b.sent)+len(b.waiting) != 0 {
			t.Errorf("left after 5 s: %d apart, %d sent, %d waiting", len(b.apart), len(b.sent), len(b.waiting))
		}
		for _, ctx := range n.contexts {
			if ctx.Err() == nil {
				t.Fatal("the context of a statement that has ended goes on")
			}
		}
	})
}

// TestSlotsAlone: callers that find a free slot send their requests alone, also beside others.
func TestSlotsAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s server
		var n sends
		b := s.queue(3)
		n.count(b)
		for q := range 3 {
			ask(t, b, t.Context(), q, nothing)
		}
		if d := cmp.Diff([]int{0, 1, 2}, n.one); d != "" || len(n.many) != 0 {
			t.Error(d, n.many)
		}
	})
}

// TestTriedIsSentOn: what waits only for a request that is being tried is sent when that is answered.
func TestTriedIsSentOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s server
		b, unlock := locking(&s, 10)
		defer close(unlock)
		b.Patience = 30 * time.Second
		for _, q := range []int{20, 0, 21} {
			ask(t, b, t.Context(), q, nothing)
		}
		time.Sleep(1500 * time.Millisecond) // 21 is tried
		synctest.Wait()
		began := time.Now()
		var took time.Duration
		ask(t, b, t.Context(), 21, func(string, error) { took = time.Since(began) })
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if took == 0 || took > 2*time.Second {
			t.Errorf("it was answered after %v", took)
		}
	})
}

// TestLetGo: who waits for a place longer than Timeout learns that a row is locked; who leaves is forgotten at the next
// look.
func TestLetGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s server
		b, unlock := locking(&s, 10)
		defer close(unlock)
		gone, leave := context.WithCancel(t.Context())
		locked := 0
		for _, q := range []int{20, 0, 1, 2, 3, 4} {
			ctx := t.Context()
			if q == 4 {
				ctx = gone
			}
			ask(t, b, ctx, q, func(_ string, err error) {
				if err != nil && strings.Contains(err.Error(), "locked the row") {
					locked++
				}
			})
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		leave()
		time.Sleep(b.Patience)
		synctest.Wait()
		if len(b.apart) != 4 {
			t.Errorf("%d requests are apart, one caller has left", len(b.apart))
		}
		time.Sleep(b.Timeout)
		synctest.Wait()
		if locked != 2 || len(b.apart) != 0 {
			t.Errorf("%d callers learned of the lock, %d are kept", locked, len(b.apart))
		}
	})
}

// TestTriedOnce: only an error that speaks of a lock sends a request again, and only once.
func TestTriedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s server
		var n sends
		b := s.queue(1)
		b.Locked = func(err error) bool { return errors.Is(err, errLocked) }
		b.Apart = func(err error) bool {
			if err == nil {
				t.Error("asked about a statement that did not fail")
			}
			return true
		}
		fails := map[int]error{1: errBad, 2: errLocked}
		b.Many = func(_ context.Context, qs []int) ([]string, error) {
			if qs[0] < 10 {
				return nil, errBad
			}
			return make([]string, len(qs)), nil
		}
		b.Try = func(_ context.Context, q int) (string, error) { return "", fails[q] }
		first := b.One
		b.One = func(ctx context.Context, q int) (string, error) {
			if q == 0 {
				return first(ctx, q)
			}
			return "", fails[q]
		}
		n.count(b)
		errs := map[int]error{}
		for q := range 4 {
			ask(t, b, t.Context(), q, func(_ string, err error) { errs[q] = err })
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if d := cmp.Diff([]int{0, 2}, n.one); d != "" {
			t.Error(d)
		}
		if len(n.try) != 3 || !errors.Is(errs[1], errBad) || !errors.Is(errs[2], errLocked) || errs[3] != nil || len(errs) != 4 {
			t.Error(n.try, errs)
		}
		for _, q := range []int{0, 10, 11} {
			ask(t, b, t.Context(), q, nothing)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(n.try) != 3 {
			t.Errorf("what was answered is tried again: %v", n.try)
		}
	})
}

// TestFrozen: statements that never come back are bounded, and so many are sent.
func TestFrozen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s server
		release := make(chan struct{})
		defer func() {
			close(release)
			time.Sleep(time.Hour)
		}()
		s.fail = func([]int) error { <-release; return nil }
		b := s.queue(1)
		b.Patience, b.MaxWeight, b.Timeout = time.Second, 1, 2*time.Hour
		for q := range 10 {
			ask(t, b, t.Context(), q, nothing)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if want := b.Slots + 2*b.LockWaits; len(b.sent) != want || len(b.waiting) != 10-want {
			t.Errorf("%d sent, %d wait, want %d sent", len(b.sent), len(b.waiting), want)
		}
	})
}

// TestPatience: one caller behind a stuck statement is enough for it to lose its slot, and a statement that began just
// before the look keeps it.
func TestPatience(t *testing.T) {
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
		began := time.Now()
		took := map[int]time.Duration{}
		get := func(ctx context.Context, q int) {
			ask(t, b, ctx, q, func(string, error) { took[q] = time.Since(began) })
		}
		get(t.Context(), 1)
		get(t.Context(), 2)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if took[2] != 4*time.Second {
			t.Errorf("the only caller behind it waited %v", took[2])
		}
		gone, leave := context.WithCancel(t.Context())
		get(gone, 11) // waits for 1 from 5 s on; looks follow at 8 s, 11 s
		leave()
		time.Sleep(2500 * time.Millisecond)
		synctest.Wait()
		get(t.Context(), 3) // 7.5 s
		get(t.Context(), 4)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if took[4] != 9500*time.Millisecond {
			t.Errorf("a statement lost its slot early: the next was answered after %v", took[4])
		}
		if len(b.waiting) != 0 {
			t.Error("a caller that has left is kept")
		}
		close(release)
	})
}

// TestStuckTogether: a statement of several requests holds up those that overlap with one of them, once it is stuck.
func TestStuckTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s server
		release := make(chan struct{})
		s.fail = func(qs []int) error {
			if qs[0] == 1 || qs[0] == 9 {
				<-release
			}
			return nil
		}
		b := s.queue(2)
		b.Patience = 3 * time.Second
		b.Overlap = func(a, b int) bool { return a%10 == b%10 }
		took := map[int]time.Duration{}
		began := time.Now()
		get := func(q int) { ask(t, b, t.Context(), q, func(string, error) { took[q] = time.Since(began) }) }
		for _, q := range []int{9, 8, 1, 2, 7} { // 9 and 8 go alone, then [1 2 7], and 9 is stuck
			get(q)
		}
		time.Sleep(time.Minute / 4)
		synctest.Wait()
		get(3)
		get(5) // ends 9's and [1 2 7]'s patience, with those that follow
		get(6)
		get(4)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		began = time.Now()
		get(13)
		get(23) // overlaps with 13, which is not stuck
		get(12)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if took[13] != time.Second || took[23] != time.Second {
			t.Errorf("answered after %v and %v", took[13], took[23])
		}
		if _, ok := took[12]; ok {
			t.Error("sent although what it overlaps with is stuck")
		}
		close(release)
	})
}

// TestStuckAlone: only what is stuck holds up what overlaps with it.
func TestStuckAlone(t *testing.T) {
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
		b := s.queue(3)
		b.Patience = 3 * time.Second
		b.Overlap = func(a, b int) bool { return a%10 == b%10 }
		for _, q := range []int{1, 2, 3, 4} {
			ask(t, b, t.Context(), q, nothing)
		}
		time.Sleep(5 * time.Second) // 1 is stuck
		synctest.Wait()
		began := time.Now()
		var took time.Duration
		ask(t, b, t.Context(), 15, nothing)
		ask(t, b, t.Context(), 25, func(string, error) { took = time.Since(began) })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if took != time.Second {
			t.Errorf("answered after %v", took)
		}
		close(release)
	})
}

// TestWeight: what is too heavy to share goes alone, in its turn.
func TestWeight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s server
		b := s.queue(1)
		b.Weight = func(q int) int { return q }
		for _, q := range []int{1, 1, 9, 2, 2, 1} {
			ask(t, b, t.Context(), q, nothing)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if d := cmp.Diff([][]int{{1}, {1}, {9}, {2, 2}, {1}}, s.statements); d != "" {
			t.Error(d)
		}
	})
}

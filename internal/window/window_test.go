package window

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/pgcache/go/internal/notify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// win is the window of these tests, and took how long a flush takes in them.
const (
	win  = 25 * time.Millisecond
	took = 2 * time.Millisecond
)

// script is a Log that does what its fields say, and remembers when it was asked. Its test runs in a bubble, where time stands
// still while anything moves.
type script struct {
	mu      sync.Mutex
	began   time.Time
	flushes []time.Duration // when each was sent, since began
	vacuums []time.Duration
	drains  []time.Duration
	looks   int
	asked   []time.Duration // when each question for the oldest change was sent

	oldest    time.Duration // what it is answered; below 0: there is none
	lookTakes time.Duration

	changes  int64         // what the next flush finds; then 0
	always   int64         // what every flush finds
	bytes    int64         // the size of the log
	err      error         // of every flush
	during   func()        // happens while a flush is under way
	received func(n int64) // after one that found n: what a listener does
}

// rest lets time pass, and everything that is due at its end happen.
func (s *script) rest(d time.Duration) {
	s.turn()
	time.Sleep(d)
	synctest.Wait()
}

// turn goes between what the test does and what the window does. They take turns; the race detector is to know that.
func (s *script) turn() {
	s.mu.Lock()
	defer s.mu.Unlock()
}

func (s *script) Pending(context.Context) (bool, error) {
	s.turn()
	s.looks++
	time.Sleep(s.lookTakes)
	s.turn()
	return s.changes > 0 || s.always > 0, s.err
}

func (s *script) Oldest(context.Context) (time.Duration, error) {
	s.turn()
	s.asked = append(s.asked, time.Since(s.began))
	return s.oldest, s.err
}

func (s *script) Flush(ctx context.Context, _ string) (changes, bytes int64, err error) {
	s.turn()
	s.flushes = append(s.flushes, time.Since(s.began))
	n := max(s.changes, s.always)
	s.changes = 0
	time.Sleep(took / 2)
	if s.during != nil {
		s.during()
	}
	time.Sleep(took / 2)
	s.turn()
	if s.err != nil {
		return 0, 0, s.err
	}
	if n > 0 && s.received != nil {
		s.received(n)
	}
	return n, s.bytes, ctx.Err()
}

func (s *script) Vacuum(context.Context) error {
	s.vacuums = append(s.vacuums, time.Since(s.began))
	return errors.New("not the owner")
}

func (s *script) Drain(context.Context, string) error {
	s.drains = append(s.drains, time.Since(s.began))
	return errors.New("a dump is running")
}

// bubble runs test with a window that runs, and checks that it ends with its context.
func bubble(t *testing.T, test func(t *testing.T, w *Window, s *script)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{began: time.Now()}
		w := New(win, win, false, s)
		w.node = 1000
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.Run(ctx) }()
		defer func() {
			cancel()
			<-done
		}()
		synctest.Wait()
		test(t, w, s)
	})
}

// notQuiet has a notification come, so that a write does not publish inline.
func notQuiet(w *Window) { w.Received(notify.Message{}) }

// flushOf is a flush of a node with the same window.
func flushOf(node uint32) notify.Message {
	return notify.Message{Flush: true, Node: node, Window: win}
}

// logged is a write that goes through the log.
func logged(t *testing.T, w *Window, version int64) {
	t.Helper()
	if w.Begin(false, version) {
		t.Fatalf("the write of %d is to publish inline", version)
	}
	w.End(version, Logged)
}

// at is when flushes were sent, rounded to what matters here.
func at(flushes []time.Duration, unit time.Duration) []time.Duration {
	out := make([]time.Duration, len(flushes))
	for i, d := range flushes {
		out[i] = d.Round(unit)
	}
	return out
}

func (w *Window) owed() (versions []int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for v := range w.pending {
		versions = append(versions, v)
	}
	slices.Sort(versions)
	return versions
}

func wantOwed(t *testing.T, w *Window, want ...int64) {
	t.Helper()
	if d := cmp.Diff(want, w.owed()); d != "" {
		t.Errorf("what is owed (-want +got):\n%s", d)
	}
}

func wantFlushes(t *testing.T, s *script, want ...time.Duration) {
	t.Helper()
	if d := cmp.Diff(want, at(s.flushes, time.Millisecond)); d != "" && len(want)+len(s.flushes) > 0 {
		t.Errorf("flushes (-want +got):\n%s", d)
	}
}

func TestQuietWritePublishesInline(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		if !w.Begin(false, 1) {
			t.Error("in a system where nobody has published anything a write must publish inline")
		}
		w.End(1, Silent)
		notQuiet(w)
		s.rest(win - 1)
		if w.Begin(false, 2) {
			t.Error("a nanosecond before a window of silence is over, a write must go through the log")
		}
		w.End(2, Silent)
		s.rest(1)
		if !w.Begin(false, 3) {
			t.Error("after a window of silence a write must publish inline")
		}
		w.End(3, Silent)
		notQuiet(w)
		if !w.Begin(true, 4) {
			t.Error("a write that is asked to publish inline must")
		}
		w.End(4, Silent)
		wantOwed(t, w)
		wantFlushes(t, s)
	})
}

// TestLateIsNotQuiet: while somebody leads, its next flush publishes what is in the log, however late it is. Under
// load flushes are late, and inline publishes would make it worse.
func TestLateIsNotQuiet(t *testing.T) {
	t.Run("another leads", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *Window, s *script) {
			w.Received(flushOf(w.node + 1))
			s.rest(3*win - 1)
			if w.Begin(false, 1) {
				t.Error("within three windows of a flush a write must go through the log")
			}
			w.End(1, Silent)
			s.rest(1)
			if !w.Begin(false, 2) {
				t.Error("three windows after the last flush nobody leads any more: a write must publish inline")
			}
			w.End(2, Silent)
		})
	})
	t.Run("one's own", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *Window, s *script) {
			notQuiet(w)
			logged(t, w, 1)
			w.End(1, Logged)
			s.changes = 1
			s.rest(win + took)
			s.turn()
			s.during = func() { time.Sleep(5 * win) }
			s.rest(5 * win) // the second flush is under way
			if w.Begin(false, 2) {
				t.Error("while this node leads a write must go through the log")
			}
			w.End(2, Silent)
			s.rest(4 * win)
			s.during = nil
		})
	})
}

// TestOnlyPublishedCounts: a write that is to publish inline may have nothing to publish, may fail, or hang. Nobody else has
// received anything then, and the system is as quiet as before.
func TestOnlyPublishedCounts(t *testing.T) {
	for name, outcome := range map[string]Outcome{"nothing to publish": Silent, "unknown": Unknown} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *Window, _ *script) {
				w.Begin(false, 1)
				if !w.Begin(false, 2) {
					t.Error("while the first is under way nobody has received anything: the second must publish inline")
				}
				w.End(1, outcome)
				if !w.Begin(false, 3) {
					t.Error("nobody has received anything: the third must publish inline")
				}
				w.End(2, Silent)
				w.End(3, Silent)
			})
		})
	}
}

func TestImmediate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{began: time.Now()}
		w := New(win, win, true, s)
		notQuiet(w)
		if !w.Begin(false, 1) {
			t.Error("with Immediate a write must publish inline")
		}
		// Somebody polls, so the statement left it in the log instead.
		go w.Run(t.Context())
		w.End(1, Logged)
		s.rest(2 * win)
		wantFlushes(t, s, win)
		wantOwed(t, w)
	})
}

func TestLoggedWriteIsFlushedWithinAWindow(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		notQuiet(w)
		if w.Begin(false, 1, 2) {
			t.Fatal("the writes are to publish inline")
		}
		s.rest(300 * time.Millisecond)
		wantFlushes(t, s) // no reply, no flush
		wantOwed(t, w, 1, 2)
		w.End(2, Logged)
		s.rest(3 * time.Millisecond)
		w.End(1, Logged)
		s.rest(win + took)
		wantFlushes(t, s, 300*time.Millisecond+win)
		wantOwed(t, w)
	})
}

// TestExactVersions: a notification settles the versions that it names, and no others.
func TestExactVersions(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		notQuiet(w)
		for v := range int64(4) {
			logged(t, w, 1+v)
		}
		w.Begin(false, 5) // may be published before its reply
		w.Published([]int64{2, 99, 5})
		wantOwed(t, w, 1, 3, 4)
		w.End(5, Logged)
		wantOwed(t, w, 1, 3, 4)
		w.Published([]int64{4, 3})
		wantOwed(t, w, 1)
		s.rest(2 * win)
		wantFlushes(t, s, win)
		wantOwed(t, w)
		notQuiet(w)
		logged(t, w, 6)
		w.Published([]int64{6})
		s.rest(10 * win)
		wantFlushes(t, s, win) // what others have published need not be flushed
	})
}

// TestAckBeforeFlush: a flush settles only what was acknowledged before it was sent. What is acknowledged meanwhile
// may have been committed after the flush looked.
func TestAckBeforeFlush(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		notQuiet(w)
		logged(t, w, 1)
		w.Begin(false, 2)
		s.during = func() {
			w.End(2, Logged)
			s.during = nil
		}
		s.rest(win + took)
		synctest.Wait()
		wantOwed(t, w, 2)
		s.rest(win + took)
		wantOwed(t, w)
		wantFlushes(t, s, win, 2*win+took/2)
	})
}

// TestUnknownOutcome: the write may be committed, or be so any moment. One flush follows it; what commits later is left to
// the pulses.
func TestUnknownOutcome(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		notQuiet(w)
		w.Begin(false, 1)
		w.End(1, Unknown)
		s.rest(time.Hour)
		wantFlushes(t, s, win)
		wantOwed(t, w)
	})
}

// TestConcurrent is for the race detector, in real time.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	d := newDatabase(1, lag{flush: time.Millisecond, deliver: 100 * time.Microsecond})
	ctx, cancel := context.WithCancel(t.Context())
	var running, writers sync.WaitGroup
	nodes := []*node{d.join(time.Millisecond), d.join(time.Millisecond), d.join(time.Millisecond)}
	for _, n := range nodes {
		running.Go(func() { n.Run(ctx) })
		running.Go(func() { n.listen(ctx) })
		for range 4 {
			writers.Go(func() {
				for range 200 {
					n.write()
				}
			})
		}
	}
	writers.Wait()
	deadline := time.Now().Add(10 * time.Second)
	for left := len(d.unpublished(nodes...)); left > 0; left = len(d.unpublished(nodes...)) {
		if time.Now().After(deadline) {
			t.Fatalf("%d changes were never published", left)
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	running.Wait()
	for _, n := range nodes {
		wantOwed(t, n.Window)
	}
}

//go:build !race

// These tests look at fields of what they test while time stands still, without their locks: the race detector does not know that
// nothing else runs then.

package window

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgcache/go/internal/notify"
)

// TestPublishedInline: a write that published itself is owed by nobody, and the system is not quiet after it.
func TestPublishedInline(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		if !w.Begin(false, 1) {
			t.Fatal("a quiet write does not publish inline")
		}
		w.End(1, Published)
		if len(w.pending) != 0 {
			t.Error("it is remembered")
		}
		if w.Begin(false, 2) {
			t.Error("the system is taken for quiet right after a notification")
		}
		w.End(2, Silent)
		s.rest(time.Second)
		if len(s.flushes) != 0 {
			t.Errorf("%d flushes for nothing", len(s.flushes))
		}
	})
}

// TestLongerWindow: a leader whose window is longer is not waited for.
func TestLongerWindow(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		w.Received(notify.Message{Flush: true, Node: 1, Window: 20 * win})
		logged(t, w, 1)
		s.rest(win + took + 1)
		wantFlushes(t, s, win)
	})
}

// TestLeaderIsKept: a flush of a node that can't lead this one does not make it forget its leader, unless that has itself stretched its
// window too far.
func TestLeaderIsKept(t *testing.T) {
	for name, other := range map[string]notify.Message{
		"a longer window":            {Flush: true, Node: 2, Window: 20 * win},
		"a window stretched too far": {Flush: true, Node: 2, Window: win, Current: 100 * win},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *Window, s *script) {
				w.Received(notify.Message{Flush: true, Node: 1, Window: win})
				w.Received(other)
				logged(t, w, 1)
				s.rest(2*win - 1)
				if len(s.flushes) != 0 {
					t.Errorf("%d flushes beside the leader's", len(s.flushes))
				}
				s.rest(2 * win)
				if len(s.flushes) == 0 {
					t.Error("the leader is silent, and nobody takes over")
				}
			})
		})
	}
	t.Run("itself", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *Window, s *script) {
			w.Received(notify.Message{Flush: true, Node: 1, Window: win})
			w.Received(notify.Message{Flush: true, Node: 1, Window: win, Current: 100 * win})
			logged(t, w, 1)
			s.rest(win + took + 1)
			wantFlushes(t, s, win)
		})
	})
}

// TestNobodyLeads: a flush in nobody's name is no leader to wait for.
func TestNobodyLeads(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		w.Received(notify.Message{Flush: true, Window: win})
		logged(t, w, 1)
		s.rest(win + took + 1)
		wantFlushes(t, s, win)
	})
}

// TestOneFlush: of one node, one flush is under way at a time.
func TestOneFlush(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		underWay, most := 0, 0
		s.during = func() {
			underWay++
			most = max(most, underWay)
			time.Sleep(took)
			underWay--
		}
		for range 5 {
			go func() { _ = w.FlushNow(t.Context()) }()
		}
		s.rest(time.Second)
		if most != 1 || len(s.flushes) != 5 {
			t.Errorf("%d flushes, %d at a time", len(s.flushes), most)
		}
		s.during = nil
	})
}

// TestFull: while writes publish inline because the log is full, it is looked at once a second.
func TestFull(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		s.bytes = fullAt
		if err := w.FlushNow(t.Context()); err != nil || w.full {
			t.Errorf("a log of %d bytes is full: %v", s.bytes, err)
		}
		s.bytes++
		if err := w.FlushNow(t.Context()); err != nil || !w.full {
			t.Errorf("a log of %d bytes is not full: %v", s.bytes, err)
		}
		before := len(s.flushes)
		s.rest(10 * time.Second)
		if n := len(s.flushes) - before; n < 9 || n > 11 {
			t.Errorf("%d flushes in 10 s", n)
		}
		s.bytes = 0
		s.rest(2 * time.Second)
	})
}

// TestDrains: a log is drained beyond its bound and not at it; in a quiet system at most once a second, and only by the
// node whose lead has ended.
func TestDrains(t *testing.T) {
	t.Run("at the bound", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *Window, s *script) {
			notQuiet(w)
			logged(t, w, 1)
			s.bytes, s.always = drainAt, 1
			s.rest(30 * time.Second)
			if len(s.drains) != 0 {
				t.Errorf("drained at %v", s.drains)
			}
			s.bytes, s.always = 0, 0
		})
	})
	t.Run("two leads in a second", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *Window, s *script) {
			s.bytes = quietAt + 1
			for v := range int64(2) {
				notQuiet(w)
				logged(t, w, v+1)
				s.changes = 1
				s.rest(8 * win)
			}
			if len(s.drains) != 1 {
				t.Errorf("drained at %v", s.drains)
			}
		})
	})
	t.Run("without a lead", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *Window, s *script) {
			s.bytes = quietAt + 1
			for range 2 * emptyFlushes {
				if err := w.FlushNow(t.Context()); err != nil {
					t.Error(err)
				}
			}
			s.rest(time.Second)
			if len(s.drains) != 0 {
				t.Errorf("drained at %v", s.drains)
			}
		})
	})
}

// slow is a script whose VACUUM takes its time.
type slow struct {
	*script
	takes   time.Duration
	vacuum  int // under way
	overlap bool
}

func (s *slow) Vacuum(ctx context.Context) error {
	s.vacuum++
	defer func() { s.vacuum-- }()
	_ = s.script.Vacuum(ctx)
	time.Sleep(s.takes)
	return nil
}

func (s *slow) Drain(ctx context.Context, sender string) error {
	s.overlap = s.overlap || s.vacuum > 0
	return s.script.Drain(ctx, sender)
}

// TestUpkeep: one VACUUM or Drain is under way at a time, none begins while the node closes, and Run waits for it.
func TestUpkeep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &slow{script: &script{began: time.Now(), bytes: drainAt + 1, always: 1}, takes: 900 * time.Millisecond}
		w := New(win, win, false, s)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.Run(ctx) }()
		notQuiet(w)
		logged(t, w, 1)
		time.Sleep(1200 * time.Millisecond)
		synctest.Wait()
		if len(s.vacuums) == 0 || len(s.drains) != 1 || s.overlap {
			t.Errorf("vacuum at %v, drained at %v, at once: %v", s.vacuums, s.drains, s.overlap)
		}
		for s.vacuum == 0 {
			time.Sleep(win)
			synctest.Wait()
		}
		cancel()
		<-done
		if s.vacuum != 0 {
			t.Error("Run returned before VACUUM did")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := &script{began: time.Now(), bytes: vacuumAt + 1}
		w := New(win, win, false, s)
		ctx, cancel := context.WithCancel(t.Context())
		notQuiet(w)
		logged(t, w, 1)
		cancel()
		w.Run(ctx)
		if len(s.flushes) != 1 || len(s.vacuums) != 0 {
			t.Errorf("flushed at %v, vacuum at %v", s.flushes, s.vacuums)
		}
	})
}

// TestCloseTriesAgain: the last flush is tried again where it fails, with pauses, until closeTimeout.
func TestCloseTriesAgain(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]int{"once": 1, "always": 1 << 20} {
		synctest.Test(t, func(t *testing.T) {
			s := &script{began: time.Now()}
			w := New(win, win, false, s)
			s.err = errors.New("connection lost")
			s.during = func() {
				if len(s.flushes) > fails {
					s.err = nil
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			notQuiet(w)
			logged(t, w, 1)
			cancel()
			w.Run(ctx)
			if fails == 1 && (len(s.flushes) != 2 || len(w.pending) != 0) {
				t.Errorf("%s: %d flushes, %d changes are owed", name, len(s.flushes), len(w.pending))
			}
			if n := len(s.flushes); n < 2 || n > 40 { // a window apart
				t.Errorf("%s: %d flushes", name, n)
			}
		})
	}
}

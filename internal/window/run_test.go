package window

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgcache/go/internal/notify"
)

// TestFailedFlush: whatever a flush failed of, it has published nothing. It is tried again, ever more rarely.
func TestFailedFlush(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		notQuiet(w)
		logged(t, w, 1)
		s.err = errors.New("connection lost")
		s.rest(10 * time.Second)
		for i := 1; i < len(s.flushes); i++ {
			if gap, want := s.flushes[i]-s.flushes[i-1], min(win<<min(i-1, 10), time.Second)+took; gap != want {
				t.Errorf("try %d comes %v after the one before, want %v", i, gap, want)
			}
		}
		if n := len(s.flushes); n < 13 || n > 16 {
			t.Errorf("%d tries in 10 s", n)
		}
		wantOwed(t, w, 1)
		s.err = nil
		s.rest(time.Second + took)
		wantOwed(t, w)
		// And the next one is not late any more.
		notQuiet(w)
		logged(t, w, 2)
		before := time.Since(s.began)
		s.rest(2 * win)
		if last := s.flushes[len(s.flushes)-1]; last != before+win {
			t.Errorf("flushed %v after the write", last-before)
		}
	})
}

// TestLead: who flushed goes on, a window apart, as long as there is something to publish; three in vain end it.
func TestLead(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		s.received = func(int64) { w.Received(flushOf(w.node)) }
		notQuiet(w)
		logged(t, w, 1)
		s.changes = 1
		s.rest(win + took + 1)
		s.changes = 7 // by others
		s.rest(win + took)
		s.rest(win + took) // in vain
		s.changes = 7
		s.rest(400 * time.Millisecond)
		const every = win + took
		want := []time.Duration{win}
		for i := range 6 { // 1: found, 2: not, 3: found, 4 to 6: not
			want = append(want, win+time.Duration(i+1)*every)
		}
		wantFlushes(t, s, want...)
	})
}

// TestFollower: while another leads, its flushes publish what is written here. When it falls silent, this node takes over
// after two to three windows.
func TestFollower(t *testing.T) {
	for name, flushes := range map[string]int{"silent": 0, "leading": 20} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *Window, s *script) {
				w.Received(flushOf(1))
				last := time.Since(s.began)
				for v := range int64(flushes) {
					w.Begin(false, v)
					w.End(v, Logged)
					s.rest(win + 3*time.Millisecond) // it comes a little late
					w.Published([]int64{v})
					w.Received(flushOf(1))
					last = time.Since(s.began)
				}
				wantFlushes(t, s)
				logged(t, w, 100)
				s.rest(4 * win)
				if len(s.flushes) != 1 || s.flushes[0] < last+2*win || s.flushes[0] > last+3*win {
					t.Errorf("flushed at %v, the other was last received at %v", s.flushes, last)
				}
				wantOwed(t, w)
			})
		})
	}
	t.Run("jitter", func(t *testing.T) {
		t.Parallel()
		seen := map[time.Duration]bool{}
		for range 50 {
			p := patience(win)
			if p < 2*win || p > 3*win {
				t.Errorf("patience of %v", p)
			}
			seen[p] = true
		}
		if len(seen) < 40 {
			t.Error("all followers would take over at the same moment")
		}
	})
}

func TestClose(t *testing.T) {
	logged, silent := Logged, Silent
	for name, test := range map[string]struct {
		before func(w *Window, s *script)
		late   *Outcome // of a write that ends 200 ms after Close began
		wants  int      // flushes
		within time.Duration
		owed   []int64
	}{
		"nothing owed": {before: func(w *Window, _ *script) { w.Begin(false, 1); w.End(1, Silent) }},
		"owed":         {before: func(w *Window, _ *script) { w.End(1, Logged) }, wants: 1, within: took},
		"under way":    {late: &logged, wants: 1, within: 200*time.Millisecond + took},
		"no reply":     {before: func(w *Window, _ *script) { w.Begin(false, 1) }, within: time.Second, owed: []int64{1}},
		"refused":      {late: &silent, within: 200 * time.Millisecond},
		"one hangs": {before: func(w *Window, _ *script) {
			w.Begin(false, 1, 2)
			w.End(2, Logged)
		}, wants: -1, within: time.Second + took, owed: []int64{1}},
		"database down": {before: func(w *Window, s *script) { w.End(1, Logged); s.err = errors.New("down") }, wants: -1, within: time.Second + took, owed: []int64{1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &script{began: time.Now()}
				w := New(win, win, false, s)
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { defer close(done); w.Run(ctx) }()
				notQuiet(w)
				if test.before != nil {
					w.Begin(false, 1)
					test.before(w, s)
				}
				if test.late != nil {
					w.Begin(false, 9)
				}
				s.began = time.Now()
				s.turn()
				cancel()
				if test.late != nil {
					s.rest(200 * time.Millisecond)
					w.End(9, *test.late)
				}
				<-done
				if d := time.Since(s.began); d > test.within {
					t.Errorf("it took %v, want at most %v", d, test.within)
				}
				if n := len(s.flushes); n != test.wants && (test.wants >= 0 || n == 0) {
					t.Errorf("%d flushes", n)
				}
				wantOwed(t, w, test.owed...)
				if !w.Begin(false, 10) {
					t.Error("nobody flushes any more: a write must publish inline")
				}
			})
		})
	}
}

// TestVersionsNobodyNames: under load a flush may publish everything, and name no version. What a node remembers stays
// bounded.
func TestVersionsNobodyNames(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		notQuiet(w)
		most := 0
		for i := range 10_000 {
			if i%25 == 0 {
				w.Received(flushOf(1))
			}
			logged(t, w, int64(i+1))
			s.rest(time.Millisecond)
			w.mu.Lock()
			most = max(most, len(w.pending))
			w.mu.Unlock()
		}
		if most > 400 {
			t.Errorf("%d writes are remembered", most)
		}
		if len(s.flushes) != 0 {
			t.Errorf("%d flushes although another leads", len(s.flushes))
		}
		s.rest(time.Second)
		if len(s.flushes) == 0 {
			t.Error("the other has fallen silent, and nobody flushes")
		}
	})
}

// TestBusy: a flush beside another settles nothing, and is soon tried again.
func TestBusy(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		notQuiet(w)
		logged(t, w, 1)
		s.err = ErrBusy
		s.rest(win + took)
		wantOwed(t, w, 1)
		s.err = nil
		s.rest(win)
		wantOwed(t, w)
		if n := len(s.flushes); n != 2 {
			t.Errorf("%d flushes", n)
		}
	})
}

// TestFlushNow: it flushes whatever is there, and waits for another flush, but not for ever.
func TestFlushNow(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		if err := w.FlushNow(t.Context()); err != nil || len(s.flushes) != 1 {
			t.Errorf("%d flushes, %v", len(s.flushes), err)
		}
		s.err = ErrBusy
		if err := w.FlushNow(t.Context()); !errors.Is(err, ErrBusy) || len(s.flushes) != 1+busyTries {
			t.Errorf("%d flushes, %v", len(s.flushes), err)
		}
		s.err = errors.New("refused")
		if err := w.FlushNow(t.Context()); !errors.Is(err, s.err) || len(s.flushes) != 2+busyTries {
			t.Errorf("%d flushes, %v", len(s.flushes), err)
		}
		s.err = nil
	})
}

// TestFlushNowLeads: a node that leads by a flush for which Run has not planned goes on flushing by itself. Others leave to it what is
// pending there, until it was silent for two to three windows:
//
//	pulse of this node               Run of this node       another node
//	FlushNow finds a change: leads   sleeps, for ever
//	                                                        receives that, and logs a change: does not flush it
func TestFlushNowLeads(t *testing.T) {
	for name, flush := range map[string]func(w *Window, ctx context.Context) error{
		"FlushNow": (*Window).FlushNow,
		"Relieve": func(w *Window, ctx context.Context) error {
			w.SetListening(true)
			for range relieveAfter {
				w.Received(notify.Message{Flush: true, Window: win})
			}
			return w.Relieve(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *Window, s *script) {
				s.rest(time.Hour) // Run has nothing planned
				s.changes = 1
				if err := flush(w, t.Context()); err != nil {
					t.Fatal(err)
				}
				s.changes = 0
				last := s.flushes[len(s.flushes)-1]
				s.flushes = s.flushes[:0]
				s.rest(time.Second)
				const every = win + took
				wantFlushes(t, s, last+every, last+2*every, last+3*every)
			})
		})
	}
}

// TestStepsDown: of two that lead, the one with the longer window, or else the higher id, steps down.
func TestStepsDown(t *testing.T) {
	for name, test := range map[string]struct {
		node   uint32
		window time.Duration
		stays  bool
	}{
		"lower id":                      {999, win, false},
		"higher id":                     {1001, win, true},
		"own":                           {1000, win, true},
		"nobody":                        {0, win, true},
		"higher id, a shorter window":   {1001, win / 2, false},
		"lower id, but a longer window": {999, 2 * win, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *Window, s *script) {
				notQuiet(w)
				logged(t, w, 1)
				s.always = 1
				s.rest(win + took + 1)
				w.Received(notify.Message{Flush: true, Node: test.node, Window: test.window})
				before := len(s.flushes)
				s.rest(10 * win)
				if n := len(s.flushes) - before; (n == 0) == test.stays {
					t.Errorf("%d flushes after the other was received", n)
				}
				s.always = 0
			})
		})
	}
}

package window

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestFailedFlush: whatever a flush failed of, it has told nothing. It is tried again, ever more rarely.
func TestFailedFlush(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		awake(w)
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
		awake(w)
		logged(t, w, 2)
		before := time.Since(s.began)
		s.rest(2 * win)
		if last := s.flushes[len(s.flushes)-1]; last != before+win {
			t.Errorf("flushed %v after the write", last-before)
		}
	})
}

// TestBeat: who flushed goes on, a window apart, as long as there is something to tell; three in vain end it.
func TestBeat(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		s.heard = func(int64) { w.Heard(w.node, true) }
		awake(w)
		logged(t, w, 1)
		s.changes = 1
		s.rest(win + took + 1)
		s.changes = 7 // by others
		s.rest(win + took)
		s.rest(win + took) // in vain
		s.changes = 7
		s.rest(400 * time.Millisecond)
		const beat = win + took
		want := []time.Duration{win}
		for i := range 6 { // 1: found, 2: not, 3: found, 4 to 6: not
			want = append(want, win+time.Duration(i+1)*beat)
		}
		wantFlushes(t, s, want...)
	})
}

// TestFollower: while another keeps the beat, its flushes tell what is written here. When it falls silent, this node
// steps in after two to three windows.
func TestFollower(t *testing.T) {
	for name, beats := range map[string]int{"silent": 0, "beating": 20} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *Window, s *script) {
				w.Heard(1, true)
				last := time.Since(s.began)
				for v := range int64(beats) {
					w.Begin(false, v)
					w.End(v, Logged)
					s.rest(win + 3*time.Millisecond) // it comes a little late
					w.Told([]int64{v})
					w.Heard(1, true)
					last = time.Since(s.began)
				}
				wantFlushes(t, s)
				logged(t, w, 100)
				s.rest(4 * win)
				if len(s.flushes) != 1 || s.flushes[0] < last+2*win || s.flushes[0] > last+3*win {
					t.Errorf("flushed at %v, the other was last heard at %v", s.flushes, last)
				}
				wantOwed(t, w)
			})
		})
	}
	t.Run("jitter", func(t *testing.T) {
		t.Parallel()
		seen := map[time.Duration]bool{}
		for range 50 {
			p := New(win, false, nil).patience
			if p < 2*win || p > 3*win {
				t.Errorf("patience of %v", p)
			}
			seen[p] = true
		}
		if len(seen) < 40 {
			t.Error("all followers would step in at the same moment")
		}
	})
}

// TestTwoBeats: of two that keep the beat, the one with the higher id resigns.
func TestTwoBeats(t *testing.T) {
	for name, test := range map[string]struct {
		other   uint32
		resigns bool
	}{"lower": {999, true}, "higher": {1001, false}, "own": {1000, false}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *Window, s *script) {
				awake(w)
				logged(t, w, 1)
				s.always = 1
				s.rest(win + took + 1)
				w.Heard(test.other, true)
				before := len(s.flushes)
				s.rest(10 * win)
				if n := len(s.flushes) - before; (n == 0) != test.resigns {
					t.Errorf("%d flushes after the other was heard", n)
				}
				s.always = 0
			})
		})
	}
}

// TestSweep: after the last notification come two flushes, for what a node left that died. Then an idle system is silent.
func TestSweep(t *testing.T) {
	for name, wake := range map[string]func(w *Window){
		"told":      func(w *Window) { w.Heard(5, false) },
		"flushed":   func(w *Window) { w.Heard(5, true) },
		"listening": func(w *Window) { w.Listening() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *Window, s *script) {
				s.rest(time.Hour)
				wantFlushes(t, s)
				s.began = time.Now()
				wake(w)
				s.rest(time.Hour)
				if len(s.flushes) != 2 || s.flushes[0] > sweepSoon || s.flushes[1] < 9*time.Second || s.flushes[1] > 12*time.Second {
					t.Errorf("swept at %v", s.flushes)
				}
			})
		})
	}
	t.Run("found", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *Window, s *script) {
			awake(w)
			s.changes, s.heard = 1, func(int64) { w.Heard(w.node, true) }
			s.rest(time.Hour)
			// The find, three in vain that end its beat, a sweep, and the late one.
			if n := len(s.flushes); n < 5 || n > 6 {
				t.Errorf("flushed at %v", s.flushes)
			}
		})
	})
	t.Run("failing", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *Window, s *script) {
			awake(w)
			s.err = errors.New("down")
			s.rest(time.Minute)
			s.err, s.flushes = nil, nil
			s.rest(time.Hour)
			if n := len(s.flushes); n != 1 { // so late that it serves as the second too
				t.Errorf("%d sweeps after the database was back, want 1", n)
			}
		})
	})
}

// TestSweepInTraffic: writes that tell themselves, one after the other, drain nothing. What a dead node left must be
// found all the same.
func TestSweepInTraffic(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		for i := range int64(100) {
			if inline := w.Begin(false, i); !inline {
				t.Fatal("a write does not tell itself")
			}
			w.End(i, Silent)
			w.Heard(5, false)
			s.rest(100 * time.Millisecond)
		}
		gap := time.Duration(0)
		for i, at := range s.flushes {
			if i > 0 {
				at -= s.flushes[i-1]
			}
			gap = max(gap, at)
		}
		if len(s.flushes) < 9 || len(s.flushes) > 21 || gap > sweepSoon {
			t.Errorf("swept at %v in 10 s", s.flushes)
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
				w := New(win, false, s)
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { defer close(done); w.Run(ctx) }()
				awake(w)
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
					t.Error("nobody flushes any more: a write must tell itself")
				}
			})
		})
	}
}

// TestLadder: the log is kept small. VACUUM needs the owner's rights, and draining that nobody holds the log: here both
// fail.
func TestLadder(t *testing.T) {
	run := func(t *testing.T, bytes int64, check func(t *testing.T, w *Window, s *script)) {
		bubble(t, func(t *testing.T, w *Window, s *script) {
			awake(w)
			logged(t, w, 1)
			s.bytes, s.always = bytes, 1
			s.rest(30 * time.Second)
			check(t, w, s)
			s.bytes, s.always = 0, 0
		})
	}
	within := func(t *testing.T, what string, at []time.Duration, n int, every time.Duration) {
		t.Helper()
		if len(at) < n-1 || len(at) > n {
			t.Errorf("%s: %d times in 30 s: %v", what, len(at), at)
		}
		for i := 1; i < len(at); i++ {
			if at[i]-at[i-1] < every {
				t.Errorf("%s: %v after the one before", what, at[i]-at[i-1])
			}
		}
	}
	t.Run("small", func(t *testing.T) {
		run(t, 1<<20, func(t *testing.T, _ *Window, s *script) {
			if len(s.vacuums)+len(s.drains) > 0 {
				t.Error("a small log needs no care")
			}
		})
	})
	t.Run("vacuum", func(t *testing.T) {
		run(t, 1<<20+1, func(t *testing.T, _ *Window, s *script) {
			within(t, "vacuum", s.vacuums, 30, time.Second)
			if len(s.drains) > 0 {
				t.Error("it was drained")
			}
		})
	})
	t.Run("drain", func(t *testing.T) {
		run(t, 8<<20+1, func(t *testing.T, w *Window, s *script) {
			within(t, "drain", s.drains, 3, 10*time.Second)
			within(t, "vacuum", s.vacuums, 30, time.Second)
			if len(s.vacuums) == 0 || len(s.drains) == 0 || s.vacuums[0] > s.drains[0] {
				t.Error("drained before VACUUM was tried")
			}
			awake(w)
			if w.Begin(false, 2) {
				t.Error("the log is not full yet")
			}
			w.End(2, Silent)
		})
	})
	t.Run("full", func(t *testing.T) {
		run(t, 32<<20+1, func(t *testing.T, w *Window, s *script) {
			awake(w)
			if !w.Begin(false, 2) {
				t.Error("the log is full: a write must tell itself")
			}
			w.End(2, Silent)
			// The writes go on, each tells itself; then the dump is over.
			s.always = 0
			for i := range 30 {
				if i == 10 {
					s.bytes = 1 << 10
				}
				s.rest(100 * time.Millisecond)
				awake(w)
			}
			if w.Begin(false, 3) {
				t.Error("the log has shrunk, and nobody has noticed")
			}
			w.End(3, Silent)
		})
	})
}

// TestVersionsNobodyTells: under load a flush may tell everything, and no version. What a node remembers stays bounded,
// and once the beat stops, somebody looks into the log.
func TestVersionsNobodyTells(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		awake(w)
		most := 0
		for i := range 10_000 {
			if i%25 == 0 {
				w.Heard(1, true)
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
			t.Errorf("%d flushes beside somebody's beat", len(s.flushes))
		}
		s.rest(time.Second)
		if len(s.flushes) == 0 {
			t.Error("no sweep")
		}
	})
}

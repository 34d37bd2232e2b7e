package window

import (
	"testing"
	"time"
)

// TestKeepSmall: the log is kept small. VACUUM needs the owner's rights, and draining that nobody holds the log: here both
// fail.
func TestKeepSmall(t *testing.T) {
	run := func(t *testing.T, bytes int64, check func(t *testing.T, w *Window, s *script)) {
		bubble(t, func(t *testing.T, w *Window, s *script) {
			notQuiet(w)
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
			notQuiet(w)
			if w.Begin(false, 2) {
				t.Error("the log is not full yet")
			}
			w.End(2, Silent)
		})
	})
	t.Run("full", func(t *testing.T) {
		run(t, 32<<20+1, func(t *testing.T, w *Window, s *script) {
			notQuiet(w)
			if !w.Begin(false, 2) {
				t.Error("the log is full: a write must publish inline")
			}
			w.End(2, Silent)
			// The writes go on, each publishes inline; then the dump is over.
			s.always = 0
			for i := range 30 {
				if i == 10 {
					s.bytes = 1 << 10
				}
				s.rest(100 * time.Millisecond)
				notQuiet(w)
			}
			if w.Begin(false, 3) {
				t.Error("the log has shrunk, and nobody has noticed")
			}
			w.End(3, Silent)
		})
	})
}

// TestQuietLogIsEmptied: when a lead ends, a log that has grown is emptied beside it: every pulse reads it.
func TestQuietLogIsEmptied(t *testing.T) {
	for name, bytes := range map[string]int64{"small": quietAt, "grown": quietAt + 1} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *Window, s *script) {
				notQuiet(w)
				logged(t, w, 1)
				s.bytes, s.changes = bytes, 1
				s.rest(time.Second)
				if n := len(s.drains); (n == 1) != (bytes > quietAt) {
					t.Errorf("emptied %d times", n)
				}
			})
		})
	}
}

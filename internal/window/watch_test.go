package window

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Who watches looks once a window, flushes what it finds, and stops when its time is over.
func TestWatch(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		s.rest(4 * win)
		if s.looks != 0 {
			t.Fatal(s.looks, "looks of a node that does not watch")
		}
		w.Watch(20 * win)
		s.rest(4*win + win/2)
		if s.looks < 4 || s.looks > 5 || len(s.flushes) != 0 {
			t.Fatal(s.looks, "looks,", len(s.flushes), "flushes")
		}
		s.changes = 1 // what a trigger has left
		s.rest(win + took)
		if d := cmp.Diff(1, len(s.flushes)); d != "" {
			t.Fatal(d)
		}
		// While it leads it flushes anyway; when its lead has ended it looks again.
		looks := s.looks
		s.rest(3*win + win/2)
		if s.looks != looks || len(s.flushes) != 1+emptyFlushes {
			t.Fatal(s.looks-looks, "looks,", len(s.flushes), "flushes")
		}
		s.rest(2 * win)
		if s.looks == looks {
			t.Fatal("no look after the lead")
		}
		s.rest(20 * win)
		looks = s.looks
		s.rest(10 * win)
		if s.looks != looks {
			t.Error("it goes on looking")
		}
	})
}

// A shorter Watch does not end a longer one.
func TestWatch_Longest(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		w.Watch(20 * win)
		w.Watch(win)
		s.rest(10 * win)
		if s.looks < 8 {
			t.Error(s.looks, "looks")
		}
	})
}

// Who watches looks once more before it ends: a commit may have come since the last look.
func TestWatch_Ending(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{began: time.Now()}
		w := New(win, win, false, s)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.Run(ctx) }()
		w.Watch(time.Hour)
		s.rest(win / 2)
		s.turn()
		s.changes = 1
		cancel()
		<-done
		if len(s.flushes) != 1 || time.Since(s.began) > win {
			t.Error(len(s.flushes), "flushes until", time.Since(s.began))
		}
	})
}

// Where another leads there is nothing to look for, until it is silent. A look that fails is a flush, which is tried again.
func TestWatch_Others(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		w.Watch(time.Hour)
		s.rest(win)
		looks := s.looks
		for range 10 {
			w.Received(flushOf(5))
			s.rest(win)
		}
		if s.looks > looks+1 {
			t.Error(s.looks-looks, "looks beside a leader")
		}
		s.rest(5 * win)
		if s.looks <= looks+1 {
			t.Error("no look after the leader")
		}
		s.turn()
		s.err = errors.New("down")
		s.rest(10 * time.Second)
		if n := len(s.flushes); n < 5 || n > 20 {
			t.Error(n, "flushes that failed within ten seconds")
		}
	})
}

// The looks for transactions end when none is open, and those for watched tables do not.
func TestWatchTx(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		var open atomic.Bool
		open.Store(true)
		w.WatchTx(time.Hour, open.Load)
		s.rest(10*win + win/2)
		if s.looks < 9 {
			t.Fatal(s.looks, "looks while a transaction is open")
		}
		s.turn()
		open.Store(false)
		looks := s.looks
		s.rest(10 * win)
		if s.looks != looks {
			t.Fatal(s.looks-looks, "looks while none is open")
		}
		s.turn()
		open.Store(true)
		w.WatchTx(time.Hour, open.Load)
		s.rest(10 * win)
		if s.looks < looks+9 {
			t.Fatal(s.looks-looks, "looks after another")
		}
		s.turn()
		open.Store(false)
		w.Watch(20 * win)
		looks = s.looks
		s.rest(10*win + win/2)
		if s.looks < looks+9 {
			t.Error(s.looks-looks, "looks for watched tables")
		}
	})
}

// A transaction that is noted while the window asks whether one is open is watched.
func TestWatchTx_Meanwhile(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		var noted bool
		var open func() bool
		open = func() bool {
			if noted {
				return true
			}
			noted = true
			w.WatchTx(time.Hour, open)
			return false
		}
		w.WatchTx(time.Minute, open)
		s.rest(10 * win)
		if s.looks < 8 {
			t.Error(s.looks, "looks")
		}
	})
}

// Looks that take long, as at a log whose dead rows can't be removed, come rarely, but no more rarely than the window may be stretched.
func TestWatch_Dear(t *testing.T) {
	bubble(t, func(t *testing.T, w *Window, s *script) {
		w.maxWindow = 20 * win
		looks := func(took time.Duration) int {
			s.turn()
			s.lookTakes = took
			w.Watch(time.Hour)
			s.rest(100 * win) // what was planned before
			before := s.looks
			s.rest(200 * win)
			s.turn()
			return s.looks - before
		}
		if n := looks(win); n < 17 || n > 19 {
			t.Error(n, "looks that take a window each")
		}
		if n := looks(4 * win); n < 7 || n > 9 {
			t.Error(n, "looks that take four windows each")
		}
		if n := looks(0); n < 190 {
			t.Error(n, "looks when they cost nothing")
		}
		s.rest(win / 2)
		w.roundTrip.add(win)
		if n := looks(win); n < 95 {
			t.Error(n, "looks of a distant node")
		}
	})
}

//go:build !race

// As rules_test.go.

package window

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgcache/go/internal/mono"
	"github.com/pgcache/go/internal/notify"
)

// unnotifiedBubble is bubble with a node that receives nothing. An empty log is what it is answered, unless the test says otherwise.
func unnotifiedBubble(t *testing.T, most time.Duration, test func(t *testing.T, w *Window, s *script)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{began: time.Now(), oldest: -1}
		w := New(win, most, false, s)
		w.SetUnnotified(true)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.Run(ctx) }()
		defer func() {
			cancel()
			<-done
		}()
		s.rest(time.Minute)
		s.began = time.Now()
		test(t, w, s)
	})
}

// TestUnnotifiedAsks: a change is asked for a window after it was acknowledged, and flushed where the log holds one as old as that, or does not
// answer; else others have published it.
func TestUnnotifiedAsks(t *testing.T) {
	for name, c := range map[string]struct {
		oldest  time.Duration
		err     error
		flushes int
	}{
		"its own is there":     {oldest: win, flushes: 1},
		"nearly as old":        {oldest: win - win/8, flushes: 1},
		"only a younger one":   {oldest: win/2 - time.Millisecond},
		"none":                 {oldest: -1},
		"the log can't answer": {oldest: -1, err: errors.New("down"), flushes: 1},
	} {
		t.Run(name, func(t *testing.T) {
			unnotifiedBubble(t, most, func(t *testing.T, w *Window, s *script) {
				logged(t, w, 1)
				s.turn()
				s.oldest, s.changes, s.err = c.oldest, 1, c.err
				s.rest(win - 1)
				if len(s.asked)+len(s.flushes) != 0 {
					t.Error("it asks before a window is over")
				}
				s.rest(2 * took)
				if len(s.asked) != 1 || len(s.flushes) != c.flushes {
					t.Errorf("%d questions, %d flushes", len(s.asked), len(s.flushes))
				}
				s.turn()
				s.err = nil
				s.rest(time.Second)
				wantOwed(t, w)
				if w.leading {
					t.Error("it leads")
				}
				if n := len(s.asked) + len(s.flushes); n > 4 {
					t.Errorf("%d statements", n)
				}
			})
		})
	}
}

// TestUnnotifiedDropsWhatIsOlder: it takes for published what was acknowledged before the oldest change was made, and nothing else.
func TestUnnotifiedDropsWhatIsOlder(t *testing.T) {
	unnotifiedBubble(t, most, func(t *testing.T, w *Window, s *script) {
		logged(t, w, 1)
		s.rest(8 * time.Millisecond)
		logged(t, w, 2)
		w.Begin(false, 3)
		s.rest(2 * time.Millisecond)
		logged(t, w, 4)
		// The oldest was made a millisecond after 2 was acknowledged, as far as the clocks can tell.
		s.turn()
		s.oldest = win - 10*time.Millisecond + time.Millisecond
		s.rest(win - 10*time.Millisecond + took)
		wantOwed(t, w, 2, 3, 4)
		w.End(3, Silent)
		s.turn()
		s.oldest = -1
		s.rest(time.Second)
		wantOwed(t, w)
		wantFlushes(t, s)
	})
}

// TestUnnotifiedIsNeverQuiet: it can't know that nobody else writes, and its messages name nobody who leads.
func TestUnnotifiedIsNeverQuiet(t *testing.T) {
	unnotifiedBubble(t, most, func(t *testing.T, w *Window, _ *script) {
		if w.Begin(false, 1) {
			t.Error("its write is to publish inline")
		}
		w.End(1, Silent)
		if !w.Begin(true, 2) {
			t.Error("a write that is asked to publish inline must")
		}
		w.End(2, Published)
		sender, _ := w.beginFlush()
		m, err := notify.Parse(string(notify.Flush) + notify.AnyCache + sender + notify.All)
		if err != nil || !m.Unnotified() || m.Node != 0 || m.Window != win {
			t.Errorf("%+v, %v", m, err)
		}
		w.Received(flushOf(1))
		if w.led(mono.Now()) {
			t.Error("it is led by what it does not hear")
		}
		w.SetUnnotified(false)
		time.Sleep(win)
		if !w.Begin(false, 3) {
			t.Error("when it hears again a quiet write does not publish inline")
		}
		w.End(3, Silent)
	})
}

// TestUnnotifiedOthers: how long an unnotified node waits follows what it finds of others.
func TestUnnotifiedOthers(t *testing.T) {
	unnotifiedBubble(t, most, func(t *testing.T, w *Window, _ *script) {
		next := int64(0)
		// publishedBy has a change be published by others, whose last flush was so long ago.
		publishedBy := func(ago time.Duration) {
			next++
			w.Begin(false, next)
			w.End(next, Logged)
			time.Sleep(win - 1)
			if w.takesOver(mono.Now(), ago) {
				t.Errorf("it flushes although others did %v ago", ago)
			}
		}
		expect := func(what string, follows bool, others time.Duration) {
			t.Helper()
			if d := w.unnotified; d.follows != follows || follows && (d.others != others || d.patience < min(2*others, most) || d.patience > min(3*others, most)) {
				t.Errorf("%s: %+v", what, d)
			}
		}
		takeOver := func() {
			t.Helper()
			if !w.takesOver(mono.Now(), most) {
				t.Error("it does not take over")
			}
		}
		publishedBy(win / 4)
		expect("others flush", true, win)
		takeOver()
		expect("they are silent", false, 0)
		publishedBy(win / 4)
		expect("they are not", true, 2*win)
		for range 10 {
			takeOver()
			publishedBy(win / 4)
		}
		expect("they flush rarely", true, most)
		publishedBy(win / 4)
		expect("often", true, most*31/32)
		for range 200 {
			publishedBy(win / 4)
		}
		expect("for long", true, win)
		for range 3 {
			takeOver()
			publishedBy(win / 4)
		}
		takeOver()
		if w.unnotified.patience != 8*win {
			t.Errorf("after it took over it waits for %v", w.unnotified.patience)
		}
		takeOver()
		if w.unnotified.patience != 8*win*9/10 {
			t.Errorf("then it waits for %v", w.unnotified.patience)
		}
		time.Sleep(remembered + 3*most)
		publishedBy(win / 4)
		expect("long after it took over", true, win)
	})
}

// TestRelieve: a listening node flushes where unnotified ones have done so for a while, with a window as long, and nobody else leads.
func TestRelieve(t *testing.T) {
	unnotified := notify.Message{Flush: true, Window: win}
	longer := notify.Message{Flush: true, Window: win - time.Millisecond}
	for name, c := range map[string]struct {
		messages []notify.Message
		pause    time.Duration
		before   func(w *Window)
		relieves bool
	}{
		"often":               {repeat(unnotified, relieveAfter), win, nil, true},
		"nearly often":        {repeat(unnotified, relieveAfter-1), win, nil, false},
		"with pauses":         {repeat(unnotified, 2*relieveAfter), relieveWithin + 1, nil, false},
		"by a poll":           {repeat(notify.Message{Flush: true}, 2*relieveAfter), win, nil, false},
		"by a shorter window": {append(repeat(unnotified, relieveAfter), longer), win, nil, false},
		"beside a leader":     {repeat(unnotified, relieveAfter), win, func(w *Window) { w.Received(flushOf(1)) }, false},
		"by a poller":         {repeat(unnotified, relieveAfter), win, func(w *Window) { w.SetListening(false) }, false},
		"long ago":            {repeat(unnotified, relieveAfter), win, func(*Window) { time.Sleep(relieveWithin) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *Window, s *script) {
				w.SetListening(true)
				for _, m := range c.messages {
					time.Sleep(c.pause)
					w.Received(m)
				}
				if c.before != nil {
					c.before(w)
				}
				s.turn()
				s.changes = 1
				if err := w.Relieve(t.Context()); err != nil {
					t.Error(err)
				}
				if w.leading != c.relieves {
					t.Errorf("it leads: %v", w.leading)
				}
				s.rest(10 * win)
				if n := len(s.flushes); c.relieves && n != 1+emptyFlushes || !c.relieves && n != 0 {
					t.Errorf("%d flushes", n)
				}
			})
		})
	}
}

func repeat(m notify.Message, n int) (ms []notify.Message) {
	for range n {
		ms = append(ms, m)
	}
	return ms
}

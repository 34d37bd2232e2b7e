package window

import (
	"testing"
	"time"

	"github.com/pgcache/go/internal/mono"
	"github.com/pgcache/go/internal/notify"
)

// echoed flushes, receives the notification so late, or not at all (below 0), and flushes again.
func echoed(t *testing.T, w *Window, late time.Duration) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	now := mono.Now()
	w.echo = echo{}
	w.adapt(now)
	w.lead(now)
	if late >= 0 {
		w.echo.received(w.number, now+int64(late))
	}
	w.adapt(now + int64(max(late, w.current)))
}

func TestAdapt(t *testing.T) {
	t.Parallel()
	w := New(win, most, false, nil)
	expect := func(what string, want time.Duration) {
		t.Helper()
		if w.current != want {
			t.Errorf("%s: %v, want %v", what, w.current, want)
		}
	}
	echoed(t, w, time.Second)
	expect("no listener", win)
	w.SetListening(true)
	echoed(t, w, win/lateAt)
	expect("just in time", win)
	echoed(t, w, win/lateAt+1)
	expect("late", 2*win)
	echoed(t, w, 2*win/lateAt)
	expect("neither late nor early", 2*win)
	echoed(t, w, 2*win/earlyAt)
	expect("nearly early", 2*win)
	echoed(t, w, -1)
	expect("none came", 4*win)
	w.SetListening(false)
	echoed(t, w, -1)
	expect("the listener is lost", win)
	w.SetListening(true)
	for range 10 {
		echoed(t, w, time.Second)
	}
	expect("late for long", most)
	echoed(t, w, 0)
	expect("early", most-most/shrinkBy)
	for range 100 {
		echoed(t, w, 0)
	}
	expect("early for long", win)
	w.AddRoundTrip(100 * time.Millisecond)
	echoed(t, w, 100*time.Millisecond+win/lateAt)
	expect("in time, for a distant node", win)
	echoed(t, w, 100*time.Millisecond+win/lateAt+1)
	expect("late for a distant node", 2*win)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.echo = echo{}
	w.adapt(mono.Now())
	sent := w.echo
	w.adapt(sent.sent + 1)
	if w.echo != sent {
		t.Error("the first is not awaited any more")
	}
	w.adapt(sent.sent + int64(lostAt) + 1)
	if w.echo.number == sent.number || w.current != 2*win {
		t.Error("a notification that is lost is still awaited")
	}
}

// TestRoundTrip: the shortest round trip of the last pulses counts, and is forgotten.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	var l roundTrip
	if l.shortest() != 0 {
		t.Error("a way that nobody has measured takes time")
	}
	add := func(n int, d time.Duration) {
		for range n {
			l.add(d)
		}
	}
	add(1, 3*time.Millisecond)
	add(roundTripPulses-1, 9*time.Millisecond)
	add(roundTripPulses, 5*time.Millisecond)
	if d := l.shortest(); d != 3*time.Millisecond {
		t.Errorf("got %v", d)
	}
	add(1, 9*time.Millisecond)
	if d := l.shortest(); d != 5*time.Millisecond {
		t.Errorf("got %v", d)
	}
	add(2*roundTripPulses, 7*time.Millisecond)
	if d := l.shortest(); d != 7*time.Millisecond {
		t.Errorf("got %v", d)
	}
}

// TestStretchedOnce: what a leader had found when it stepped down counts no more when it leads again much later.
func TestStretchedOnce(t *testing.T) {
	t.Parallel()
	w := New(win, most, false, nil)
	w.node = 1000
	w.SetListening(true)
	for range 10 {
		echoed(t, w, time.Second)
	}
	w.Received(notify.Message{Flush: true, Node: 1, Window: win, Current: win})
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.leading {
		t.Fatal("it still leads")
	}
	if w.current != win {
		t.Errorf("it would flush by %v", w.current)
	}
	w.leader = leader{seen: mono.Now(), window: win, current: 4 * win}
	for late, want := range map[time.Duration]time.Duration{0: 4 * win, time.Hour: win} {
		if w.adoptWindow(w.leader.seen + int64(late)); w.current != want {
			t.Errorf("%v after another it flushes by %v, want %v", late, w.current, want)
		}
	}
}

// TestImmediatePolled: where some node polls, changes of a node whose writes publish inline are logged too. It flushes them soon, and
// not without a pause.
func TestImmediatePolled(t *testing.T) {
	t.Parallel()
	if w := New(time.Millisecond, most, true, nil); w.window != immediateWindow {
		t.Errorf("it flushes every %v", w.window)
	}
}

// TestLedByStretched: a leader that is stretched further than a node allows does not lead it.
func TestLedByStretched(t *testing.T) {
	t.Parallel()
	for current, led := range map[time.Duration]bool{win: true, most: true, most + time.Millisecond: false} {
		w := New(win, most, false, nil)
		w.Received(notify.Message{Flush: true, Node: w.node + 1, Window: win, Current: current})
		w.mu.Lock()
		if got := w.led(mono.Now()); got != led {
			t.Errorf("stretched to %v: led %v", current, got)
		}
		w.mu.Unlock()
	}
}

// TestLedByLongerWindow: a leader whose configured window is longer does not lead a node, although the node's may be stretched as far.
func TestLedByLongerWindow(t *testing.T) {
	t.Parallel()
	w := New(win, most, false, nil)
	w.Received(notify.Message{Flush: true, Node: w.node + 1, Window: win + time.Millisecond, Current: win + time.Millisecond})
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.led(mono.Now()) {
		t.Error("it waits for a longer window than its own")
	}
}

// TestWholeMilliseconds: a window is what messages can say of it. Else of two that lead each could take the other's for shorter.
func TestWholeMilliseconds(t *testing.T) {
	t.Parallel()
	for given, want := range map[time.Duration]time.Duration{0: time.Millisecond, win - 1: win - time.Millisecond, win: win} {
		if w := New(given, most, false, nil); w.window != want {
			t.Errorf("of %v it makes %v, want %v", given, w.window, want)
		}
	}
}

package window

import (
	"testing"
	"time"

	"github.com/pgcache/go/internal/mono"
	"github.com/pgcache/go/internal/notify"
)

// most is how far the windows of these tests stretch.
const most = 400 * time.Millisecond

// quick is a fleet at rest.
var quick = lag{reply: time.Millisecond, flush: 2 * time.Millisecond, deliver: 2 * time.Millisecond}

// stretching makes a fleet whose windows may be stretched.
func stretching(t *testing.T, nodes int, l lag, test func(f *fleet)) {
	runUpTo(t, nodes, l, most, test)
}

// TestStretch: where notifications take long to come, a fleet flushes less often, however many write; where they take no
// longer, as often as before. What is published late is late by the stretched window.
func TestStretch(t *testing.T) {
	stretching(t, 16, quick, func(f *fleet) {
		writers := f.nodes[:8]
		flushes := func() int {
			f.soFar()
			f.traffic(2*time.Second, 5*time.Millisecond, writers...)
			return f.soFar().flushes
		}
		before := flushes()
		if n := int(2 * time.Second / win); before < n/2 || before > n*3/2+40 {
			t.Errorf("%d flushes in %d windows", before, n)
		}
		for _, n := range f.nodes {
			if d := n.Current(); d > 2*win {
				t.Errorf("a node says %v", d)
			}
		}
		f.slow(most / 4)
		flushes()
		flushes()
		slow := flushes()
		if bound := before / 3; slow > bound {
			t.Errorf("%d flushes with notifications that take %v, want at most %d", slow, most/4, bound)
		}
		f.slow(quick.deliver)
		for range 5 {
			flushes()
		}
		if after := flushes(); after < before/2 || after > before*2 {
			t.Errorf("%d flushes before, %d afterwards", before, after)
		}
	})
}

// slow changes how long notifications take.
func (d *database) slow(deliver time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lag.deliver = deliver
}

// echoed flushes, hears of it late, or not at all (below 0), and flushes again.
func echoed(t *testing.T, w *Window, late time.Duration) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	now := mono.Now()
	w.echo = echo{sent: now, heard: w.echo.heard}
	w.lead(now)
	if late >= 0 {
		w.echo.received(now + int64(late))
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
	echoed(t, w, -1)
	expect("no listener", win)
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
	w.echo.heard -= int64(time.Minute)
	echoed(t, w, -1)
	expect("the listener is lost", win)
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
	w.mu.Lock()
	defer w.mu.Unlock()
	w.adapt(mono.Now())
	expect("nothing published", win)
	w.lead(mono.Now())
	w.echo.heard = mono.Now()
	w.adapt(w.echo.sent + 1)
	expect("a flush at once behind another", win)
	if !w.echo.awaited {
		t.Error("the first is not awaited any more")
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

package coherence

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgcache/go/internal/store"
)

// caller is somebody who asks for a load, as GetOrSet does.
func caller(t *testing.T, tr *Tracker, k Key) (l *Load, leader bool, steps int) {
	t.Helper()
	run := NewRun(t.Context())
	l, part, steps := tr.Join(k, run, Now())
	if part == Waits {
		t.Fatal("it has to wait")
	}
	leader = part == Leads
	if leader != (l.Run == run) {
		t.Fatal("a leader runs its own load, and nobody else's")
	}
	if !leader {
		run.Leave()
	}
	return l, leader, steps
}

func TestJoin(t *testing.T) {
	t.Parallel()
	tr := newTracker(memory{})
	l, leader, steps := caller(t, tr, k1)
	if !leader || steps != 0 {
		t.Fatal("the first caller does not lead, or missed a step")
	}
	if other, leader, _ := caller(t, tr, k2); !leader || other == l {
		t.Error("another key joins")
	}
	for n := range 3 {
		if joined, leader, steps := caller(t, tr, k1); leader || joined != l || steps != n {
			t.Errorf("a caller after %d steps: joins %v, %d steps", n, !leader, steps)
		}
		if step := l.Run.Step(); step != n+1 {
			t.Errorf("step %d has the number %d", n+1, step)
		}
	}
	select {
	case <-l.Done():
		t.Fatal("it has not ended")
	default:
	}
	wants := Loaded{Row: store.Row{Version: 3}, Found: true, Since: 2}
	l.End(wants)
	<-l.Done()
	if got := l.Result(); got.Row.Version != 3 || !got.Found || got.Since != 2 {
		t.Errorf("the result is %+v, want %+v", got, wants)
	}
	if again, leader, steps := caller(t, tr, k1); !leader || again == l || steps != 0 {
		t.Error("a load that has ended is joined")
	}
}

func TestLastLeaverEndsTheRun(t *testing.T) {
	t.Parallel()
	tr := newTracker(memory{})
	l, _, _ := caller(t, tr, k1)
	caller(t, tr, k1)
	l.Run.Leave()
	if l.Run.Ctx.Err() != nil {
		t.Fatal("the run ended with a waiter left")
	}
	l.Run.Leave()
	if !errors.Is(l.Run.Ctx.Err(), context.Canceled) {
		t.Fatal("the run goes on for nobody")
	}
	mustWait(t, tr, k1, l)
	l.End(Loaded{Err: context.Canceled}) // it learns of its end late
	if second, leader, _ := caller(t, tr, k1); !leader || second == l {
		t.Fatal("a run that nobody waited for is joined")
	}
}

// One run loads many keys: each is joined for itself, and the run ends when nobody waits for any.
func TestRunOfManyKeys(t *testing.T) {
	t.Parallel()
	tr := newTracker(memory{})
	run := NewRun(t.Context())
	a, _, _ := tr.Join(k1, run, Now())
	b, _, _ := tr.Join(k2, run, Now())
	if joined, leader, _ := caller(t, tr, k2); leader || joined != b {
		t.Fatal("a key of a run of many is not joined")
	}
	run.Leave()
	a.End(Loaded{})
	if run.Ctx.Err() != nil {
		t.Fatal("the run ended with a waiter left for one of its keys")
	}
	run.Leave()
	if run.Ctx.Err() == nil {
		t.Error("the run goes on for nobody")
	}
}

// mustWait is a caller who can neither join l nor begin another beside it.
func mustWait(t *testing.T, tr *Tracker, k Key, l *Load) {
	t.Helper()
	run := NewRun(t.Context())
	defer run.Leave()
	if got, part, _ := tr.Join(k, run, Now()); part != Waits || got != l {
		t.Fatalf("part %v in a load that is not for it", part)
	}
}

// What was loaded before a change was published is not for those who come after it; those who came before still get it. Those
// who come after wait for its end, and share the next.
func TestOvertakenLoad(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]func(t *testing.T, tr *Tracker){
		"published":        func(t *testing.T, tr *Tracker) { publish(t, tr, k1, 9) },
		"our write begins": func(_ *testing.T, tr *Tracker) { tr.BeginWrite(k1, 9, nil) },
		"our write ends": func(t *testing.T, tr *Tracker) {
			tr.BeginWrite(k1, 9, nil).Finish(nil, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := newTracker(memory{})
			l, _, _ := caller(t, tr, k1)
			kill(t, tr)
			mustWait(t, tr, k1, l)
			mustWait(t, tr, k1, l)
			if l.Run.Ctx.Err() != nil {
				t.Error("its own caller is still waiting")
			}
			l.End(Loaded{Found: true})
			if !l.Result().Found {
				t.Error("its own caller gets nothing")
			}
			second, leader, _ := caller(t, tr, k1)
			if !leader || second == l {
				t.Fatal("nobody leads the next")
			}
			if joined, leader, _ := caller(t, tr, k1); leader || joined != second {
				t.Error("the next is not shared")
			}
		})
	}
}

// A load's own store does not overtake it: callers go on joining until it has ended.
func TestOwnStoreKeepsTheLoad(t *testing.T) {
	t.Parallel()
	tr := newTracker(memory{})
	l, _, _ := caller(t, tr, k1)
	w := tr.BeginWrite(k1, 9, l)
	if joined, leader, _ := caller(t, tr, k1); leader || joined != l {
		t.Error("the beginning of its own store kills a load")
	}
	w.Finish(nil, 0)
	if joined, leader, _ := caller(t, tr, k1); leader || joined != l {
		t.Error("the end of its own store kills a load")
	}
	tr.BeginWrite(k1, 10, &Load{}).Finish(nil, 0)
	mustWait(t, tr, k1, l)
	l.End(Loaded{})
	tr.BeginWrite(k1, 11, l).Finish(nil, 0) // no load is under way: there is none to be overtaken
}

// Loaders that wait for each other's keys never end; the one that closes the ring gets an error.
func TestRing(t *testing.T) {
	t.Parallel()
	a, b, c, d := NewRun(t.Context()), NewRun(t.Context()), NewRun(t.Context()), NewRun(t.Context())
	waitFor := func(r, other *Run, want bool) (done func()) {
		t.Helper()
		done, ok := r.WaitFor(other)
		if ok != want {
			t.Fatalf("may wait: %v, want %v", ok, want)
		}
		return done
	}
	waitFor(a, a, false)
	ab, bc, ac := waitFor(a, b, true), waitFor(b, c, true), waitFor(a, c, true)
	waitFor(c, a, false)
	waitFor(c, b, false)
	cd := waitFor(c, d, true)
	waitFor(d, a, false)
	bc()
	waitFor(d, a, false) // a still waits for c
	again := waitFor(a, b, true)
	ab()
	waitFor(b, a, false)
	again()
	ba := waitFor(b, a, true)
	for _, done := range []func(){ac, cd, ba} {
		done()
	}
	waits.Lock()
	defer waits.Unlock()
	for _, r := range []*Run{a, b, c, d} {
		if _, ok := waits.on[r]; ok {
			t.Error("an edge is left")
		}
	}
}

// TestDiamond: runs that wait for one run on two ways are no ring.
func TestDiamond(t *testing.T) {
	t.Parallel()
	top, left, right, bottom, late := NewRun(t.Context()), NewRun(t.Context()), NewRun(t.Context()), NewRun(t.Context()), NewRun(t.Context())
	for _, edge := range [][2]*Run{{top, left}, {top, right}, {left, bottom}, {right, bottom}, {late, top}} {
		done, ok := edge[0].WaitFor(edge[1])
		if !ok {
			t.Fatal("refused, and there is no ring")
		}
		defer done()
	}
	if _, ok := bottom.WaitFor(late); ok {
		t.Error("a ring through a diamond is not noticed")
	}
}

func TestLoadedExpires(t *testing.T) {
	t.Parallel()
	if loaded := (&Loaded{}); loaded.Expired() { // not in a bubble: its clock is before the beginning of ours
		t.Error("what was loaded has expired")
	}
	synctest.Test(t, func(t *testing.T) {
		loaded, found := Loaded{}, Loaded{Until: Now() + int64(time.Second)}
		time.Sleep(time.Second - 1)
		if loaded.Expired() || found.Expired() {
			t.Error("expired too early")
		}
		time.Sleep(time.Nanosecond)
		if loaded.Expired() || !found.Expired() {
			t.Error("what was found has expired, what was loaded has not")
		}
	})
}

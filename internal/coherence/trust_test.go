package coherence

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

func TestDeadline(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		maxAge    time.Duration
		sent      int64
		remaining time.Duration
		wants     int64
	}{
		"remaining counts from when it was sent": {0, 1000, 500, 1500},
		"for ever":                               {0, 1000, math.MaxInt64, math.MaxInt64},
		"just no overflow":                       {0, 1000, math.MaxInt64 - 1000, math.MaxInt64},
		"just an overflow":                       {0, 1001, math.MaxInt64 - 1000, math.MaxInt64},
		"expired already":                        {0, 1000, -600, 400},
		"expired long ago":                       {0, 1000, math.MinInt64, math.MinInt64 + 1000},
		"no older than maxAge":                   {200, 1000, 500, 1200},
		"maxAge beyond its life":                 {800, 1000, 500, 1500},
		"maxAge of what lives for ever":          {200, 1000, math.MaxInt64, 1200},
		"sent before the clock began":            {0, -1000, 500, -500},
		"for ever, sent before the clock began":  {0, -1000, math.MaxInt64, math.MaxInt64 - 1000},
		"an endless maxAge":                      {math.MaxInt64, 1000, math.MaxInt64, math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := New(memory{}, tt.maxAge).Deadline(tt.sent, tt.remaining); got != tt.wants {
				t.Errorf("Deadline(%d, %d) with maxAge %d is %d, want %d", tt.sent, tt.remaining, tt.maxAge, got, tt.wants)
			}
		})
	}
}

// Trust ends by itself, without a Down, and a later TrustListener in the same epoch brings back what was kept.
func TestTrustRunsOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := New(memory{}, 0)
		if tr.Live() || fill(tr, k1, 1, 0) {
			t.Fatal("live before the first TrustListener")
		}
		tr.TrustListener(time.Now().Add(3 * time.Second))
		if !tr.Live() || !fill(tr, k1, 1, 0) {
			t.Fatal("not live after the first TrustListener")
		}
		time.Sleep(3*time.Second - 1)
		if hit(tr, k1) != 1 || !tr.Live() {
			t.Fatal("the trust ran out too early")
		}
		begun, leader := tr.BeginRead(k2)
		if !leader {
			t.Fatal("nobody reads k2")
		}
		time.Sleep(time.Nanosecond)
		if hit(tr, k1) != 0 || tr.Live() {
			t.Fatal("a hit beyond the trust")
		}
		if other, leader := tr.BeginRead(k2); !leader {
			t.Fatal("a join beyond the trust")
		} else {
			other.Finish(store.Row{}, nil, nil)
		}
		w := tr.BeginWrite(k2, 5, nil)
		begun.Finish(store.Row{Version: 1}, nil, entryOf(1))
		w.Finish(entryOf(5), 0)
		if fill(tr, k2, 1, 0) {
			t.Fatal("a fill beyond the trust")
		}
		tr.TrustListener(time.Now().Add(3 * time.Second))
		if hit(tr, k1) != 1 || !tr.Live() {
			t.Error("what was kept in this epoch is lost")
		}
		if v := hit(tr, k2); v != 0 {
			t.Errorf("version %d was stored while nobody could be trusted", v)
		}
		tr.Down()
		if tr.Live() || hit(tr, k1) != 0 {
			t.Error("live after Down")
		}
		tr.TrustListener(time.Now().Add(3 * time.Second))
		if hit(tr, k1) != 0 {
			t.Error("a hit from before the Down")
		}
		if n := tr.Forgets.Load(); n != 1 {
			t.Errorf("%d flushes counted", n)
		}
	})
}

// What is counted as forgotten was live at some time since the last: not what comes before that, nor what comes while it is bypassed.
func TestForgetsCounted(t *testing.T) {
	t.Parallel()
	tr := New(memory{}, 0)
	soon := time.Now().Add(time.Hour)
	for i, step := range []struct {
		do   func()
		want uint64
	}{
		{tr.Forget, 0},
		{func() { tr.TrustListener(soon) }, 0},
		{tr.Forget, 0}, // there was no pulse yet
		{func() { tr.TrustPulse(soon) }, 0},
		{tr.Forget, 1},
		{tr.Forget, 2}, // it was live again at once
		{func() { tr.TrustPulse(time.Now().Add(-time.Second)) }, 2},
		{tr.Forget, 3}, // trust has run out, and could have come back
		{tr.Forget, 3},
		{tr.Down, 3},
		{func() { tr.TrustPulse(soon); tr.TrustListener(soon) }, 3},
		{tr.Down, 4},
		{tr.Down, 4},
		{tr.Forget, 4},
	} {
		if step.do(); tr.Forgets.Load() != step.want {
			t.Fatalf("after step %d: %d, want %d", i, tr.Forgets.Load(), step.want)
		}
	}
	other := New(memory{}, time.Second)
	other.AlwaysOn()
	if other.Forget(); other.Forgets.Load() != 1 {
		t.Error("without a listener it is not counted")
	}
}

// Without a listener, maxAge is the bound, and our own writes are seen at once all the same.
func TestAlwaysOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := New(memory{}, time.Second)
		tr.AlwaysOn()
		keep := func(version int64) *localcache.Entry {
			return &localcache.Entry{Version: version, Deadline: tr.Deadline(Now(), time.Hour)}
		}
		f, _ := tr.BeginRead(k1)
		f.Finish(store.Row{Version: 1}, nil, keep(1))
		time.Sleep(time.Second - 1)
		if !tr.Live() || hit(tr, k1) != 1 {
			t.Fatal("the entry is not served for maxAge")
		}
		time.Sleep(time.Nanosecond)
		if !tr.Live() || hit(tr, k1) != 0 {
			t.Fatal("the entry is served beyond maxAge")
		}
		f, _ = tr.BeginRead(k1)
		w := tr.BeginWrite(k1, 2, nil)
		w.Finish(keep(2), 0)
		f.Finish(store.Row{Version: 1}, nil, keep(1))
		if v := hit(tr, k1); v == 1 {
			t.Error("a read begun before our own write hides it")
		}
		tr.Forget()
		if hit(tr, k1) != 0 || !tr.Live() {
			t.Error("Forget forgets what is there, and no more")
		}
	})
}

// Two trackers may share one local cache, say by mistake: then they are in each other's way, but never serve what the
// other keeps.
func TestSharedLocalCache(t *testing.T) {
	t.Parallel()
	local := memory{}
	a, b, down := newTracker(local), newTracker(local), New(local, 0)
	check := func(when string, tr *Tracker, others ...*Tracker) {
		t.Helper()
		if !fill(tr, k1, 7, 0) {
			t.Errorf("%s: a tracker does not serve what it keeps", when)
		}
		for _, other := range others {
			if hit(other, k1) != 0 {
				t.Errorf("%s: a tracker serves what another keeps", when)
			}
		}
	}
	check("at first", a, b, down)
	check("at first", b, a, down)
	for range 3 {
		a.Forget()
		b.Down()
		check("b is down", a, b, down)
		b.TrustListener(time.Now().Add(farAway))
		b.TrustPulse(time.Now().Add(farAway))
		check("b is back", b, a, down)
		check("a again", a, b, down)
	}
	// Nor does one put its own in place of the other's.
	e := local.Get(k1)
	b.Replace(k1, e, &localcache.Entry{})
	if local.Get(k1) != e {
		t.Error("one tracker replaced what the other keeps")
	}
}

// Rows of another server than the one whose notifications are received are never kept, nor what was there before.
func TestOtherServer(t *testing.T) {
	t.Parallel()
	tr := newTracker(memory{})
	if !fill(tr, k1, 1, 11) {
		t.Fatal("with no server known, any will do")
	}
	tr.SetServer(22)
	if tr.Server() != 22 {
		t.Error("Server does not return what SetServer was given")
	}
	if fill(tr, k1, 1, 11) || hit(tr, k1) != 0 {
		t.Error("a read from another server was kept")
	}
	if !fill(tr, k1, 1, 22) {
		t.Error("a read from the server that is received was not kept")
	}
	w := tr.BeginWrite(k1, 2, nil)
	w.Finish(entryOf(2), 11)
	if hit(tr, k1) != 0 {
		t.Error("a write to another server was kept")
	}
	w = tr.BeginWrite(k1, 3, nil)
	w.Finish(entryOf(3), 22)
	if hit(tr, k1) != 3 {
		t.Error("a write to the server that is received was not kept")
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	local := memory{}
	tr := newTracker(local)
	fill(tr, k1, 1, 0)
	tr.Close()
	if tr.Live() || hit(tr, k1) != 0 || len(local) != 0 {
		t.Error("something is left after Close")
	}
}

// TestTrust: memory is served only while both the listener and the pulse are trusted; a pulse that comes late ends it for
// as long as it is late, and what was kept before is served again after it.
func TestTrust(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := New(memory{}, 0)
		k := Key{Name: "a"}
		in := func(d time.Duration) time.Time { return time.Now().Add(d) }
		tr.TrustPulse(in(3 * time.Second))
		if tr.Live() || tr.Listening() {
			t.Error("live without a listener")
		}
		tr.TrustListener(in(2 * time.Second))
		if !tr.Live() {
			t.Fatal("not live with both")
		}
		fill(tr, k, 1, 0)
		time.Sleep(2*time.Second + 1)
		if hit(tr, k) != 0 || tr.Live() || tr.Listening() {
			t.Error("served although the listener is not trusted any more")
		}
		tr.TrustListener(in(2 * time.Second))
		if hit(tr, k) != 1 {
			t.Error("gone although nothing has happened")
		}
		time.Sleep(time.Second)
		if hit(tr, k) != 0 || tr.Live() || !tr.Listening() {
			t.Error("served although the pulse is not trusted any more")
		}
		tr.TrustPulse(in(3 * time.Second))
		if hit(tr, k) != 1 {
			t.Error("gone although nothing has happened")
		}
		tr.Down()
		tr.TrustPulse(in(time.Hour))
		if tr.Live() {
			t.Error("live while the listener is down")
		}
	})
}

// The clock of a bubble is before the beginning of ours, where anything is trusted: here it is the machine's.
func TestAlwaysOnToday(t *testing.T) {
	t.Parallel()
	tr := New(memory{}, time.Hour)
	tr.AlwaysOn()
	if !tr.Live() || !fill(tr, k1, 1, 0) {
		t.Error("memory is not in use")
	}
}

// A read that began while nothing was trusted is not kept, although the trust is back when it ends.
func TestReadBeforeTrust(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := New(memory{}, 0)
		tr.TrustListener(time.Now().Add(time.Second))
		tr.TrustPulse(time.Now().Add(farAway))
		time.Sleep(2 * time.Second)
		f := tr.BeginReadAlone(k1)
		tr.TrustListener(time.Now().Add(time.Second))
		f.Finish(store.Row{Version: 1}, nil, entryOf(1))
		if hit(tr, k1) != 0 {
			t.Error("it is kept")
		}
	})
}

// Without a listener a shard's trust is all that ends, and ends.
func TestAlwaysOnShard(t *testing.T) {
	t.Parallel()
	tr := New(memory{}, time.Hour)
	tr.AlwaysOn()
	for _, trusted := range []bool{true, false, true} {
		until := time.Now().Add(farAway)
		if !trusted {
			until = time.Now().Add(-farAway)
		}
		tr.TrustShard(until)
		if tr.Live() != trusted || !tr.Listening() {
			t.Errorf("trusted %v: live %v, listening %v", trusted, tr.Live(), tr.Listening())
		}
	}
}

// OnInvalidated is told which keys may have changed, or that any may have.
func TestOnInvalidated(t *testing.T) {
	t.Parallel()
	tr := New(memory{}, 0)
	var calls [][]string
	tr.OnInvalidated = func(rows []string) { calls = append(calls, rows) }
	expect := func(what string, wants ...[]string) {
		t.Helper()
		if diff := cmp.Diff(wants, calls); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		calls = nil
	}
	trust := func() { tr.TrustListener(time.Now().Add(farAway)) }
	trust()
	expect("the listener is up", nil)
	trust()
	expect("it still is")
	publish(t, tr, k2, 1)
	expect("a key was published", []string{k2.Row()})
	publishRemoval(t, tr, false, notify.Group{Kind: notify.Tag, Name: "t", ID: 1})
	expect("a group was removed", nil)
	tr.Forget()
	expect("everything was forgotten", nil)
	tr.Down()
	tr.Down()
	expect("the listener is down", nil)
}

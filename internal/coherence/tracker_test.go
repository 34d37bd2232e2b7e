package coherence

import (
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var k1, k2 = Key{Name: "k1"}, Key{Namespace: "n", Name: "k2"}

// newTracker returns a tracker that is live for as long as any test takes.
func newTracker(local localcache.Cache) *Tracker {
	tr := New(local, 0)
	tr.TrustListener(time.Now().Add(farAway))
	tr.TrustPulse(time.Now().Add(farAway))
	return tr
}

// fill reads k, as of version, into the local cache, and says whether it is there now.
func fill(tr *Tracker, k Key, version int64, server int64) bool {
	f := tr.BeginReadAlone(k)
	f.Finish(store.Row{Version: version, Server: server}, nil, entryOf(version))
	return hit(tr, k) == version
}

// entryOf returns an entry that never expires.
func entryOf(version int64) *localcache.Entry {
	return &localcache.Entry{Version: version, Deadline: math.MaxInt64}
}

// hit returns the version of k that is served now, 0 for none.
func hit(tr *Tracker, k Key) int64 {
	if e := tr.Hit(k, Now()); e != nil {
		return e.Version
	}
	return 0
}

func publish(t *testing.T, tr *Tracker, k Key, version int64) {
	t.Helper()
	if err := tr.Apply(notify.Message{Body: one(k.Name, version)}, func(string) Key { return k }); err != nil {
		t.Fatal(err)
	}
}

// A read that is slow is not joined for long: the first write of a key is not published, and would go unseen until it ends. But
// it may still be kept, and be killed. And what has expired since it was asked for is for nobody who came later.
func TestSlowReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTracker(memory{})
		first, _ := tr.BeginRead(k1)
		time.Sleep(time.Duration(joinable) - 1)
		if f, leader := tr.BeginRead(k1); leader || f != first {
			t.Fatal("a read is not joined while it is young")
		}
		time.Sleep(time.Nanosecond)
		second, leader := tr.BeginRead(k1)
		if !leader {
			t.Fatal("a slow read is joined")
		}
		if f, leader := tr.BeginRead(k1); leader || f != second {
			t.Error("the younger read is not the one that is joined")
		}
		first.Finish(store.Row{Version: 1, Value: []byte("v"), Remaining: time.Duration(joinable)}, nil, entryOf(1))
		if hit(tr, k1) != 1 {
			t.Error("a slow read is not kept")
		}
		if first.Expired() {
			t.Error("it expires just now")
		}
		time.Sleep(time.Nanosecond)
		if !first.Expired() {
			t.Error("it has expired, for those who came late")
		}
		second.Finish(store.Row{Version: 1, Value: []byte("v"), Remaining: time.Hour}, nil, entryOf(1))
		if hit(tr, k1) != 1 || second.Expired() {
			t.Error("the younger read, which saw the same, takes it away")
		}
		tr.Forget()
		first, _ = tr.BeginRead(k1)
		time.Sleep(time.Duration(joinable))
		second, _ = tr.BeginRead(k1)
		publish(t, tr, k1, 2)
		first.Finish(store.Row{Version: 1}, nil, entryOf(1))
		second.Finish(store.Row{Version: 1}, nil, entryOf(1))
		if hit(tr, k1) != 0 {
			t.Error("an invalidation does not kill all reads")
		}
		gone, _ := tr.BeginRead(k1)
		gone.Finish(store.Row{Version: 3, Remaining: -time.Hour}, nil, nil)
		if gone.Expired() {
			t.Error("a tombstone does not expire for anybody")
		}
	})
}

func TestApply(t *testing.T) {
	t.Parallel()
	key := func(row string) Key { return Key{Name: row} }
	a, b := Key{Name: "a"}, Key{Name: "b"}
	for name, tt := range map[string]struct {
		payload            string
		fails              bool
		a, b               int64 // what is left of versions 1 and 2
		published, flushed uint64
	}{
		"another version":           {one("a", 9), false, 0, 2, 1, 0},
		"the same version":          {one("a", 1), false, 1, 2, 1, 0},
		"nobody's version":          {one("a", 0), false, 0, 2, 1, 0},
		"a key that is not there":   {one("c", 9), false, 1, 2, 1, 0},
		"several keys":              {string(notify.AppendItem(notify.AppendItem(nil, "a", 1, 9), "b", 9, 2)), false, 1, 0, 2, 0},
		"everything":                {notify.All, false, 0, 0, 0, 1},
		"an unknown format":         {"?" + one("c", 9), true, 0, 0, 0, 1},
		"nothing":                   {"", false, 1, 2, 0, 0},
		"broken behind a good item": {one("c", 9) + "1:", true, 0, 0, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := newTracker(memory{})
			var published uint64
			tr.OnPublished = func([]int64) { published++ }
			fill(tr, a, 1, 0)
			fill(tr, b, 2, 0)
			if err := tr.Apply(notify.Message{Body: tt.payload}, key); (err != nil) != tt.fails {
				t.Errorf("Apply returned %v", err)
			}
			if published != tt.published {
				t.Errorf("OnPublished was called %d times, want %d", published, tt.published)
			}
			if gotA, gotB := hit(tr, a), hit(tr, b); gotA != tt.a || gotB != tt.b {
				t.Errorf("versions %d and %d are left, want %d and %d", gotA, gotB, tt.a, tt.b)
			}
			if published, flushed := tr.Invalidations.Load(), tr.Forgets.Load(); published != tt.published || flushed != tt.flushed {
				t.Errorf("%d keys and %d flushes counted, want %d and %d", published, flushed, tt.published, tt.flushed)
			}
		})
	}
}

// OnPublished receives all versions, OnEvicted of entries that were in use, or of whose key some before were, and of no others.
func TestHooks(t *testing.T) {
	t.Parallel()
	tr := newTracker(memory{})
	var published [][]int64
	var lost []Key
	tr.OnPublished = func(versions []int64) { published = append(published, slices.Clone(versions)) }
	tr.OnEvicted = func(k Key, interest uint32) {
		if lost = append(lost, k); interest == 0 {
			t.Errorf("%v is of no interest", k)
		}
	}
	used, unused, once, same, past := Key{Name: "used"}, Key{Name: "unused"}, Key{Name: "once"}, Key{Name: "same"}, Key{Name: "past"}
	fill(tr, past, 1, 0)
	tr.Forget()
	fill(tr, used, 1, 0) // fill has a look
	fill(tr, same, 1, 0)
	f := tr.BeginReadAlone(unused)
	f.Finish(store.Row{Version: 1}, nil, entryOf(1))
	f = tr.BeginReadAlone(once)
	e := entryOf(1)
	e.Inherit(1)
	f.Finish(store.Row{Version: 1}, nil, e)
	b := []byte(nil)
	b = notify.AppendItem(b, "used", 3, 2)
	b = notify.AppendItem(b, "unused", 3)
	b = notify.AppendItem(b, "once", 3)
	b = notify.AppendItem(b, "same", 1, 9)
	b = notify.AppendItem(b, "past", 3)
	b = notify.AppendItem(b, "unknown", 3)
	if err := tr.Apply(notify.Message{Body: string(b)}, func(row string) Key { return Key{Name: row} }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]int64{{3, 2}, {3}, {3}, {1, 9}, {3}, {3}}, published); diff != "" {
		t.Errorf("OnPublished (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Key{used, once}, lost); diff != "" {
		t.Errorf("OnEvicted (-want +got):\n%s", diff)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	tr := newTracker(memory{})
	news, other := make(chan struct{}, 1), make(chan struct{}, 1)
	woken := func(c chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	expect := func(what string, n, o bool) {
		t.Helper()
		if gotN, gotO := woken(news), woken(other); gotN != n || gotO != o {
			t.Errorf("%s: woken %v and %v, want %v and %v", what, gotN, gotO, n, o)
		}
	}
	w1, w2, w3 := tr.Watch(k1, news), tr.Watch(k2, news), tr.Watch(k1, other)
	expect("nothing happened", false, false)
	publish(t, tr, k1, 1)
	expect("k1 was published", true, true)
	publish(t, tr, k2, 1)
	publish(t, tr, k2, 2) // the channel is full: that is enough
	expect("k2 was published", true, false)
	tr.Forget()
	expect("everything was published", true, true)
	tr.Down()
	expect("the listener was lost", true, true)
	w1.Stop()
	publish(t, tr, k1, 2)
	expect("k1 was published after Stop", false, true)
	w3.Stop()
	w3.Stop()
	publish(t, tr, k2, 3)
	expect("k2 was published", true, false)
	w2.Stop()
	publish(t, tr, k1, 3)
	tr.Down()
	expect("all have stopped", false, false)
	for i := range tr.stripes {
		if n := len(tr.stripes[i].watches); n > 0 {
			t.Errorf("%d keys are still watched", n)
		}
	}
}

// Replace keeps another form of what is there, with all that says how long it may be served.
func TestReplace(t *testing.T) {
	t.Parallel()
	tr := newTracker(memory{})
	fill(tr, k1, 7, 0)
	old := tr.Hit(k1, Now())
	form := &localcache.Entry{}
	tr.Replace(k1, old, form)
	got := tr.Hit(k1, Now())
	if got != form || got.Version != 7 || got.Deadline != old.Deadline || got.Epoch != old.Epoch {
		t.Fatalf("%+v is served in place of %+v", got, old)
	}
	if form = (&localcache.Entry{}); form.Interest() != 0 {
		t.Fatal("an entry that nobody has used is of interest")
	}
	tr.Replace(k1, got, form)
	if form.Interest() == 0 {
		t.Error("a replacement does not count as use")
	}
}

// A read that finds the row of an entry without its value evicts it: its group was removed, and the message has not come yet.
func TestNothingToKeep(t *testing.T) {
	t.Parallel()
	tr := newTracker(memory{})
	fill(tr, k1, 7, 0)
	tr.BeginReadAlone(k1).Finish(store.Row{Version: 7}, nil, nil)
	if hit(tr, k1) != 0 {
		t.Error("the entry is still there")
	}
}

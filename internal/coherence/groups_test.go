package coherence

import (
	"fmt"
	"iter"
	"math"
	"testing"
	"time"

	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// fillTagged is fill for a row with tags.
func fillTagged(tr *Tracker, k Key, version int64, tags ...string) bool {
	f := tr.BeginReadAlone(k)
	f.Finish(store.Row{Version: version, Tags: tags}, nil, entryOf(version))
	return hit(tr, k) == version
}

// remove publishes the removal of a group.
func publishRemoval(t *testing.T, tr *Tracker, hidden bool, g notify.Group) {
	t.Helper()
	err := tr.Apply(notify.Message{Body: string(notify.AppendGroup(nil, g)), Hidden: hidden}, func(row string) Key { return Key{Name: row} })
	if err != nil {
		t.Fatal(err)
	}
}

// After removals, what begins then is kept: whichever way it comes.
func TestGroupsAreKept(t *testing.T) {
	t.Parallel()
	tr := newTracker(memory{})
	tr.RemoveTags([]string{"t"})
	tr.RemovePrefix("x")
	if !fillTagged(tr, k1, 1, "t") {
		t.Error("a read alone is not kept")
	}
	w := tr.BeginWrite(k1, 2, nil)
	w.Finish(entryOf(2), 0, "t")
	if hit(tr, k1) != 2 {
		t.Error("a write is not kept")
	}
	f, leader := tr.BeginRead(k2)
	f.Finish(store.Row{Version: 3, Tags: []string{"t"}}, nil, entryOf(3))
	if !leader || hit(tr, k2) != 3 {
		t.Error("a read is not kept")
	}
	tr.RemoveTags([]string{"t"})
	if hit(tr, k1) != 0 || hit(tr, k2) != 0 {
		t.Error("what was kept is not found by its tag")
	}
}

// The notification of a commit ends what its transaction removes, and nothing else does but End.
func TestTxRemovalEnds(t *testing.T) {
	t.Parallel()
	tr := newTracker(memory{})
	x, y := tr.BeginTxRemoval([]string{"t", "u"}, ""), tr.BeginTxRemoval(nil, "k")
	x.Sent([]int64{7, 8})
	y.Sent([]int64{9})
	if fillTagged(tr, k1, 1) || fillTagged(tr, Key{Name: "z"}, 1, "u") {
		t.Error("it is kept while a transaction removes it")
	}
	if !fillTagged(tr, Key{Name: "z"}, 1, "v") || !fillTagged(tr, Key{Name: "y"}, 1) {
		t.Error("what no transaction removes is not kept")
	}
	publishRemoval(t, tr, false, notify.Group{Kind: notify.Tag, Name: "t", ID: 1})
	if x.Done() || y.Done() {
		t.Error("it is ended by another removal")
	}
	publishRemoval(t, tr, false, notify.Group{Kind: notify.Tag, Name: "u", ID: 8})
	if !x.Done() || y.Done() {
		t.Errorf("x.Done %v, y.Done %v", x.Done(), y.Done())
	}
	x.End()
	y.End()
	y.End()
	if !y.Done() || !fillTagged(tr, k1, 1, "t") {
		t.Error("it is not kept after both have ended")
	}
}

func TestTxWriteEnds(t *testing.T) {
	t.Parallel()
	tr := newTracker(memory{})
	woken := make(chan struct{}, 1)
	defer tr.Watch(k1, woken).Stop()
	x := tr.BeginTxWrite(k1, 5)
	publish(t, tr, k1, 4)
	<-woken
	if x.Done() || fill(tr, k1, 4, 0) {
		t.Error("it is ended by another's notification")
	}
	publish(t, tr, k1, 5)
	<-woken
	if !x.Done() || !fill(tr, k1, 5, 0) {
		t.Error("its notification does not end it")
	}
	// A write of ours was done before the transaction locked the row, and is answered only now.
	w := tr.BeginWrite(k1, 7, nil)
	y := tr.BeginTxWrite(k1, 6)
	y.End()
	w.Finish(entryOf(7), 0)
	if hit(tr, k1) != 0 {
		t.Error("a write from before the transaction is kept after it")
	}
	select {
	case <-woken:
	default:
		t.Error("a loader that waits for the key is not woken")
	}
}

// A transaction may write one key very often: the end of each write does not look at all the others, or this would take minutes.
func TestTxWritesOfOneKey(t *testing.T) {
	t.Parallel()
	tr := newTracker(memory{})
	const n = 300_000
	writes := make([]*TxWrite, n)
	for i := range writes {
		writes[i] = tr.BeginTxWrite(k1, int64(i+1))
	}
	began := time.Now()
	for _, w := range writes {
		if w.End(); time.Since(began) > 30*time.Second {
			t.Fatal("not within half a minute")
		}
	}
	if !fill(tr, k1, n, 0) {
		t.Error("it is not kept after all have ended")
	}
}

// withoutKeys is a local cache that can't say what it has.
type withoutKeys struct{ m memory }

func (c withoutKeys) Get(k Key) *localcache.Entry    { return c.m.Get(k) }
func (c withoutKeys) Set(k Key, e *localcache.Entry) { c.m.Set(k, e) }
func (c withoutKeys) Delete(k Key)                   { c.m.Delete(k) }
func (c withoutKeys) Clear()                         { c.m.Clear() }

func TestPrefixWithoutKeys(t *testing.T) {
	t.Parallel()
	tr := newTracker(withoutKeys{memory{}})
	if !fill(tr, k1, 1, 0) {
		t.Fatal("it is not kept")
	}
	tr.RemovePrefix("k1")
	if hit(tr, k1) != 0 {
		t.Error("it is still served")
	}
}

// looking is a local cache that says when somebody looks through it.
type looking struct {
	memory
	looked chan struct{}
}

func (l looking) Keys() iter.Seq[Key] {
	close(l.looked)
	return l.memory.Keys()
}

// An operation that has compared the count before a removal keeps its entry before the removal looks through the local cache.
func TestPrefixWaits(t *testing.T) {
	t.Parallel()
	local := looking{memory{}, make(chan struct{})}
	tr := newTracker(local)
	s := tr.stripe(k1)
	began := tr.groups.applied()
	s.mu.Lock() // an operation that keeps k1
	admitted := tr.admit(k1, nil, began)
	removed := make(chan struct{})
	go func() {
		defer close(removed)
		tr.RemovePrefix("k")
	}()
	select {
	case <-local.looked:
		t.Error("it does not wait for the stripe's lock")
	case <-time.After(30 * time.Millisecond):
	}
	if admitted {
		tr.local.Set(k1, &localcache.Entry{Version: 1, Epoch: tr.epoch.Load(), Deadline: math.MaxInt64})
	}
	s.mu.Unlock()
	<-removed
	if !admitted || hit(tr, k1) != 0 {
		t.Errorf("admitted %v, and version %d is served", admitted, hit(tr, k1))
	}
}

func TestHiddenGroups(t *testing.T) {
	t.Parallel()
	tr := newTracker(memory{})
	secret := []byte("secret")
	tr.Hide(secret)
	z := Key{Name: "z"}
	if !fillTagged(tr, k1, 1, "t") || !fillTagged(tr, z, 1, "u") {
		t.Fatal("they are not kept")
	}
	publishRemoval(t, tr, true, notify.Group{Kind: notify.Tag, Name: notify.HiddenTag(secret, "t"), ID: 1})
	if hit(tr, k1) != 0 || hit(tr, z) != 1 {
		t.Errorf("k1 is served at %d, z at %d", hit(tr, k1), hit(tr, z))
	}
	publishRemoval(t, tr, true, notify.Group{Kind: notify.Prefix, Name: "?", ID: 2})
	if hit(tr, z) != 0 {
		t.Error("a prefix that nobody can know leaves something")
	}
	tr.Hide([]byte("another"))
	if n := len(tr.groups.byTag); n != 0 {
		t.Errorf("%d tags are known by names that no message has any more", n)
	}
}

// The index follows what is kept: the local cache does not report what it evicts.
func TestTagIndexIsBounded(t *testing.T) {
	t.Parallel()
	local := memory{}
	tr := newTracker(local)
	fillTagged(tr, k1, 1, "t")
	for i := range 5 * leastDropAt {
		k := Key{Name: fmt.Sprint("x", i)}
		fillTagged(tr, k, 1, "t", fmt.Sprint(i))
		local.Delete(k)
	}
	if tr.groups.size > 2*leastDropAt+2 {
		t.Errorf("%d are indexed, one is kept", tr.groups.size)
	}
	tr.RemoveTags([]string{"t"})
	if hit(tr, k1) != 0 {
		t.Error("what is kept was dropped from the index")
	}
}

// What a caller may use of a load: what shows it to be current began after the caller had come.
func TestAnswers(t *testing.T) {
	t.Parallel()
	tr := newTracker(memory{})
	l, _, _ := caller(t, tr, k1)
	began := l.Began()
	l.Run.Step() // 1: the look
	l.Offer(&Loaded{Since: 1})
	_, _, steps := caller(t, tr, k1)
	if l.Offered(steps, began+1) != nil {
		t.Error("a look from before the caller is offered")
	}
	if l.Offered(steps, began) == nil || l.Offered(0, began+1) == nil {
		t.Error("a look from after the caller is not offered")
	}
	second := l.Run.Step()
	l.Offer(&Loaded{Since: second, Found: true})
	l.Offer(&Loaded{Since: 1})
	if out := l.Offered(steps, began+1); out == nil || !out.Found {
		t.Errorf("the newer look is gone: %+v", out)
	}
	l.End(Loaded{Since: second})
	for _, c := range []struct {
		steps   int
		arrived int64
		want    bool
	}{{0, began + 1, true}, {1, began + 1, true}, {2, began + 1, false}, {3, began + 1, false}, {2, began, true}, {2, began - 1, true}} {
		if got := l.Answers(c.steps, c.arrived); got != c.want {
			t.Errorf("Answers(%d, began %+d) = %v", c.steps, c.arrived-began, got)
		}
	}
}

// A load that began before a transaction of ours wrote may show what was there before its commit.
func TestJoinInTransactions(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(tr *Tracker) interface{ End() }{
		"writes":  func(tr *Tracker) interface{ End() } { return tr.BeginTxWrite(k1, 5) },
		"removes": func(tr *Tracker) interface{ End() } { return tr.BeginTxRemoval([]string{"t"}, "") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := newTracker(memory{})
			l, _, _ := caller(t, tr, k1)
			x := begin(tr)
			for arrived, want := range map[int64]Part{l.Began() + 1: Waits, l.Began(): Joins} {
				run := NewRun(t.Context())
				if _, part, _ := tr.Join(k1, run, arrived); part != want {
					t.Errorf("who came at began %+d gets part %v, not %v", arrived-l.Began(), part, want)
				}
				run.Leave()
			}
			x.End()
			l.End(Loaded{})
		})
	}
}

// A stale entry is handed out as a fresh one would be, only later.
func TestStaleEntry(t *testing.T) {
	t.Parallel()
	tr := newTracker(memory{})
	now := Now()
	f := tr.BeginReadAlone(k1)
	f.Finish(store.Row{Version: 1}, nil, &localcache.Entry{Version: 1, Deadline: now + 10})
	if tr.Stale(k1, now) != nil || tr.Stale(k1, now+10) == nil {
		t.Error("it is stale from its deadline on")
	}
	tr.TrustListener(time.Now().Add(-farAway))
	if tr.Stale(k1, now+10) != nil {
		t.Error("it is handed out without trust")
	}
	tr.TrustListener(time.Now().Add(farAway))
	tr.Forget()
	if tr.Stale(k1, now+10) != nil {
		t.Error("it is handed out in another epoch")
	}
}

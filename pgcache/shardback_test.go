package pgcache_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/pgcache"
)

// unheard returns a node that hears of nothing that others do: what it has in memory is there until it removes it itself.
func (w *shardWorld) unheard(names ...string) *pgcache.Shards {
	w.t.Helper()
	s, _ := w.faulty(func(o *pgcache.Options) { o.Listener, o.LocalTTL = nil, time.Hour }, names...)
	w.ready(s)
	return s
}

// A node without a listener is not told that a server that takes a key over has lost what it had of it: it forgets by itself.
func TestShards_ForgetsWhatItHadThere(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	s, other := w.unheard("a", "b"), w.node("a", "b")
	ctx := t.Context()
	key := movingTo(t, s, []string{"a"}, "b", "a")
	ok(t, other.Set(ctx, key, 1))
	wantOn(t, s, key, 1, true) // keeps it
	w.record(3, "v1:a,b", "v1:a", "a", "b")
	follows(t, key, "", s)
	w.record(4, "v1:a", "", "a", "b")
	follows(t, key, "a", s, other)
	ok(t, s.Set(ctx, key, 2))
	moved := async(t, func() error { return other.Move(ctx, "a", "b") })
	follows(t, key, "", s)
	for s.Owner(key) != "b" { // without a pause: it has forgotten before the first call looks there
	}
	wantOn(t, s, key, 0, false)
	ok(t, moved())
}

// Also one that has missed the steps by which the key went away and came back.
func TestShards_ForgetsWhatItMissed(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	s, faults := w.faulty(func(o *pgcache.Options) { o.Listener, o.LocalTTL = nil, time.Hour }, "a", "b")
	w.ready(s)
	other := w.node("a", "b")
	ctx := t.Context()
	key := movingTo(t, s, []string{"a"}, "b", "a")
	ok(t, other.Set(ctx, key, 1))
	wantOn(t, s, key, 1, true) // keeps it
	for _, f := range faults {
		f.Down()
	}
	eventually(t, "its lease has ended", func() bool {
		var n int
		_, err := s.Get(ctx, key, &n)
		return err != nil
	})
	w.record(4, "v1:a", "", "a", "b")
	follows(t, key, "a", other)
	ok(t, other.Set(ctx, key, 2))
	w.on["b"].exec("DELETE FROM " + w.on["b"].table())
	w.record(6, "v1:a,b", "", "a", "b")
	follows(t, key, "b", other)
	wantOn(t, other, key, 0, false)
	for _, f := range faults {
		f.Mend()
	}
	eventually(t, "it finds nothing", func() bool {
		var n int
		found, err := s.Get(ctx, key, &n)
		if err == nil && found {
			t.Fatalf("it has %d, which is from before the key went away", n)
		}
		return err == nil
	})
}

// What is left of a key on a server that has lost the step by which it takes the key over, as by a failover, is removed when the Move
// is called again.
func TestShards_MoveAgainAfterALostStep(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	s := w.node("a", "b")
	ctx := t.Context()
	key := movingTo(t, s, []string{"a"}, "b", "a")
	ok(t, s.Set(ctx, key, 1))
	w.record(3, "v1:a,b", "v1:a", "a", "b")
	w.record(4, "v1:a", "", "a", "b") // who moved died before the sweep
	follows(t, key, "a", s)
	ok(t, s.Set(ctx, key, 2))
	b, putBack := w.on["b"], w.keep("b")
	moved := async(t, func() error { return s.Move(ctx, "a", "b") })
	eventually(t, "keys are moving", func() bool {
		return b.count("SELECT count(*) FROM "+b.object("cache_state")+" WHERE shard_epoch = 5") == 1
	})
	// The server is another, which has not got this far.
	putBack()
	w.record(4, "v1:a", "", "b")
	if err := moved(); err == nil || !strings.Contains(err.Error(), "has lost what was recorded") {
		t.Fatal(err)
	}
	ok(t, s.Move(ctx, "a", "b"))
	wantOn(t, s, key, 0, false)
}

// What was loaded while the key was held nowhere is newer than what memory has of it from before: it is not served when the key is
// back where it was.
func TestShards_BackWithoutGoingBack(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	s, other := w.unheard("a", "b"), w.node("a", "b")
	ctx := t.Context()
	ok(t, other.Move(ctx, "a"))
	key, second := movingToNth(t, other, []string{"a", "b"}, "a", "b", 0), movingToNth(t, other, []string{"a", "b"}, "a", "b", 1)
	follows(t, key, "a", s)
	v := pgcache.ForShards[int](s)
	for _, k := range []string{key, second} {
		ok(t, other.Set(ctx, k, 1))
		wantOn(t, s, k, 1, true) // keeps it
	}
	w.record(5, "v1:a", "v1:a,b", "a", "b")
	follows(t, key, "", s, other)
	ok(t, other.Set(ctx, key, 2))
	ok(t, other.Set(ctx, second, 2))
	n, err := v.GetOrSet(ctx, key, func(context.Context) (int, error) { return 2, nil })
	if err != nil || n != 2 {
		t.Fatal(n, err)
	}
	many, err := v.GetOrSetMany(ctx, []string{second}, func(context.Context, []string) (map[string]int, error) { return map[string]int{second: 2}, nil })
	if err != nil || many[second] != 2 {
		t.Fatal(many, err)
	}
	w.record(6, "v1:a", "", "a", "b") // taken back
	follows(t, key, "a", s, other)
	wantOn(t, s, key, 0, false)
	wantOn(t, s, second, 0, false)
}

// A step that one server has had, and has lost by a failover, is followed by another of the same epoch: who has seen the first does not
// use its shards by it, and follows the step after.
func TestShards_TwoStepsOfOneEpoch(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	s := w.node("a", "b")
	ctx := t.Context()
	ok(t, s.Move(ctx, "a"))
	moves, stays := movingTo(t, s, []string{"a", "b"}, "a", "b"), movingTo(t, s, []string{"a", "b"}, "a", "a")
	w.record(5, "v1:a", "v1:a,b", "a") // who moves dies
	follows(t, moves, "", s)
	w.record(5, "v1:a", "v1:b", "a", "b") // the server is another, which was not told, and somebody moves to another map
	var wrong *pgcache.ShardMapError
	eventually(t, "it is refused", func() bool { return errors.As(s.Set(ctx, stays, 1), &wrong) })
	w.record(6, "v1:b", "", "a", "b")
	eventually(t, "it goes on", func() bool { return s.Set(ctx, stays, 2) == nil })
	wantOn(t, s, stays, 2, true)
}

// Whoever moves passes over a step that it has seen and the servers have lost.
func TestShards_MovePassesOverALostStep(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	s := w.node("a", "b")
	ctx := t.Context()
	ok(t, s.Move(ctx, "a"))
	key := movingTo(t, s, []string{"a", "b"}, "a", "b")
	w.record(5, "v1:a", "v1:a,b", "a")
	follows(t, key, "", s)
	w.record(4, "v1:a", "", "a")
	ok(t, s.Move(ctx, "b"))
	follows(t, key, "b", s)
	ok(t, s.Set(ctx, key, 1))
	wantOn(t, s, key, 1, true)
}

// A server that was restored from a backup has an old map: a node that knows a later one says so, and goes on by the later one.
func TestShards_RestoredFromABackup(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	l := &logs{}
	s, _ := w.faulty(func(o *pgcache.Options) { o.Logger = l.logger() }, "a", "b")
	w.ready(s)
	ctx := t.Context()
	key := movingTo(t, s, []string{"a"}, "b", "a")
	for epoch, step := range [][2]string{{"v1:a,b", "v1:a"}, {"v1:a", ""}, {"v1:a", "v1:a,b"}, {"v1:a,b", ""}} {
		w.record(3+epoch, step[0], step[1], "a", "b")
	}
	follows(t, key, "b", s)
	ok(t, s.Set(ctx, key, 1))
	if strings.Contains(l.String(), "lost steps") {
		t.Error("it is behind before it was restored")
	}
	w.record(4, "v1:a", "", "b")
	eventually(t, "it says so", func() bool { return strings.Contains(l.String(), "lost steps") })
	wantOn(t, s, key, 1, true)
}

package pgcache_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/pgcache"
)

// While a key moves nothing tells a load that has begun of a Delete: who comes after the Delete does not take what it says, also where
// it says that there is nothing.
func TestShards_LoadFromBeforeADelete(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	s := w.node("a", "b")
	ctx := t.Context()
	ok(t, s.Move(ctx, "a"))
	key := movingTo(t, s, []string{"a", "b"}, "a", "b")
	w.record(5, "v1:a", "v1:a,b", "a", "b")
	follows(t, key, "", s)
	for name, v := range map[string]*pgcache.TypedShards[int]{
		"plain": pgcache.ForShards[int](s), "negative": pgcache.ForShards[int](s, pgcache.NegativeTTL(time.Minute)),
	} {
		for _, many := range []bool{false, true} {
			release, begun := make(chan struct{}), make(chan struct{})
			before := async(t, func() error {
				_, err := v.GetOrSet(ctx, key, func(context.Context) (int, error) {
					close(begun)
					<-release
					return 0, pgcache.ErrNotFound
				})
				return err
			})
			<-begun
			ok(t, v.Delete(ctx, key))
			coalesced := s.Stats().Coalesced
			got := 0
			after := async(t, func() (err error) {
				if many {
					var all map[string]int
					all, err = v.GetOrSetMany(ctx, []string{key}, func(context.Context, []string) (map[string]int, error) { return map[string]int{key: 2}, nil })
					got = all[key]
				} else {
					got, err = v.GetOrSet(ctx, key, func(context.Context) (int, error) { return 2, nil })
				}
				return err
			})
			eventually(t, "it waits", func() bool { return s.Stats().Coalesced > coalesced })
			close(release)
			if err := before(); !errors.Is(err, pgcache.ErrNotFound) {
				t.Error(err)
			}
			if err := after(); err != nil || got != 2 {
				t.Errorf("%s, many %v: after a Delete it is %d, %v", name, many, got, err)
			}
		}
	}
}

// A step of a Move is nothing to a key that stays: what a Set has stored meanwhile is kept, and what is exact is not refused.
func TestShards_StaysWhileOthersMove(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	s, _ := w.faulty(func(o *pgcache.Options) { o.Timeout = 30 * time.Second }, "a", "b")
	w.ready(s)
	ctx := t.Context()
	ok(t, s.Move(ctx, "a"))
	stays, moves := movingTo(t, s, []string{"a", "b"}, "a", "a"), movingTo(t, s, []string{"a", "b"}, "a", "b")
	v := pgcache.ForShards[int](s)
	epoch := 4
	for name, do := range map[string]func() error{
		"Set":     func() error { return s.Set(ctx, stays, 1) },
		"SetMany": func() error { return v.SetMany(ctx, map[string]int{stays: 1, moves: 1}) },
		"Update": func() error {
			_, err := v.Update(ctx, stays, func(int, bool) (int, error) { return 1, nil })
			return err
		},
	} {
		ok(t, s.Set(ctx, stays, 0))
		follows(t, moves, "a", s)
		release := w.hold("a", stays)
		done := async(t, do)
		eventually(t, name+" waits", func() bool {
			return w.on["a"].count("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%' || $1 || '%'", w.on["a"].opts.Schema) > 0
		})
		w.record(epoch+1, "v1:a", "v1:a,b", "a", "b")
		follows(t, moves, "", s)
		release()
		ok(t, done())
		wantOn(t, s, stays, 1, true)
		wantOn(t, s, moves, 0, false)
		epoch += 2
		w.record(epoch, "v1:a", "", "a", "b") // taken back
	}
}

// What is stuck on the old server for the whole of a Move counts for nothing: reads ask the new one, and what is exact says so.
func TestShards_StuckWhileMoving(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	s, _ := w.faulty(func(o *pgcache.Options) { o.Timeout = 30 * time.Second }, "a", "b")
	w.ready(s)
	other := w.node("a", "b")
	ctx := t.Context()
	key, counter := movingToNth(t, s, []string{"b"}, "a", "b", 0), movingToNth(t, s, []string{"b"}, "a", "b", 1)
	ok(t, other.Set(ctx, key, 1))
	a, v := w.on["a"], pgcache.ForShards[int](s)
	tx, err := a.db.BeginTx(ctx, nil)
	ok(t, err)
	defer tx.Rollback() //nolint:errcheck // it is rolled back below
	_, err = tx.ExecContext(ctx, "LOCK TABLE "+a.table())
	ok(t, err)
	stuck := func(n int) {
		eventually(t, fmt.Sprint(n, " are stuck"), func() bool {
			return a.count("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = $1::regclass", a.table()) >= n
		})
	}
	get := async(t, func() int { n, _, _ := v.Get(ctx, key); return n })
	stuck(1) // else the next would be read by the same statement
	many := async(t, func() int { all, _ := v.GetMany(ctx, []string{key, counter}); return all[key] })
	stuck(2)
	increment := async(t, func() error { _, err := s.Increment(ctx, counter, 1); return err })
	stuck(3)
	w.record(3, "v1:a,b", "v1:b", "a", "b")
	follows(t, key, "", s, other)
	w.record(4, "v1:b", "", "a", "b")
	follows(t, key, "b", s, other)
	ok(t, other.Set(ctx, key, 2))
	ok(t, tx.Rollback())
	if n := get(); n != 2 {
		t.Errorf("Get: %d", n)
	}
	if n := many(); n != 2 {
		t.Errorf("GetMany: %d", n)
	}
	wantErr(t, increment(), pgcache.ErrMoving)
}

// A Move that finds its step lost, or another state recorded in its place, goes no further.
func TestShards_MoveDisturbed(t *testing.T) {
	t.Parallel()
	for says, change := range map[string]func(w *shardWorld){
		"has lost what was recorded": func(w *shardWorld) { w.record(2, "v1:a,b", "", "b") },
		"another move is under way":  func(w *shardWorld) { w.record(9, "v1:a,b", "", "a", "b") },
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			w := newShardWorld(t, "a", "b")
			s := w.node("a", "b")
			moved := async(t, func() error { return s.Move(t.Context(), "a") })
			eventually(t, "keys are moving", func() bool {
				b := w.on["b"]
				return b.count("SELECT count(*) FROM "+b.object("cache_state")+" WHERE shard_epoch = 3") == 1
			})
			change(w)
			if err := moved(); err == nil || !strings.Contains(err.Error(), says) {
				t.Error(err)
			}
		})
	}
}

// A shard whose server is silent is looked at for a second, whatever the Timeout: the error says so.
func TestShards_SilentServer(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	s, faults := w.faulty(func(o *pgcache.Options) { o.Timeout = 30 * time.Second }, "a", "b")
	w.ready(s)
	key := ownedBy(t, s, "a", 1)[0]
	faults["a"].Stall()
	var last error
	eventually(t, "it is said", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, last = s.Get(ctx, key, new(int))
		return last != nil && strings.Contains(last.Error(), `shard "a": no answer from the database within the time for a look at the map (1s)`)
	})
	faults["a"].Mend()
	eventually(t, "it is there again", func() bool { _, err := s.Get(t.Context(), key, new(int)); return err == nil })
}

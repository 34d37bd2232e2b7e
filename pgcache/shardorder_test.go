package pgcache_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// A load that has waited for the lock until its key has moved, and looks at the row only then, stores nothing there: who takes keys over fences
// the loads that looked before, and this one would store over a Delete when the key comes back.
func TestShards_LoadThatLooksTooLate(t *testing.T) {
	t.Parallel()
	for _, many := range []bool{false, true} {
		w := newShardWorld(t, "a", "b")
		s, other := w.node("a", "b"), w.node("a", "b")
		ctx := t.Context()
		key := movingTo(t, s, []string{"b"}, "a", "b")
		v := pgcache.ForShards[int](s)
		holder, held := w.on["a"].on(testdb.DB(t), nil), newLoader(nil)
		lock := async(t, func() error {
			return holder.GetOrSet(ctx, key, new(int), func(ctx context.Context) (any, error) {
				_, err := held.load(ctx)
				return nil, errors.Join(err, errNothing)
			})
		})
		held.wait(t)
		l, misses := newLoader(1), s.Stats().Misses
		load := func(ctx context.Context) (int, error) { n, err := l.load(ctx); i, _ := n.(int); return i, err }
		loaded := async(t, func() (err error) {
			if many {
				_, err = v.GetOrSetMany(ctx, []string{key}, func(ctx context.Context, keys []string) (map[string]int, error) {
					n, err := load(ctx)
					return map[string]int{keys[0]: n}, err
				})
			} else {
				_, err = v.GetOrSet(ctx, key, load)
			}
			return err
		})
		eventually(t, "it waits for the lock", func() bool { return s.Stats().Misses > misses })
		w.record(3, "v1:a,b", "v1:b", "a", "b")
		follows(t, key, "", s, other)
		w.record(4, "v1:b", "", "a", "b")
		follows(t, key, "b", s, other)
		// Here Move would fence a, for the way back.
		held.release()
		wantErr(t, lock(), errNothing)
		l.wait(t)
		ok(t, other.Delete(ctx, key))
		l.release()
		ok(t, loaded())
		w.record(5, "v1:b", "v1:a,b", "a", "b")
		follows(t, key, "", s, other)
		w.record(6, "v1:a,b", "", "a", "b")
		follows(t, key, "a", s, other)
		wantOn(t, other, key, 0, false)
		wantOn(t, s, key, 0, false)
	}
}

// A Move that is late with removing what a server has given away leaves alone what has come back to it since.
func TestShards_SweepAfterAnotherMove(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	s, _ := w.faulty(func(o *pgcache.Options) { o.Timeout = time.Minute }, "a", "b")
	w.ready(s)
	other := w.node("a", "b")
	ctx := t.Context()
	key := movingTo(t, s, []string{"b"}, "a", "b")
	ok(t, s.Set(ctx, key, 1))
	a := w.on["a"]
	moved := async(t, func() error { return s.Move(ctx, "b") })
	follows(t, key, "", s)
	tx, err := a.db.BeginTx(ctx, nil)
	ok(t, err)
	defer tx.Rollback() //nolint:errcheck // it is rolled back below
	_, err = tx.ExecContext(ctx, "LOCK TABLE "+a.table())
	ok(t, err)
	eventually(t, "the sweep is stuck", func() bool {
		for _, on := range w.on {
			if on.count("SELECT count(*) FROM "+on.object("cache_state")+" WHERE shard_epoch = 4") == 0 {
				return false
			}
		}
		return a.count("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = $1::regclass", a.table()) > 0
	})
	w.record(6, "v1:a,b", "", "a", "b")
	ok(t, tx.Rollback())
	if err := moved(); err == nil || !strings.Contains(err.Error(), "another move has begun") {
		t.Error(err)
	}
	follows(t, key, "a", other)
	wantOn(t, other, key, 1, true)
}

// Keys and Entries leave out what has moved since its row was read.
func TestShards_KeysThatMoveMeanwhile(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	s := w.node("a", "b")
	ctx := t.Context()
	var moves []string
	for n := range 3 {
		moves = append(moves, movingToNth(t, s, []string{"b"}, "a", "b", n))
		ok(t, s.Set(ctx, moves[n], 1))
	}
	epoch := 2
	for name, list := range map[string]func(yield func(string) bool){
		"keys": func(yield func(string) bool) {
			for key, err := range s.Keys(ctx, "") {
				ok(t, err)
				if !yield(key) {
					return
				}
			}
		},
		"entries": func(yield func(string) bool) {
			for e, err := range pgcache.ForShards[int](s).Entries(ctx) {
				ok(t, err)
				if !yield(e.Key) {
					return
				}
			}
		},
	} {
		var seen []string
		for key := range list {
			if seen = append(seen, key); len(seen) == 1 {
				w.record(epoch+1, "v1:a,b", "v1:b", "a", "b")
				follows(t, moves[0], "", s)
				w.record(epoch+2, "v1:b", "", "a", "b")
				follows(t, moves[0], "b", s)
			}
		}
		if len(seen) != 1 {
			t.Errorf("%s: %v", name, seen)
		}
		epoch += 4
		w.record(epoch, "v1:a,b", "", "a", "b")
		follows(t, moves[0], "a", s)
	}
}

var errNothing = errors.New("there is nothing")

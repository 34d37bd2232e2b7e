package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// record makes shard name's server say what a Move would have recorded.
func (w *shardWorld) record(epoch int, shards, next string, names ...string) {
	w.t.Helper()
	for _, name := range names {
		w.on[name].exec("UPDATE "+w.on[name].object("cache_state")+" SET shard_name = $1, shard_epoch = $2, shard_map = $3, shard_next = $4", name, epoch, shards, next)
	}
}

// keep copies the rows on shard name's server. putBack makes the rows there what they were, as where who moved died before the sweep.
func (w *shardWorld) keep(name string) (putBack func()) {
	w.t.Helper()
	cl := w.on[name]
	kept := cl.opts.Schema + ".kept"
	cl.exec("CREATE TABLE " + kept + " AS SELECT * FROM " + cl.table())
	return func() {
		w.t.Helper()
		cl.exec("UPDATE " + cl.table() + " e SET value = k.value, expires_at = k.expires_at, codec = k.codec FROM " + kept + " k WHERE e.key = k.key")
	}
}

// hold locks the row of key on shard name's server until release is called, or the test ends.
func (w *shardWorld) hold(name, key string) (release func()) {
	w.t.Helper()
	tx := begin(w.t, w.on[name].db, sql.LevelDefault)
	if _, err := tx.ExecContext(w.t.Context(), "SELECT FROM "+w.on[name].table()+" WHERE key = $1 FOR UPDATE", key); err != nil {
		w.t.Fatal(err)
	}
	return func() {
		w.t.Helper()
		ok(w.t, tx.Rollback())
	}
}

// follows waits until all nodes say that owner has key; "": that it is moving.
func follows(t *testing.T, key, owner string, nodes ...*pgcache.Shards) {
	t.Helper()
	for _, s := range nodes {
		eventually(t, fmt.Sprintf("%q has %q", owner, key), func() bool { return s.Owner(key) == owner })
	}
}

// A node that lacks a shard of both maps, while keys move from one to the other, says so once and names both.
func TestShards_LacksWhileKeysMove(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b", "c")
	w.node("a", "b", "c")
	w.record(5, "v1:a,c", "v1:a,b,c", "a", "b", "c")
	err := w.given("a", "b").Ready(t.Context())
	var e *pgcache.ShardMapError
	if !errors.As(err, &e) || e.Reason != "this node lacks the shards c: keys are moving to v1:a,b,c" || e.Recorded != "v1:a,c" {
		t.Error(err)
	}
}

// While a key moves it is held nowhere, others stay; and when it has moved it begins anew.
func TestShards_WhileAKeyMoves(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	s, other := w.node("a", "b"), w.node("a", "b")
	ctx := t.Context()
	ok(t, s.Move(ctx, "a"))
	key, stays := movingTo(t, s, []string{"a", "b"}, "a", "b"), movingTo(t, s, []string{"a", "b"}, "a", "a")
	ok(t, s.Set(ctx, key, 1))
	ok(t, s.Set(ctx, stays, 1))
	follows(t, key, "a", other)
	wantOn(t, other, key, 1, true)

	w.record(5, "v1:a", "v1:a,b", "a", "b")
	follows(t, key, "", s, other)
	for _, node := range []*pgcache.Shards{s, other} {
		wantOn(t, node, stays, 1, true)
		wantOn(t, node, key, 0, false)
		ok(t, node.Set(ctx, key, 2))
		wantOn(t, node, key, 0, false)
		var n int
		ok(t, node.GetOrSet(ctx, key, &n, func(context.Context) (any, error) { return 3, nil }))
		wantOn(t, node, key, 0, false)
		if n != 3 {
			t.Error(n)
		}
		_, absent := node.SetIfAbsent(ctx, key, 1)
		_, increment := node.Increment(ctx, key, 1)
		_, touch := node.Touch(ctx, key, time.Minute)
		_, update := pgcache.ForShards[int](node).Update(ctx, key, func(int, bool) (int, error) { return 1, nil })
		for _, err := range []error{absent, increment, touch, update} {
			wantErr(t, err, pgcache.ErrMoving)
		}
		if err := node.Set(ctx, key, make(chan int)); err == nil {
			t.Error("a value that can't be encoded is accepted")
		}
		for k, err := range node.Keys(ctx, "") {
			if err != nil || k == key {
				t.Error(k, err)
			}
		}
	}
	// On both servers a delete is left.
	for _, name := range []string{"a", "b"} {
		if n := w.on[name].count("SELECT count(*) FROM "+w.on[name].table()+" WHERE key = $1 AND value IS NULL", key); n != 1 {
			t.Errorf("%d tombstones on %s", n, name)
		}
	}
	if err := s.Move(ctx, "b"); err == nil || !strings.Contains(err.Error(), "moving from v1:a to v1:a,b") {
		t.Errorf("Move to a third map: %v", err)
	}
	// Whoever moved it is gone; another goes on.
	ok(t, other.Move(ctx, "b", "a"))
	follows(t, key, "b", s, other)
	ok(t, s.Set(ctx, key, 4))
	eventually(t, "the other node sees it", func() bool {
		var n int
		found, err := other.Get(ctx, key, &n)
		return found && err == nil && n == 4
	})
	wantOn(t, s, stays, 1, true)
}

// Back from half a move.
func TestShards_MoveBack(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	s := w.node("a", "b")
	ctx := t.Context()
	ok(t, s.Move(ctx, "a"))
	key := movingTo(t, s, []string{"a", "b"}, "a", "b")
	ok(t, s.Set(ctx, key, 1))
	w.record(5, "v1:a", "v1:a,b", "a") // who moved died here
	follows(t, key, "", s)
	ok(t, s.Move(ctx, "a"))
	follows(t, key, "a", s)
	wantOn(t, s, key, 1, true)
	if m := s.Map(); !slices.Equal(m, []string{"a"}) {
		t.Error(m)
	}
	if err := s.Move(ctx, "a", "x"); err == nil || !strings.Contains(err.Error(), "x") {
		t.Error(err)
	}
}

// What a server has left of a key from when it had it before is gone when it has it again, and a load from then stores nothing.
func TestShards_ThereAndBack(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	s := w.node("a", "b")
	ctx := t.Context()
	key := movingTo(t, s, []string{"a"}, "b", "a")
	loading := ""
	for i := 0; loading == "" || loading == key; i++ {
		loading = movingToNth(t, s, []string{"a"}, "b", "a", i)
	}
	ok(t, s.Set(ctx, key, 1))
	release, begun := make(chan struct{}), make(chan struct{})
	var calls atomic.Int32
	loaded := async(t, func() error {
		var n int
		return s.GetOrSet(ctx, loading, &n, func(context.Context) (any, error) {
			if calls.Add(1) > 1 {
				return 2, nil // what it returned first counts for nothing, it is asked anew
			}
			close(begun)
			<-release
			return 1, nil
		})
	})
	<-begun
	putBack := w.keep("b")
	ok(t, s.Move(ctx, "a"))
	putBack()
	ok(t, s.Set(ctx, key, 2))
	ok(t, s.Delete(ctx, loading))
	ok(t, s.Move(ctx, "a", "b"))
	wantOn(t, s, key, 0, false)
	close(release)
	ok(t, loaded())
	wantOn(t, s, loading, 2, true)
}

// A Set that is stuck while its key moves is seen all the same when it returns.
func TestShards_SetStuckWhileMoving(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	s, _ := w.faulty(func(o *pgcache.Options) { o.Timeout = 30 * time.Second }, "a", "b")
	w.ready(s)
	other := w.node("a", "b")
	ctx := t.Context()
	key := movingTo(t, s, []string{"b"}, "a", "b")
	ok(t, s.Set(ctx, key, 1))
	release := w.hold("a", key)
	written := async(t, func() error { return s.Set(ctx, key, 2) })
	eventually(t, "the Set waits", func() bool {
		return w.on["a"].count("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation IS NOT DISTINCT FROM $1::regclass OR NOT granted AND locktype = 'transactionid'", w.on["a"].table()) > 0
	})
	moved := async(t, func() error { return other.Move(ctx, "b") })
	follows(t, key, "b", other)
	var n int
	ok(t, other.GetOrSet(ctx, key, &n, func(context.Context) (any, error) { return 1, nil })) // as it was before the Set
	wantOn(t, other, key, 1, true)
	release()
	ok(t, written())
	eventually(t, "the Set is seen", func() bool {
		found, err := other.Get(ctx, key, &n)
		return err == nil && (!found || n == 2)
	})
	ok(t, moved())
}

// A fleet writes, deletes, reads and loads while shards come and go, listeners and sessions are killed, and a node comes late. Every
// answer is checked.
func TestShards_FleetMoves(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b", "c")
	var nodes []*pgcache.Shards
	for range 3 {
		s, _ := w.faulty(func(o *pgcache.Options) { // listeners that can be found, by a name that a heartbeat does not replace
			o.Listener = pgxdriver.ListenerDSN(testdb.WithParam(testdb.DSN(t), "application_name", o.Schema))
		}, "a", "b", "c")
		w.ready(s)
		nodes = append(nodes, s)
	}
	ok(t, nodes[0].Move(t.Context(), "a", "b"))
	for _, s := range nodes[1:] {
		eventually(t, "all follow", func() bool { return len(s.Map()) == 2 })
	}
	f := newShardFleet(t, nodes)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range nodes {
		wg.Go(func() { f.write(ctx, i) })
		wg.Go(func() { f.read(ctx, i) })
		wg.Go(func() { f.read(ctx, i) })
	}
	killed := 0
	wg.Go(func() {
		for ctx.Err() == nil {
			for _, cl := range w.on {
				var n int
				_ = cl.db.QueryRowContext(ctx, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1", cl.opts.Schema).Scan(&n)
				killed += n
			}
			pause(ctx, 2*time.Second)
		}
	})
	move := func(names ...string) {
		t.Helper()
		eventually(t, "it has moved", func() bool { return nodes[rand.IntN(len(nodes))].Move(t.Context(), names...) == nil })
	}
	move("a", "b", "c")
	move("b", "c")
	move("a", "b", "c")
	stop()
	wg.Wait()
	f.end()
	if killed < 3 {
		t.Errorf("only %d listeners were killed", killed)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// shardFleet checks. A key has one writer; the source of a key is its newest version, which a loader returns.
type shardFleet struct {
	t     *testing.T
	nodes []*pgcache.TypedShards[int64]
	keys  []*shardKey

	reads, hits, loads, failed atomic.Int64
}

type shardKey struct {
	name   string
	source atomic.Int64
	// finished are when versions of writes had finished.
	mu       sync.Mutex
	finished []struct {
		version int64
		at      time.Time
	}
	seen []atomic.Int64 // by each node
	mine atomic.Int64   // of the writer's node
}

func newShardFleet(t *testing.T, nodes []*pgcache.Shards) *shardFleet {
	f := &shardFleet{t: t}
	for _, s := range nodes {
		f.nodes = append(f.nodes, pgcache.ForShards[int64](s, pgcache.Namespace("fleet")))
	}
	for i := range 60 {
		k := &shardKey{name: fmt.Sprint(i), seen: make([]atomic.Int64, len(nodes))}
		k.source.Store(1)
		f.keys = append(f.keys, k)
	}
	return f
}

// write is the writer of every third key.
func (f *shardFleet) write(ctx context.Context, node int) {
	for ctx.Err() == nil {
		k := f.keys[rand.IntN(len(f.keys)/len(f.nodes))*len(f.nodes)+node]
		v := k.source.Add(1)
		for {
			var err error
			if v%3 == 0 {
				err = f.nodes[node].Set(f.t.Context(), k.name, v)
			} else {
				err = f.nodes[node].Delete(f.t.Context(), k.name)
			}
			if err == nil {
				break
			}
			f.failed.Add(1) // until it is done: what is not done is not promised
			pause(ctx, 10*time.Millisecond)
			if v = k.source.Add(1); ctx.Err() != nil {
				return
			}
		}
		k.mu.Lock()
		k.finished = append(k.finished, struct {
			version int64
			at      time.Time
		}{v, time.Now()})
		k.mu.Unlock()
		k.mine.Store(v)
		pause(ctx, time.Duration(rand.IntN(3))*time.Millisecond)
	}
}

// before is the newest version that had finished by at.
func (k *shardKey) before(at time.Time) (version int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := len(k.finished) - 1; i >= 0; i-- {
		if k.finished[i].at.Before(at) {
			return k.finished[i].version
		}
	}
	return 0
}

func (f *shardFleet) read(ctx context.Context, node int) {
	for ctx.Err() == nil {
		n := rand.IntN(len(f.keys))
		f.check(node, n, rand.IntN(4) == 0)
		if rand.IntN(8) == 0 {
			pause(ctx, time.Millisecond)
		}
	}
}

func (f *shardFleet) check(node, n int, load bool) {
	k := f.keys[n]
	began := time.Now()
	seen, mine := k.seen[node].Load(), int64(0)
	if n%len(f.nodes) == node {
		mine = k.mine.Load()
	}
	var got int64
	var found bool
	var err error
	if load {
		got, err = f.nodes[node].GetOrSet(f.t.Context(), k.name, func(context.Context) (int64, error) {
			f.loads.Add(1)
			return k.source.Load(), nil
		})
		found = err == nil
	} else {
		got, found, err = f.nodes[node].Get(f.t.Context(), k.name)
	}
	if f.reads.Add(1); err != nil {
		f.failed.Add(1)
		pause(f.t.Context(), 10*time.Millisecond) // else most reads are of the moments in which nothing can be read
		return
	}
	if !found {
		return
	}
	f.hits.Add(1)
	for before := k.seen[node].Load(); before < got && !k.seen[node].CompareAndSwap(before, got); before = k.seen[node].Load() {
	}
	switch old := k.before(began.Add(-bound)); {
	case got < old:
		f.t.Errorf("node %d, key %s: got %d, but %d had finished %v before", node, k.name, got, old, bound)
	case got < mine:
		f.t.Errorf("node %d, key %s: got %d, but has written %d", node, k.name, got, mine)
	case got < seen:
		f.t.Errorf("node %d, key %s: got %d after %d", node, k.name, got, seen)
	}
}

// end reads everything once more when all is quiet.
func (f *shardFleet) end() {
	f.t.Helper()
	time.Sleep(bound)
	for node := range f.nodes {
		for n := range f.keys {
			f.check(node, n, false)
			f.check(node, n, true)
		}
	}
	f.t.Logf("%d reads, %d hits, %d loads, %d failed", f.reads.Load(), f.hits.Load(), f.loads.Load(), f.failed.Load())
	if f.hits.Load() < 1000 || f.failed.Load() > f.reads.Load()/2 {
		f.t.Error("too little was done")
	}
}

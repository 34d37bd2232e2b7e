package pgcache_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

// shardWorld makes nodes of Shards, each shard in a schema of its own.
type shardWorld struct {
	t  *testing.T
	on map[string]*cluster
}

func newShardWorld(t *testing.T, names ...string) *shardWorld {
	t.Helper()
	w := &shardWorld{t: t, on: map[string]*cluster{}}
	for _, name := range names {
		w.on[name] = newCluster(t)
	}
	return w
}

// given returns a node that was given these shards, and is not migrated.
func (w *shardWorld) given(names ...string) *pgcache.Shards {
	w.t.Helper()
	s, _ := w.faulty(nil, names...)
	return s
}

// faulty is given, with servers that can fail.
func (w *shardWorld) faulty(change func(o *pgcache.Options), names ...string) (*pgcache.Shards, map[string]*pgcachetest.Faults) {
	w.t.Helper()
	faults := map[string]*pgcachetest.Faults{}
	var shards []pgcache.Shard
	for _, name := range names {
		db, f := pgcachetest.DBWithFaults(w.t)
		o := w.on[name].opts
		o.Listener = pgxdriver.Listener(db)
		if change != nil {
			change(&o)
		}
		c, err := pgcache.New(db, o)
		if err != nil {
			w.t.Fatal(err)
		}
		shards, faults[name] = append(shards, pgcache.Shard{Name: name, Cache: c}), f
	}
	s, err := pgcache.NewShards(shards...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { s.Close() })
	return s, faults
}

// node is given, migrated and ready.
func (w *shardWorld) node(names ...string) *pgcache.Shards {
	w.t.Helper()
	s := w.given(names...)
	w.ready(s)
	return s
}

func (w *shardWorld) ready(s *pgcache.Shards) {
	w.t.Helper()
	if err := s.Migrate(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	if err := s.Ready(ctx); err != nil {
		w.t.Fatal(err)
	}
}

// ownedBy returns n keys of shard name.
func ownedBy(t *testing.T, s *pgcache.Shards, name string, n int) (keys []string) {
	t.Helper()
	for i := 0; len(keys) < n; i++ {
		if i > 10_000 {
			t.Fatalf("%s owns too few keys", name)
		}
		if key := fmt.Sprintf("k%d", i); s.Owner(key) == name {
			keys = append(keys, key)
		}
	}
	return keys
}

// movingTo returns a key that s has on one shard and after on another.
func movingTo(t *testing.T, s *pgcache.Shards, after []string, from, to string) string {
	t.Helper()
	return movingToNth(t, s, after, from, to, 0)
}

// movingToNth returns the nth of these keys, from 0 on.
func movingToNth(t *testing.T, s *pgcache.Shards, after []string, from, to string, n int) string {
	t.Helper()
	next := nullShards(t, after...)
	for i := range 10_000 {
		if key := fmt.Sprintf("k%d", i); s.Owner(key) == from && next.Owner(key) == to {
			if n--; n < 0 {
				return key
			}
		}
	}
	t.Fatalf("too few keys move from %s to %s", from, to)
	return ""
}

func nullShards(t *testing.T, names ...string) *pgcache.Shards {
	t.Helper()
	var shards []pgcache.Shard
	for _, name := range names {
		shards = append(shards, pgcache.Shard{Name: name, Cache: pgcache.Null()})
	}
	s, err := pgcache.NewShards(shards...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantOn(t *testing.T, s *pgcache.Shards, key string, want int, found bool) {
	t.Helper()
	var got int
	f, err := s.Get(t.Context(), key, &got)
	if err != nil || f != found || f && got != want {
		t.Fatalf("%q is %d, %v, %v; want %d, %v", key, got, f, err, want, found)
	}
}

// Every method does what it does on a Cache, each key lies on its owner's server alone, and nodes see each other's changes.
func TestShards(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b", "c")
	s, other := w.node("c", "a", "b"), w.node("a", "b", "c")
	ctx := t.Context()
	for i := range 60 {
		ok(t, s.Set(ctx, fmt.Sprintf("k%d", i), i, pgcache.Tags(fmt.Sprint("t", i%2))))
	}
	total := 0
	for name, cl := range w.on {
		n := cl.count("SELECT count(*) FROM " + cl.table())
		if total += n; n < 5 {
			t.Errorf("shard %s has %d of 60 keys", name, n)
		}
		if mine := cl.count("SELECT count(*) FROM "+cl.table()+" WHERE key = ANY ($1::text[])", "{"+strings.Join(ownedBy(t, s, name, 5), ",")+"}"); mine != 5 {
			t.Errorf("shard %s has %d of its first 5 keys", name, mine)
		}
	}
	if total != 60 {
		t.Errorf("%d rows of 60 keys", total)
	}
	for i := range 60 {
		wantOn(t, other, fmt.Sprintf("k%d", i), i, true)
	}
	inTime(t, func() error { // where a busy machine keeps a pulse waiting nothing is answered from memory
		before := other.Stats().LocalHits
		for i := range 60 {
			wantOn(t, other, fmt.Sprintf("k%d", i), i, true)
		}
		if n := other.Stats().LocalHits - before; n < 50 {
			return fmt.Errorf("%d hits in memory", n)
		}
		return nil
	})
	ok(t, s.Delete(ctx, "k1", "k2", "k3", "k4"))
	eventually(t, "the other node knows", func() bool {
		var n int
		found, err := other.Get(ctx, "k3", &n)
		return !found && err == nil
	})
	keys := slices.Collect(func(yield func(string) bool) {
		for key, err := range s.Keys(ctx, "k") {
			if ok(t, err); !yield(key) {
				return
			}
		}
	})
	if len(keys) != 56 || !slices.IsSorted(keys) {
		t.Errorf("%d keys: %q", len(keys), keys)
	}
	ok(t, s.DeleteTags(ctx, "t1"))
	wantOn(t, s, "k5", 0, false)
	wantOn(t, s, "k6", 6, true)
	ok(t, s.DeletePrefix(ctx, "k6"))
	wantOn(t, s, "k6", 0, false)
	if stored, err := s.SetIfAbsent(ctx, "k8", 1); stored || err != nil {
		t.Error(stored, err)
	}
	if n, err := s.Increment(ctx, "k8", 5); n != 13 || err != nil {
		t.Error(n, err)
	}
	if found, err := s.Touch(ctx, "k8", time.Hour); !found || err != nil {
		t.Error(found, err)
	}
	var got int
	ok(t, s.GetOrSet(ctx, "new", &got, func(context.Context) (any, error) { return 7, nil }))
	wantOn(t, other, "new", 7, true)
	ok(t, s.Clear(ctx))
	wantOn(t, s, "k8", 0, false)
	if _, err := s.Cleanup(ctx); err != nil {
		t.Error(err)
	}
	if m := s.Map(); !slices.Equal(m, []string{"a", "b", "c"}) {
		t.Error(m)
	}
}

func TestShards_Typed(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b", "c")
	s := w.node("a", "b", "c")
	ctx := t.Context()
	v := pgcache.ForShards[int](s, pgcache.Namespace("n"), pgcache.WithCodec(codec.JSON{}))
	all := map[string]int{}
	for i := range 40 {
		all[fmt.Sprintf("k%02d", i)] = i
	}
	ok(t, v.SetMany(ctx, all))
	got, err := v.GetMany(ctx, append(slices.Collect(maps.Keys(all)), "none"))
	if err != nil || !maps.Equal(got, all) {
		t.Error(got, err)
	}
	// The row "n:k01" is one, by whatever method.
	wantOn(t, s, "n:k01", 1, true)
	ok(t, s.Set(ctx, "n:k01", 100))
	if n, found, err := v.Get(ctx, "k01"); n != 100 || !found || err != nil {
		t.Error(n, found, err)
	}
	var keys []string
	for e, err := range v.Entries(ctx) {
		ok(t, err)
		keys = append(keys, e.Key)
	}
	if !slices.Equal(keys, slices.Sorted(maps.Keys(all))) {
		t.Error(keys)
	}
	loaded, err := v.GetOrSetMany(ctx, []string{"k01", "x1", "x2", "x3", "x4", "x5"}, func(_ context.Context, missing []string) (map[string]int, error) {
		m := map[string]int{}
		for _, k := range missing {
			m[k] = len(k)
		}
		return m, nil
	})
	if err != nil || len(loaded) != 6 || loaded["k01"] != 100 || loaded["x5"] != 2 {
		t.Error(loaded, err)
	}
	if n, err := v.Update(ctx, "x1", func(old int, found bool) (int, error) { return old + 1, nil }); n != 3 || err != nil {
		t.Error(n, err)
	}
	if e, found, err := v.GetEntry(ctx, "x1"); !found || e.Value != 3 || err != nil {
		t.Error(e, found, err)
	}
	if r, err := v.Fetch(ctx, "x9", func(context.Context, *pgcache.Load[int]) (int, error) { return 9, nil }); r.Value != 9 || err != nil {
		t.Error(r, err)
	}
	if n, err := v.GetOrSet(ctx, "x9", func(context.Context) (int, error) { return 0, nil }); n != 9 || err != nil {
		t.Error(n, err)
	}
	ok(t, v.Delete(ctx, "x1", "x2", "x3"))
	if stored, err := v.SetIfAbsent(ctx, "x1", 1); !stored || err != nil {
		t.Error(stored, err)
	}
	if found, err := v.Touch(ctx, "x1", time.Hour); !found || err != nil {
		t.Error(found, err)
	}
	ok(t, v.Clear(ctx))
	if got, err := v.GetMany(ctx, []string{"x1", "k01", "k02"}); len(got) != 0 || err != nil {
		t.Error(got, err)
	}
	// Each part refuses what it can't store, and an option that is wrong makes every call fail.
	if err := v.Set(ctx, "", 1); !errors.Is(err, pgcache.ErrInvalidKey) {
		t.Error(err)
	}
	bad := pgcache.ForShards[int](s, pgcache.Namespace("a:b"))
	if _, _, err := bad.Get(ctx, "k"); err == nil {
		t.Error("a wrong namespace is accepted")
	}
}

// A node that can't follow the recorded map is refused, and the error has both.
func TestShards_AnotherMap(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b", "c", "d")
	fresh := w.given("a", "b", "c")
	for _, c := range w.on {
		ok(t, c.start(nil).Migrate(t.Context())) // the tables alone
	}
	refused := func(s *pgcache.Shards, says ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := s.Ready(ctx)
		var e *pgcache.ShardMapError
		if !errors.As(err, &e) {
			t.Fatal(err)
		}
		for _, say := range says {
			if !strings.Contains(err.Error(), say) {
				t.Errorf("the error does not say %q: %v", say, err)
			}
		}
	}
	refused(fresh, "no map of shards is recorded", "a,b,c")
	w.ready(fresh)

	lacks := w.given("a", "b")
	refused(lacks, "lacks", "v1:a,b,c", "v1:a,b")
	if err := lacks.Set(t.Context(), ownedBy(t, fresh, "c", 1)[0], 1); err == nil {
		t.Error("a Set to a shard that the node lacks succeeds")
	}
	eventually(t, "a shard that it has is used", func() bool { // on a busy machine its map may not be read within a second
		return lacks.Set(t.Context(), ownedBy(t, fresh, "a", 1)[0], 1) == nil
	})

	w.on["a"], w.on["b"] = w.on["b"], w.on["a"]
	swapped := w.given("a", "b", "c")
	refused(swapped, "recorded as")
	var n int
	if err := swapped.GetOrSet(t.Context(), "k", &n, func(context.Context) (any, error) { return 1, nil }); err == nil && fresh.Owner("k") != "c" {
		t.Error("a node whose servers are swapped loads")
	}
	w.on["a"], w.on["b"] = w.on["b"], w.on["a"]

	// A shard that is not in the map yet has no keys.
	more := w.node("a", "b", "c", "d")
	if m := more.Map(); !slices.Equal(m, []string{"a", "b", "c"}) {
		t.Error(m)
	}
	for i := range 20 {
		ok(t, more.Set(t.Context(), fmt.Sprint(i), i))
		wantOn(t, fresh, fmt.Sprint(i), i, true)
	}
	if d := w.on["d"]; d.count("SELECT count(*) FROM "+d.table()) != 0 {
		t.Error("it has")
	}
}

// Ready does not wait for a server that does not answer where another has said why it never will be, and its error says that alone.
func TestShards_ReadySaysWhy(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b", "c")
	w.node("a", "b", "c")
	late, faults := w.faulty(nil, "a", "b", "c")
	faults["a"].Stall()
	faults["b"].Down()
	c := w.on["c"]
	c.exec("UPDATE " + c.object("cache_state") + " SET shard_name = 'another'")
	err := async(t, func() error { return late.Ready(t.Context()) })()
	var e *pgcache.ShardMapError
	if !errors.As(err, &e) || e.Shard != "c" || errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
	faults["a"].Mend()
	faults["b"].Mend()
}

// A node that came up before Migrate is ready when that is done, whatever it has found out before.
func TestShards_ReadyAfterMigrate(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	early, first := w.given("a", "b"), w.given("a", "b")
	eventually(t, "it has found out that there are no tables", func() bool {
		return errors.Is(early.Set(t.Context(), "k", 1), pgcache.ErrNotMigrated)
	})
	ok(t, first.Migrate(t.Context()))
	ok(t, early.Ready(t.Context()))
	ok(t, early.Set(t.Context(), "k", 1))
}

// A server that is down fails its own keys, GetOrSet loads them, and all is well again when it is back.
func TestShards_OneIsDown(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	s, faults := w.faulty(nil, "a", "b")
	w.ready(s)
	ctx := t.Context()
	onA, onB := ownedBy(t, s, "a", 2), ownedBy(t, s, "b", 2)
	for _, k := range append(onA, onB...) {
		ok(t, s.Set(ctx, k, 1))
	}
	faults["b"].Down()
	time.Sleep(3500 * time.Millisecond) // its lease ends
	slow := 0
	for range 3 {
		wantOn(t, s, onA[0], 1, true)
		ok(t, s.Set(ctx, onA[1], 2))
		var n int
		began := time.Now()
		if _, err := s.Get(ctx, onB[0], &n); err == nil || !strings.Contains(err.Error(), `shard "b"`) {
			t.Errorf("Get of a key of the server that is down: %v", err)
		}
		if err := s.Set(ctx, onB[0], 2); err == nil {
			t.Error("Set of a key of the server that is down succeeds")
		}
		ok(t, s.GetOrSet(ctx, onB[0], &n, func(context.Context) (any, error) { return 5, nil }))
		if took := time.Since(began); n != 5 {
			t.Error(n)
		} else if took > 2*time.Second {
			slow++
		}
	}
	if slow == 3 { // on a machine that stalls one may be
		t.Error("each call of keys of the server that is down takes more than two seconds")
	}
	v := pgcache.ForShards[int](s)
	if got, err := v.GetMany(ctx, append(onA, onB...)); err == nil || len(got) != 2 {
		t.Error(got, err)
	}
	got, err := v.GetOrSetMany(ctx, append(onA, onB...), func(_ context.Context, missing []string) (map[string]int, error) {
		m := map[string]int{}
		for _, k := range missing {
			m[k] = 8
		}
		return m, nil
	})
	if err != nil || len(got) != 4 || got[onB[1]] != 8 || got[onA[1]] != 2 {
		t.Error(got, err)
	}
	if err := s.DeleteTags(ctx, "t"); err == nil {
		t.Error("DeleteTags succeeds without one of the servers")
	}
	faults["b"].Mend()
	eventually(t, "the server is used again", func() bool { return s.Set(ctx, onB[0], 3) == nil })
	wantOn(t, s, onB[0], 3, true)
}

// What is in memory is served as long as its server has been asked lately who has which key, and no longer: listener and pulse go on.
func TestShards_MemoryEndsWithTheLease(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	s := w.node("a", "b")
	ctx := t.Context()
	onA, onB := ownedBy(t, s, "a", 1)[0], ownedBy(t, s, "b", 1)[0]
	for _, k := range []string{onA, onB} {
		ok(t, s.Set(ctx, k, 1))
		wantOn(t, s, k, 1, true)
	}
	a := w.on["a"]
	a.exec("UPDATE " + a.object("cache_state") + " SET shard_name = 'another'")
	eventually(t, "a Get from memory is refused", func() bool {
		var n int
		_, err := s.Get(ctx, onA, &n)
		var e *pgcache.ShardMapError
		return errors.As(err, &e)
	})
	wantOn(t, s, onB, 1, true)
	a.exec("UPDATE " + a.object("cache_state") + " SET shard_name = 'a'")
	eventually(t, "it is served again", func() bool {
		var n int
		found, err := s.Get(ctx, onA, &n)
		return found && err == nil && n == 1
	})
}

func TestShards_Options(t *testing.T) {
	t.Parallel()
	null := pgcache.Null()
	defer null.Close()
	for says, list := range map[string][]pgcache.Shard{
		"at least one": nil,
		"nil":          {{Name: "a"}},
		"named \"a\"":  {{Name: "a", Cache: null}, {Name: "a", Cache: pgcache.Null()}},
		"name of a":    {{Name: "a b", Cache: null}},
		"two names":    {{Name: "a", Cache: null}, {Name: "b", Cache: null}},
		"Null":         {{Name: "a", Cache: null}, {Name: "b", Cache: newCluster(t).start(nil)}},
	} {
		if s, err := pgcache.NewShards(list...); s != nil || err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("want %q: %v", says, err)
		}
	}
	s := nullShards(t, "a", "b")
	ok(t, s.Migrate(t.Context()))
	ok(t, s.Ready(t.Context()))
	ok(t, s.Set(t.Context(), "k", 1))
	wantOn(t, s, "k", 0, false)
	ok(t, s.Move(t.Context(), "b"))
	if s.Owner("k") != "b" {
		t.Error(s.Owner("k"))
	}
	ok(t, s.Close())
	if err := s.Set(t.Context(), "k", 1); !errors.Is(err, pgcache.ErrClosed) {
		t.Error(err)
	}
}

// The sums are of all fields, so that one that is added to Stats is not forgotten.
func TestShards_Stats(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	s := w.node("a", "b")
	v := pgcache.ForShards[int](s, pgcache.Namespace("n"))
	for i := range 20 {
		ok(t, v.Set(t.Context(), fmt.Sprint(i), i))
	}
	if st := s.Stats(); st.Sets != 20 || st.Views["n"].Sets != 20 || st.Window == 0 {
		t.Errorf("%+v", st)
	}
}

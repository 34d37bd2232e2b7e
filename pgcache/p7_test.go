package pgcache_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// P7 and P2 with a LocalTTL: memory serves for so long after it asked, and no longer than the row lives.
func TestP7_LocalTTL(t *testing.T) {
	t.Parallel()
	const short, long = 150 * time.Millisecond, time.Hour
	for name, tt := range map[string]struct{ local, row time.Duration }{
		"shorter than the row's life": {short, long},
		"longer than the row's life":  {long, short},
	} {
		for how, put := range map[string]func(t *testing.T, own, other *pgcache.Cache){
			"read":    func(t *testing.T, _, other *pgcache.Cache) { set(t, other, "k", 1, pgcache.TTL(tt.row)) },
			"written": func(t *testing.T, own, _ *pgcache.Cache) { set(t, own, "k", 1, pgcache.TTL(tt.row)) },
			"loaded": func(t *testing.T, own, _ *pgcache.Cache) {
				if err := own.GetOrSet(t.Context(), "k", new(int), func(context.Context) (any, error) { return 1, nil }, pgcache.TTL(tt.row)); err != nil {
					t.Error(err)
				}
			},
		} {
			t.Run(how+", "+name, func(t *testing.T) {
				t.Parallel()
				cl := newCluster(t)
				other := cl.node(nil)
				own := cl.on(testdb.DB(t), func(o *pgcache.Options) { o.LocalTTL = tt.local })
				var kept time.Time
				for own.Stats().LocalHits == 0 { // on a slow machine its time may be over too soon
					put(t, own, other)
					get[int](t, own, "k")
					kept = time.Now()
					get[int](t, own, "k")
				}
				cl.exec("UPDATE " + cl.table() + " SET value = '2', expires_at = NULL") // own is silent
				for {
					began := time.Now()
					if v, found := get[int](t, own, "k"); found && v == 2 {
						break
					}
					if late := began.Sub(kept) - short; late > 0 {
						t.Fatalf("%v beyond its time, memory serves what was there before", late)
					}
				}
			})
		}
	}
}

// P7: the time that is left is the database's to say, whatever the row was written with, and one that takes the place of
// an expired row that was removed, which is not published, is seen at once.
func TestP7_TheDatabaseCounts(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	cl.opts.InvalidationWindow = pgcache.Immediate // so that what is published comes in the order of the writes
	cl.opts.CleanupInterval = -1                   // what has expired is removed below
	a, b := cl.node(nil), cl.node(nil)
	caughtUp := cl.follow(a, b, nil)
	set(t, a, "k", 1, pgcache.TTL(pgcache.NoExpiry))
	for life, held := time.Second, false; !held; life *= 2 { // on a busy machine it may be over before b has it in memory
		if life > time.Minute {
			t.Fatal("b has it never in memory")
		}
		cl.exec("UPDATE "+cl.table()+" SET expires_at = clock_timestamp() + $1::int * interval '1 ms' WHERE key = 'k'", life.Milliseconds())
		caughtUp()
		for found := true; found && !held; {
			before := b.Stats().LocalHits
			_, found = get[int](t, b, "k")
			held = found && b.Stats().LocalHits > before
		}
	}
	var left float64
	asked := time.Now()
	if err := cl.db.QueryRowContext(t.Context(), "SELECT date_part('epoch', expires_at - clock_timestamp()) FROM "+cl.table()+" WHERE key = 'k'").Scan(&left); err != nil {
		t.Fatal(err)
	}
	expired := time.Now().Add(time.Duration(left * float64(time.Second)))
	early := asked.Add(time.Duration(left * float64(time.Second)))
	for {
		began := time.Now()
		_, found := get[int](t, b, "k")
		if found && began.After(expired.Add(50*time.Millisecond)) {
			t.Fatalf("served %v after it expired", began.Sub(expired))
		}
		if !found {
			if now := time.Now(); now.Before(early) {
				t.Errorf("gone %v before it expires", early.Sub(now))
			}
			break
		}
	}
	if n, err := a.Cleanup(t.Context()); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	before := b.Stats().Invalidations
	set(t, a, "k", 2)
	want(t, b, "k", 2)
	if published := b.Stats().Invalidations - before; published != 0 {
		t.Errorf("%d keys published, this should be silent", published)
	}
}

// P7: nothing is returned that nobody wrote, nor a mixture of what was written: a row that decodes halfway, and what is
// loaded in its place.
func TestP7_NoMixture(t *testing.T) {
	t.Parallel()
	type pair struct {
		A int    `json:",omitempty"`
		B string `json:",omitempty"`
	}
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)
	loader := func(context.Context) (pair, error) { return pair{A: 7}, nil }
	for _, c := range []*pgcache.Cache{a, b} { // who wrote it has it in memory
		for name, load := range map[string]func(key string) (pair, error){
			"typed": func(key string) (pair, error) { return pgcache.For[pair](c).GetOrSet(t.Context(), key, loader) },
			"untyped": func(key string) (p pair, err error) {
				err = c.GetOrSet(t.Context(), key, &p, func(ctx context.Context) (any, error) { return loader(ctx) })
				return p, err
			},
			"many": func(key string) (pair, error) {
				m, err := pgcache.For[pair](c).GetOrSetMany(t.Context(), []string{key}, func(context.Context, []string) (map[string]pair, error) {
					return map[string]pair{key: {A: 7}}, nil
				})
				return m[key], err
			},
		} {
			set(t, a, name, map[string]any{"B": "half", "A": "not a number"})
			if p, found := get[pair](t, c, name); found || p != (pair{}) {
				t.Errorf("Get: %+v, %v", p, found)
			}
			if p, found, err := pgcache.For[pair](c).Get(t.Context(), name); found || err != nil || p != (pair{}) {
				t.Errorf("Get of a type: %+v, %v, %v", p, found, err)
			}
			if p, err := load(name); err != nil || p != (pair{A: 7}) {
				t.Errorf("%s: %+v, %v", name, p, err)
			}
		}
	}
}

// P7: nothing that was never written, also where nobody would ever put it right.
func TestP7_FailedWrite(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.on(testdb.DB(t), func(o *pgcache.Options) { o.LocalTTL = time.Hour })
	cl.exec("ALTER TABLE " + cl.table() + " ADD CHECK (value <> '13')")
	typed := pgcache.For[int](c)
	for name, write := range map[string]func() error{
		"Set":     func() error { return c.Set(t.Context(), "k", 13) },
		"SetMany": func() error { return typed.SetMany(t.Context(), map[string]int{"k": 13, "l": 1}) },
	} {
		set(t, c, "k", 1)
		warm(t, c, "k", 1)
		if err := write(); err == nil {
			t.Fatal("it was written")
		}
		for range 2 {
			if v, _ := get[int](t, c, "k"); v != 1 {
				t.Errorf("%s failed, and Get returns %d", name, v)
			}
		}
	}
	var v int
	if err := c.GetOrSet(t.Context(), "loaded", &v, func(context.Context) (any, error) { return 13, nil }); err != nil || v != 13 {
		t.Error(v, err) // handed out, though it can't be stored
	}
	wantNone(t, c, "loaded")
	wantNone(t, c, "l")
}

// P7: nothing is served after its expiry + 50 ms.
func TestP7_Expiry(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a, b := cl.node(nil), cl.node(nil)
	typed := pgcache.For[int](b)
	shared := pgcache.For[*user](b, pgcache.Namespace("shared"), pgcache.Shared())
	for round := range 2 {
		key := strconv.Itoa(round)
		expired := func() bool {
			return cl.count("SELECT count(*) FROM "+cl.table()+" WHERE expires_at + interval '50 ms' > clock_timestamp()") == 0
		}
		inMemory := func(c *pgcache.Cache) bool {
			before := c.Stats().LocalHits
			_, found := get[int](t, c, key)
			return found && c.Stats().LocalHits > before
		}
		for ttl, held := 500*time.Millisecond, false; !held; ttl *= 2 { // on a busy machine it may be over before they have it in memory
			if ttl > time.Minute {
				t.Fatal("they have it never in memory")
			}
			set(t, a, key, 1, pgcache.TTL(ttl))
			set(t, b, "shared:"+key, &user{ID: 1}, pgcache.TTL(ttl))
			for !held && !expired() {
				held = inMemory(a) && inMemory(b)
			}
		}
		for !expired() {
			_, _, err1 := typed.Get(t.Context(), key)
			_, _, err2 := shared.Get(t.Context(), key)
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
		}
		wantNone(t, a, key)
		wantNone(t, b, key)
		if _, found, err := typed.Get(t.Context(), key); found || err != nil {
			t.Error(found, err)
		}
		if _, found, err := shared.Get(t.Context(), key); found || err != nil {
			t.Error(found, err)
		}
		if m, err := typed.GetMany(t.Context(), []string{key}); len(m) != 0 || err != nil {
			t.Error(m, err)
		}
	}
	if s := b.Stats(); s.LocalHits < 4 {
		t.Errorf("it was never in memory: %+v", s)
	}
}

// P7: what a load found in place of its own value ends when its row does, also for a caller of many keys who waits for another.
func TestP7_NewerThanTheLoad(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.on(testdb.DB(t), nil)
	c, w := cl.wired(func(o *pgcache.Options) { o.LockTimeout = time.Minute })
	la, lc := newLoader(1), newLoader(1)
	first := async(t, func() error { return a.GetOrSet(t.Context(), "slow", new(int), la.load) })
	la.wait(t)
	many := async(t, func() map[string]int {
		m, err := pgcache.For[int](c).GetOrSetMany(t.Context(), []string{"slow", "k"}, func(ctx context.Context, _ []string) (map[string]int, error) {
			_, err := lc.load(ctx)
			return map[string]int{"k": 1}, err
		})
		if err != nil {
			t.Error(err)
		}
		return m
	})
	lc.wait(t)
	set(t, a, "k", 5, pgcache.TTL(time.Second))
	reads := w.count(named("GetEntr"))
	lc.release()
	eventually(t, "it reads what is newer", func() bool { return w.count(named("GetEntr")) > reads })
	eventually(t, "that has expired", func() bool {
		return cl.count("SELECT count(*) FROM "+cl.table()+" WHERE key = 'k' AND expires_at + interval '50 ms' > clock_timestamp()") == 0
	})
	la.release()
	if m := many(); m["slow"] != 1 || m["k"] != 1 {
		t.Errorf("%v: it has expired", m)
	}
	if err := first(); err != nil {
		t.Error(err)
	}
}

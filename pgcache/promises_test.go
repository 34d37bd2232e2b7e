package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// The tests named TestPn hold what is promised of coherence, each against the interleaving that would break it.

// P1: after a node applied an invalidation, no Get that starts later on it returns anything older: not even one that
// finds an older read of the same key under way.
func TestP1_JoinsNoReadFromBefore(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func(ctx context.Context, c *pgcache.Cache) (string, error){
		"Get": func(ctx context.Context, c *pgcache.Cache) (v string, err error) {
			_, err = c.Get(ctx, "k", &v)
			return v, err
		},
		"GetMany": func(ctx context.Context, c *pgcache.Cache) (string, error) {
			m, err := pgcache.For[string](c).GetMany(ctx, []string{"k", "l"})
			return m["k"], err
		},
		"GetOrSet": func(ctx context.Context, c *pgcache.Cache) (v string, err error) {
			err = c.GetOrSet(ctx, "k", &v, func(context.Context) (any, error) { return "", errors.New("it is there") })
			return v, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			a := cl.node(nil)
			b, wire := cl.wired(nil)
			set(t, a, "k", "v1")
			caughtUp := cl.follow(a, b, wire)
			reply := wire.after("cache_entries")
			first := async(t, func() string { v, err := read(t.Context(), b); return fmt.Sprint(v, err) })
			reply.wait(t)
			set(t, a, "k", "v2")
			caughtUp()
			if err := wire.unstopped(func() error {
				v, err := read(t.Context(), b)
				if v != "v2" {
					t.Errorf("a read that began after the invalidation returned %q", v)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			reply.release()
			if got := first(); got != "v1<nil>" {
				t.Errorf("the first read: %s", got)
			}
			want(t, b, "k", "v2")
			want(t, b, "k", "v2")
		})
	}
}

// P1 again, for "forget everything": a read from before must not fill the memory.
func TestP1_ForgetKillsReads(t *testing.T) {
	t.Parallel()
	for name, forget := range map[string]func(cl *cluster, a *pgcache.Cache){
		"Clear":    func(_ *cluster, a *pgcache.Cache) { _ = a.Clear(context.Background()) },
		"TRUNCATE": func(cl *cluster, _ *pgcache.Cache) { cl.exec("TRUNCATE " + cl.table()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			a := cl.node(nil)
			b, wire := cl.wired(nil)
			set(t, a, "k", "v1")
			reply := wire.after(named("GetEntry"))
			first := async(t, func() error { _, err := b.Get(t.Context(), "k", new(string)); return err })
			reply.wait(t)
			before := b.Stats().LocalFlushes
			forget(cl, a)
			eventually(t, "b forgets everything", func() bool { return b.Stats().LocalFlushes > before })
			reply.release()
			if err := first(); err != nil {
				t.Fatal(err)
			}
			wantNone(t, b, "k")
		})
	}
}

// P2: with a live listener, staleness is at most heartbeat + timeout, also where the link is silently gone.
func TestP2_SilentLink(t *testing.T) {
	t.Parallel()
	const beat, timeout = 200 * time.Millisecond, 300 * time.Millisecond
	cl := newCluster(t)
	a := cl.node(nil)
	link := testdb.NewProxy(t, testdb.DSN(t))
	b := cl.node(func(_ *sql.DB, o *pgcache.Options) {
		o.Listener = listener.New(pgxdriver.DialDSN(link.DSN()), listener.Config{HeartbeatEvery: beat, HeartbeatTimeout: timeout})
	})
	set(t, a, "k", 1)
	warm(t, b, "k", 1)
	link.Freeze()
	set(t, a, "k", 2)
	bound := time.Now().Add(beat + timeout)
	for {
		began := time.Now()
		v, _ := get[int](t, b, "k")
		if v == 2 {
			break
		}
		if began.After(bound) {
			t.Fatalf("stale %v after the bound", began.Sub(bound))
		}
	}
	for v := 3; v < 6; v++ { // and not live until the link is back
		set(t, a, "k", v)
		want(t, b, "k", v)
	}
	link.Thaw()
	warm(t, b, "k", 5)
}

// P2: ordinarily, it is the time that a notification takes, and the window.
func TestP2_Delivery(t *testing.T) {
	t.Parallel()
	forWindows(t, func(t *testing.T, cl *cluster) {
		a, b := cl.node(nil), cl.node(nil)
		for v := range 25 {
			set(t, a, "k", v)
			for told := time.Now(); ; {
				began := time.Now()
				if got, _ := get[int](t, b, "k"); got == v {
					break
				}
				if late := began.Sub(told); late > time.Second {
					t.Fatalf("stale for %v", late)
				}
			}
		}
	})
}

// P3: a node reads its own writes. A read that began while the write was under way saw the row from before it.
func TestP3_OwnWrites(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(ctx context.Context, c *pgcache.Cache) error{
		"Set":    func(ctx context.Context, c *pgcache.Cache) error { return c.Set(ctx, "k", "new") },
		"Delete": func(ctx context.Context, c *pgcache.Cache) error { return c.Delete(ctx, "k") },
		"SetMany": func(ctx context.Context, c *pgcache.Cache) error {
			return pgcache.For[string](c).SetMany(ctx, map[string]string{"k": "new", "l": "new"})
		},
		"Clear": func(ctx context.Context, c *pgcache.Cache) error { return c.Clear(ctx) },
	} {
		for _, deaf := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/deaf=%v", name, deaf), func(t *testing.T) {
				t.Parallel()
				cl := newCluster(t)
				c, wire := cl.wired(func(o *pgcache.Options) {
					if deaf { // nobody tells the node of its own writes
						o.Listener, o.LocalTTL = nil, time.Hour
					}
				})
				set(t, c, "k", "old")
				del(t, c, "k") // not in memory
				set(t, c, "k", "old")
				warm(t, c, "k", "old")
				stmt := "cache_entries"
				if name == "Clear" {
					stmt = named("FenceLoads")
				}
				sending := wire.before(stmt)
				written := async(t, func() error { return write(t.Context(), c) })
				sending.wait(t)

				var read func() error
				reply := wire.after(named("GetEntry"))
				_ = wire.without(sending, func() error {
					read = async(t, func() error { _, err := c.Get(t.Context(), "k", new(string)); return err })
					reply.wait(t)
					return nil
				})
				sending.release()
				if err := written(); err != nil {
					t.Fatal(err)
				}
				reply.release()
				if err := read(); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					v, found := get[string](t, c, "k")
					if name == "Delete" || name == "Clear" {
						if found {
							t.Errorf("%q is there", v)
						}
					} else if v != "new" {
						t.Errorf("%q, %v", v, found)
					}
				}
			})
		}
	}
}

// P3 where the outcome of a write is unknown: memory must not hold the value from before, nor the other one.
func TestP3_UnknownOutcome(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c, wire := cl.wired(nil)
	lost := errors.New("the reply was lost")
	for name, write := range map[string]func() error{
		"PutEntry": func() error { return c.Set(t.Context(), "k", "new") },
		"PutEntries": func() error {
			return pgcache.For[string](c).SetMany(t.Context(), map[string]string{"k": "new", "l": "new"})
		},
	} {
		set(t, c, "k", "old")
		warm(t, c, "k", "old")
		reply := wire.lose(named(name), lost)
		if err := write(); !errors.Is(err, lost) {
			t.Fatal(err)
		}
		reply.release()
		cl.exec("UPDATE " + cl.table() + " SET version = 1, value = '\"newer\"' WHERE key = 'k'") // nobody tells this
		want(t, c, "k", "newer")
	}
	set(t, c, "k", "old")
	warm(t, c, "k", "old")
	reply := wire.lose(named("TellAll"), lost)
	if err := c.Clear(t.Context()); !errors.Is(err, lost) {
		t.Fatal(err)
	}
	reply.release()
	want(t, c, "k", "old") // rolled back
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

// P3 where writes of one key overlap on one node: which of them the database took last, the node cannot know by itself.
func TestP3_OverlappingWrites(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	// Nobody tells the node of its own writes, so a wrong guess would stay.
	c := cl.on(testdb.DB(t), func(o *pgcache.Options) { o.LocalTTL = time.Hour })
	for round := range 250 {
		var wg sync.WaitGroup
		for w := range 3 {
			wg.Go(func() {
				var err error
				if w < 2 {
					err = c.Set(t.Context(), "k", round*10+w)
				} else {
					err = pgcache.For[int](c).SetMany(t.Context(), map[string]int{"k": round*10 + w, "l": 1})
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		v, _ := get[int](t, c, "k")
		if row := cl.count("SELECT convert_from(value, 'UTF8')::int FROM " + cl.table() + " WHERE key = 'k'"); v != row {
			t.Fatalf("round %d: the row is %d, Get says %d", round, row, v)
		}
	}
}

// P4: a node never goes back for a key. While its listener lags, a read that went to the database returned v2: neither
// an entry in memory nor a write that is under way may bring v1 back.
func TestP4_NeverBack(t *testing.T) {
	t.Parallel()
	lagging := func(t *testing.T) (cl *cluster, a, b *pgcache.Cache, link *testdb.Proxy, w *wire) {
		cl = newCluster(t)
		a = cl.node(nil)
		link = testdb.NewProxy(t, testdb.DSN(t))
		b, w = cl.wired(func(o *pgcache.Options) {
			o.Listener = calm(pgxdriver.DialDSN(link.DSN()))
		})
		t.Cleanup(link.Thaw)
		return cl, a, b, link, w
	}
	t.Run("an entry in memory", func(t *testing.T) {
		t.Parallel()
		_, a, b, link, _ := lagging(t)
		set(t, a, "k", "v1")
		warm(t, b, "k", "v1")
		link.Freeze()
		set(t, a, "k", "v2")
		want(t, b, "k", "v1") // it cannot know yet
		// A view with another codec asks the database, and so b has seen v2.
		if _, found, err := pgcache.For[string](b, pgcache.WithCodec(codec.Gob{})).Get(t.Context(), "k"); found || err != nil {
			t.Fatal(found, err)
		}
		want(t, b, "k", "v2")
		warm(t, b, "k", "v2")
		del(t, a, "k")
		want(t, b, "k", "v2")
		if _, found, err := pgcache.For[string](b, pgcache.WithCodec(codec.Gob{})).Get(t.Context(), "k"); found || err != nil {
			t.Fatal(found, err)
		}
		wantNone(t, b, "k")
	})
	t.Run("a read under way", func(t *testing.T) {
		t.Parallel()
		_, a, b, link, wire := lagging(t)
		set(t, a, "k", "v1")
		link.Freeze()
		reply := wire.after(named("GetEntry"))
		first := async(t, func() error { _, err := b.Get(t.Context(), "k", new(string)); return err })
		reply.wait(t)
		set(t, a, "k", "v2")
		m, err := pgcache.For[string](b).GetMany(t.Context(), []string{"k", "l"})
		if err != nil || m["k"] != "v2" {
			t.Fatal(m, err)
		}
		reply.release()
		if err := first(); err != nil {
			t.Fatal(err)
		}
		want(t, b, "k", "v2")
	})
	t.Run("a write under way", func(t *testing.T) {
		t.Parallel()
		_, a, b, link, wire := lagging(t)
		set(t, a, "k", "v0")
		link.Freeze()
		reply := wire.after(named("PutEntry"))
		written := async(t, func() error { return b.Set(t.Context(), "k", "v1") })
		reply.wait(t)
		set(t, a, "k", "v2")
		want(t, b, "k", "v2")
		reply.release()
		if err := written(); err != nil {
			t.Fatal(err)
		}
		want(t, b, "k", "v2")
	})
	t.Run("under load", func(t *testing.T) {
		t.Parallel()
		const keys, writes = 4, 300
		cl := newCluster(t)
		nodes := []*pgcache.Cache{cl.node(nil), cl.node(nil)}
		var wg sync.WaitGroup
		var stop atomic.Bool
		// One writer a key, so that its numbers only grow; the key's own node reads it back at once (P3).
		for k := range keys {
			wg.Go(func() {
				defer stop.Store(true)
				key, c := strconv.Itoa(k), nodes[k%len(nodes)]
				for v := 1; v <= writes && !t.Failed(); v++ {
					set := c.Set(t.Context(), key, v)
					var got int
					if _, err := c.Get(t.Context(), key, &got); err != nil || set != nil || got != v {
						t.Errorf("%s: wrote %d, then read %d; %v, %v", key, v, got, set, err)
					}
				}
			})
		}
		for r := range 4 {
			wg.Go(func() {
				c, last := nodes[r%len(nodes)], map[string]int{}
				for i := 0; !stop.Load(); i++ {
					key := strconv.Itoa(i % keys)
					var v int
					if _, err := c.Get(t.Context(), key, &v); err != nil || v < last[key] {
						t.Errorf("%s: %d after %d, %v", key, v, last[key], err)
					}
					last[key] = v
				}
			})
		}
		wg.Wait()
	})
}

// P5: not provably live, every Get asks the database, also while a read of the same key is under way.
func TestP5_NotLive(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.node(nil)
	link := testdb.NewProxy(t, testdb.DSN(t))
	b, wire := cl.wired(func(o *pgcache.Options) { o.Listener = pgxdriver.ListenerDSN(link.DSN()) })
	set(t, a, "k", 0)
	warm(t, b, "k", 0)
	before := b.Stats()
	link.Cut()
	eventually(t, "b knows", func() bool { return b.Stats().LocalFlushes > before.LocalFlushes })
	before = b.Stats()
	for v := 1; v <= 20; v++ {
		set(t, a, "k", v)
		want(t, b, "k", v)
	}
	if s := b.Stats(); s.LocalHits != before.LocalHits || s.RemoteHits != before.RemoteHits+20 {
		t.Errorf("before %+v, after %+v", before, s)
	}
	// Nothing is told now that would kill a read, so nobody may join one. (Slow ones are never joined: be quick.)
	var first func() error
	var reply *stop
	for v := 21; v < 31; v++ {
		reply = wire.after(named("GetEntry"))
		first = async(t, func() error { _, err := b.Get(t.Context(), "k", new(int)); return err })
		reply.wait(t)
		set(t, a, "k", v)
		_ = wire.unstopped(func() error { want(t, b, "k", v); return nil })
		reply.release()
		if err := first(); err != nil {
			t.Fatal(err)
		}
	}
	// What was read while it was down, is not in memory when it is live again.
	reply = wire.after(named("GetEntry"))
	first = async(t, func() error { _, err := b.Get(t.Context(), "k", new(int)); return err })
	reply.wait(t)
	set(t, a, "k", 32)
	link.Restore()
	cl.ready(b)
	reply.release()
	if err := first(); err != nil {
		t.Fatal(err)
	}
	want(t, b, "k", 32)
	warm(t, b, "k", 32)
	// Nor what was written before it was down, if it is heard of only after.
	reply = wire.after(named("PutEntry"))
	first = async(t, func() error { return b.Set(t.Context(), "k", 33) })
	reply.wait(t)
	before = b.Stats()
	link.Cut()
	eventually(t, "b knows", func() bool { return b.Stats().LocalFlushes > before.LocalFlushes })
	set(t, a, "k", 34)
	eventually(t, "the log is flushed", func() bool { // by a, as b does not hear of it
		return cl.count("SELECT count(*) FROM "+strings.TrimSuffix(cl.table(), "entries")+"changes") == 0
	})
	link.Restore()
	cl.ready(b)
	reply.release()
	if err := first(); err != nil {
		t.Fatal(err)
	}
	want(t, b, "k", 34)
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
		set(t, a, key, 1, pgcache.TTL(500*time.Millisecond))
		set(t, b, "shared:"+key, &user{ID: 1}, pgcache.TTL(500*time.Millisecond))
		warm(t, b, key, 1)
		warm(t, a, key, 1)
		expired := func() bool {
			return cl.count("SELECT count(*) FROM "+cl.table()+" WHERE expires_at + interval '50 ms' > clock_timestamp()") == 0
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

// beater is a listener that does what a test tells it, and hears nothing.
type beater struct{ trusted chan time.Time }

func (l beater) Listen(ctx context.Context, _ string, sub pgcache.Subscriber) error {
	for {
		select {
		case t := <-l.trusted:
			sub.Beat(t)
		case <-ctx.Done():
			return nil
		}
	}
}

// P5 where the listener itself does not come to say that it is down: a process that was stopped, or is too busy.
func TestP5_Silence(t *testing.T) {
	t.Parallel()
	const silence = 300 * time.Millisecond
	cl := newCluster(t)
	a := cl.on(testdb.DB(t), nil)
	beats := beater{make(chan time.Time)}
	b := cl.new(testdb.DB(t), func(o *pgcache.Options) { o.Listener = beats })
	set(t, a, "k", 1)
	want(t, b, "k", 1)
	want(t, b, "k", 1)
	if n := b.Stats().LocalHits; n != 0 {
		t.Errorf("%d hits before the first beat", n)
	}
	beats.trusted <- time.Now().Add(time.Minute)
	warm(t, b, "k", 1)
	trusted := time.Now().Add(silence)
	beats.trusted <- trusted
	set(t, a, "k", 2)
	time.Sleep(time.Until(trusted))
	before := b.Stats().LocalHits
	want(t, b, "k", 2)
	want(t, b, "k", 2)
	if n := b.Stats().LocalHits; n != before {
		t.Errorf("%d hits after the silence", n-before)
	}
	// What was read meanwhile is not in memory either, and with the next beat all is well.
	beats.trusted <- time.Now().Add(time.Minute)
	warm(t, b, "k", 2)
}

// P5 where rows come from another server than notifications, as after a failover: memory is off until the listener has
// begun anew. (The identity of the server comes with the echo of a probe, so a forged one is another server.)
func TestP5_AnotherServer(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a, b := cl.on(testdb.DB(t), nil), cl.node(nil) // a has no listener, and so no probe that would put things right
	for name, use := range map[string]func() error{
		"Get":     func() error { _, err := b.Get(t.Context(), "other", new(int)); return err },
		"GetMany": func() error { _, err := pgcache.For[int](b).GetMany(t.Context(), []string{"other"}); return err },
		"Set":     func() error { return b.Set(t.Context(), "other", 1) },
	} {
		set(t, a, "k", 1)
		set(t, a, "other", 1)
		caughtUp := cl.follow(a, b, nil)
		warm(t, b, "k", 1)
		del(t, b, "other")
		set(t, a, "other", 1)
		caughtUp()
		before := b.Stats().LocalFlushes
		cl.exec("SELECT pg_notify($1, $2)", cl.names().Channel, pgcache.ProbePrefix+"forged:123")
		// The mark is an old entry still, of before.
		set(t, a, "mark", 0)
		eventually(t, "b hears", func() bool { v, _ := get[int](t, b, "mark"); return v == 0 })
		if err := use(); err != nil {
			t.Fatal(err)
		}
		if n := b.Stats().LocalFlushes; n == before {
			t.Errorf("%s: a row of another server, and b trusts its listener", name)
		}
		eventually(t, "b is live again", func() bool { return b.Ready(t.Context()) == nil })
		warm(t, b, "k", 1)
	}
}

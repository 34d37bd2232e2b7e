package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/driver/pqdriver"
	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// TestOneConnection: Caches of one process that share a database share one listening connection, and each receives its own
// channel.
func TestOneConnection(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		one, two := newCluster(t), newCluster(t)
		name := one.opts.Schema
		dsn := testdb.WithParam(testdb.DSN(t), "application_name", name)
		db := testdb.Open(t, driver, testdb.DSN(t))
		listen := func() pgcache.Listener {
			if driver == "postgres" {
				return pqdriver.Listener(dsn)
			}
			return pgxdriver.ListenerDSN(dsn)
		}
		sessions := func() int {
			return one.count("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", name)
		}
		var caches []*pgcache.Cache
		for _, cl := range []*cluster{one, two, one} {
			caches = append(caches, cl.on(db, func(o *pgcache.Options) { o.Listener = listen() }))
		}
		oneListens := func() { // on a busy machine it may be connecting anew
			t.Helper()
			eventually(t, "one connection listens", func() bool { return sessions() == 1 })
		}
		oneListens()
		if driver == "pgx" { // the same on a connection of the pool
			pool := testdb.DB(t)
			for _, cl := range []*cluster{one, two} {
				cl.on(pool, func(o *pgcache.Options) { o.Listener = pgxdriver.Listener(pool) })
			}
			eventually(t, "two connections are in use, to listen and for the session", func() bool { return pool.Stats().InUse == 2 })
		}
		writers := []*pgcache.Cache{one.node(nil), two.node(nil)}
		receives := func(cl *cluster, c, writer, other *pgcache.Cache) {
			t.Helper()
			v := rand.Int64()
			set(t, other, "k", v-1)
			set(t, c, "k", int64(0))
			before := c.Stats().Invalidations
			set(t, writer, "k", v)
			eventually(t, "it receives its own channel", func() bool {
				got, _ := get[int64](t, c, "k")
				return got == v && c.Stats().Invalidations > before
			})
			cl.follow(writer, c, nil)() // what was written into its own cache before
			before = c.Stats().Invalidations
			for i := range 40 {
				set(t, other, strconv.Itoa(i%20), i)
			}
			want(t, c, "k", v)
			time.Sleep(2 * pgcache.DefaultWindow)
			if n := c.Stats().Invalidations - before; n > 2 { // at the most what it had still to receive of its own
				t.Errorf("it has received %d changes of another cache", n)
			}
		}
		receives(one, caches[0], writers[0], writers[1])
		receives(two, caches[1], writers[1], writers[0])
		caches[0].Close()
		receives(two, caches[1], writers[1], writers[0])
		receives(one, caches[2], writers[0], writers[1])
		caches[2].Close()
		receives(two, caches[1], writers[1], writers[0])
		oneListens()
		caches[1].Close()
		eventually(t, "the connection is closed with the last Cache", func() bool { return sessions() == 0 })
	})
}

// TestFewNotifications: what four nodes write in a moment is published in a few notifications, and a lone write in one.
func TestFewNotifications(t *testing.T) {
	t.Parallel()
	const window = 100 * time.Millisecond
	cl := newCluster(t)
	var nodes []*pgcache.Cache
	for range 4 {
		nodes = append(nodes, cl.node(func(_ *sql.DB, o *pgcache.Options) { o.InvalidationWindow = window }))
	}
	immediate := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.InvalidationWindow = pgcache.Immediate })
	for k := range 4 {
		set(t, nodes[0], strconv.Itoa(k), 0)
	}
	recorder := cl.record()
	quiet := 2 * window
	inTime(t, func() error {
		time.Sleep(quiet) // the system falls quiet
		recorder.received()
		set(t, nodes[0], "0", rand.Int())
		quiet = 2 * pgcache.DefaultMaxWindow // a busy machine stretches windows
		if published := recorder.received(); len(published) != 1 || published[0][0] != notify.Inline {
			return fmt.Errorf("a lone write was published in %q", published)
		}
		return nil
	})
	began := time.Now()
	var wg sync.WaitGroup
	for n, c := range nodes {
		wg.Go(func() {
			for i := range 25 {
				set(t, c, strconv.Itoa(n), i)
			}
		})
	}
	wg.Wait()
	eventually(t, "the log is empty", func() bool {
		return cl.count("SELECT count(*) FROM "+cl.opts.Schema+"."+cl.opts.Prefix+"cache_changes") == 0
	})
	published, windows := recorder.received(), int(time.Since(began)/window)+1
	if len(published) == 0 || len(published) > 4+2*windows {
		t.Errorf("100 writes were published in %d notifications within %d windows", len(published), windows)
	}
	versions := map[int64]bool{}
	for _, payload := range published {
		m, err := notify.Parse(payload)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Items(func(_ string, vs []int64) {
			for _, v := range vs {
				versions[v] = true
			}
		}, func(notify.Group) {}, func() { t.Error("everything was to be forgotten") }); err != nil {
			t.Error(err)
		}
	}
	if len(versions) < 4 || len(versions) > 100 {
		t.Errorf("%d versions were published", len(versions))
	}
	for range 20 {
		set(t, immediate, "0", rand.Int())
	}
	inline := 0
	for _, payload := range recorder.received() {
		if payload[0] == notify.Inline {
			inline++
		}
	}
	if inline != 20 {
		t.Errorf("20 writes of an immediate node were published in %d notifications of their own", inline)
	}
}

// TestOneSetOneWrite: where the reply of a write is lost nobody knows whether it was done. To send it again would do it
// twice, the second time over what was written since: nodes would go from v1 to v2 and back (P4).
func TestOneSetOneWrite(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(ctx context.Context, c *pgcache.Cache) error{
		"PutEntry": func(ctx context.Context, c *pgcache.Cache) error { return c.Set(ctx, "k", "v1") },
		"PutEntries": func(ctx context.Context, c *pgcache.Cache) error {
			return pgcache.For[string](c).SetMany(ctx, map[string]string{"k": "v1", "l": "v1"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			a, wire := cl.wired(nil)
			b, c := cl.node(nil), cl.node(nil)
			set(t, c, "k", "v0")
			warm(t, b, "k", "v0")
			reply := wire.after(named(name))
			wire.lose(named(name), io.ErrUnexpectedEOF)
			written := async(t, func() error { return write(t.Context(), a) })
			reply.wait(t)
			warm(t, b, "k", "v1")
			set(t, c, "k", "v2")
			warm(t, b, "k", "v2")
			reply.release()
			if err := written(); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Error(err)
			}
			if v := cl.value("k"); v != `"v2"` {
				t.Errorf("the row has %s again", v)
			}
		})
	}
}

// TestClosePublishes: what a node has written when it is closed, is published by then.
func TestClosePublishes(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	const slow = 30 * time.Second // nobody flushes by itself here, and no sweep is to help
	a := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.InvalidationWindow = slow })
	b := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.InvalidationWindow = slow })
	var wg sync.WaitGroup
	for i := range 8 {
		set(t, a, strconv.Itoa(i), 0)
	}
	var written [8]atomic.Int64
	for i := range written {
		warm(t, b, strconv.Itoa(i), 0)
		wg.Go(func() {
			for v := int64(1); ; v++ {
				if err := a.Set(context.Background(), strconv.Itoa(i), v); err != nil { //nolint:usetesting // it ends with Close
					if !errors.Is(err, pgcache.ErrClosed) {
						t.Error(err)
					}
					return
				}
				written[i].Store(v)
			}
		})
	}
	eventually(t, "writes are under way", func() bool { return written[0].Load() > 10 })
	a.Close()
	wg.Wait()
	if n := cl.count("SELECT count(*) FROM " + cl.opts.Schema + "." + cl.opts.Prefix + "cache_changes"); n > 0 {
		t.Errorf("%d changes are in the log that nobody flushes", n)
	}
	for i := range written {
		eventually(t, "b has received", func() bool {
			v, _ := get[int64](t, b, strconv.Itoa(i))
			return v == written[i].Load()
		})
	}
}

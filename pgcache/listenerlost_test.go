package pgcache_test

import (
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// The Python library's listener died with its connection, once and for all, and memory went on answering.
func TestListenerLost(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		a := cl.node(nil)
		name := cl.opts.Schema + " listener"
		dsn := testdb.WithParam(testdb.DSN(t), "application_name", name)
		b := cl.node(func(_ *sql.DB, o *pgcache.Options) {
			if o.Listener = pgxdriver.ListenerDSN(dsn); driver == "postgres" {
				o.Listener = listenerOf(driver, nil, dsn)
			}
		})
		for round := range 3 {
			set(t, a, "k", round)
			warm(t, b, "k", round)
			before := b.Stats().LocalFlushes
			eventually(t, "b has one listener", func() bool {
				return cl.count("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", name) == 1
			})
			cl.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", name)
			set(t, a, "k", 100+round)
			eventually(t, "b notices", func() bool { return b.Stats().LocalFlushes > before })
			want(t, b, "k", 100+round)
			warm(t, b, "k", 100+round) // and is live again
		}
	})
}

// The Python library's queue held 2048 notifications; what did not fit was dropped.
func TestManyNotifications(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.node(nil)
	link := testdb.NewProxy(t, testdb.DSN(t))
	b := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.Listener = calm(pgxdriver.DialDSN(link.DSN())) })
	set(t, a, "k", "old")
	warm(t, b, "k", "old")
	caughtUp := cl.follow(a, b, nil)
	before := b.Stats().Invalidations
	link.Freeze()
	cl.exec(`SELECT pg_notify(channel, '2' || id || '5:other' || lpad(to_hex(i), 16, '0') || ';') FROM ` + cl.names().State() + `, generate_series(1, 5000) i`)
	set(t, a, "k", "new")
	link.Thaw()
	caughtUp()
	want(t, b, "k", "new")
	if n := b.Stats().Invalidations - before; n < 5002 {
		t.Errorf("%d invalidations", n)
	}
}

// The Python library skipped what it could not parse. A release with another format thereby ignored the invalidations of the others.
func TestGarbageOnTheChannel(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	cl.opts.InvalidationWindow = pgcache.Immediate
	cl.node(nil) // it migrates, which makes everybody forget: not b, and not in the middle
	b := cl.node(func(db *sql.DB, o *pgcache.Options) { o.Listener = calm(pgxdriver.Dial(db)) })
	var id string
	if err := cl.db.QueryRowContext(t.Context(), "SELECT id FROM "+cl.names().State()).Scan(&id); err != nil {
		t.Fatal(err)
	}
	for i, garbage := range []string{
		"", " ", "x", "0", "3*", "2", "1", "2*", `{"op":"d","key":"k"}`, "u:k:1", "\U0001F4A3", "1" + id, "1" + id + "0000000100g0*", "2" + id[1:] + "*",
		"2" + id + "**", "2" + id + ":", "2" + id + "1:", "2" + id + "1:k", "2" + id + "1:k;", "2" + id + "1:k00000000000000;",
		"2" + id + "1:kgggggggggggggggg;", "2" + id + "9:k0000000000000001;", "2" + id + "-1:k0000000000000001;",
		"2" + id + "99999999999999999999:k0000000000000001;", "2" + id + "1:k0000000000000001", "2" + id + "1:k0000000000000001;x",
		"2" + id + "1:kffffffffffffffff;", "2" + id + strings.Repeat("2", 7990),
	} {
		// By hand and with a new version, so that no trigger publishes it: b can learn of it from the garbage alone.
		eventually(t, "it is changed behind b's back", func() bool {
			set(t, b, "k", i)
			warm(t, b, "k", i)
			cl.exec("UPDATE "+cl.table()+" SET version = 1, stamp = 1, value = $1::text::bytea WHERE key = 'k'", strconv.Itoa(1000+i))
			v, _ := get[int](t, b, "k") // from the database where a busy machine has kept a pulse waiting
			return v == i
		})
		before := b.Stats().LocalFlushes
		cl.exec("SELECT pg_notify($1, $2)", cl.names().Channel, garbage)
		eventually(t, fmt.Sprintf("b forgets everything after %.40q", garbage), func() bool { return b.Stats().LocalFlushes > before })
		want(t, b, "k", 1000+i)
	}
}

// Without LISTEN it kept its memory, unbounded in time: entries without an expiry were stale for ever.
func TestNoListener(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.node(nil)
	silent := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.Listener = nil })
	const age = 150 * time.Millisecond
	bounded := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.Listener, o.LocalTTL = nil, age })

	set(t, a, "k", 1, pgcache.TTL(pgcache.NoExpiry))
	want(t, silent, "k", 1)
	want(t, silent, "k", 1)
	began := time.Now()
	warm(t, bounded, "k", 1)
	warmed := time.Now()
	set(t, a, "k", 2, pgcache.TTL(pgcache.NoExpiry))
	want(t, silent, "k", 2)
	if n := silent.Stats().LocalHits; n != 0 {
		t.Errorf("%d hits in a memory that nobody keeps true", n)
	}
	if v, _ := get[int](t, bounded, "k"); v != 1 && time.Since(began) < age {
		t.Errorf("%d: LocalTTL is no use", v)
	}
	time.Sleep(time.Until(warmed.Add(age)))
	want(t, bounded, "k", 2)
}

// When its listener failed to start, a second connect found the pool and said "connected": memory on, nobody listening.
func TestListenerNeverStarts(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.node(nil)
	link := testdb.NewProxy(t, testdb.DSN(t))
	link.Cut()
	b := cl.new(testdb.DB(t), func(o *pgcache.Options) { o.Listener = pgxdriver.ListenerDSN(link.DSN()) })
	readySays(t, b, "listener")
	for v := range 3 {
		set(t, a, "k", v)
		want(t, b, "k", v)
		want(t, b, "k", v)
	}
	if n := b.Stats().LocalHits; n != 0 {
		t.Errorf("%d hits in memory", n)
	}
	link.Restore()
	warm(t, b, "k", 2)
	cl.ready(b)
}

package pgcache_test

import (
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// The tests named TestSnn are about the faults of the Python library that this one follows. Each would fail on a straight
// port of it, and begins with what that library did.

// It read v1, processed the notification of v2 while it had nothing to evict, and then kept v1 until it expired.
func TestS01_FillOvertakenByInvalidation(t *testing.T) {
	t.Parallel()
	forWindows(t, func(t *testing.T, cl *cluster) {
		a := cl.node(nil)
		b, wire := cl.wired(nil)
		set(t, a, "k", "v1", pgcache.TTL(pgcache.NoExpiry))
		caughtUp := cl.follow(a, b, wire)

		reply := wire.after(named("GetEntry"))
		read := async(t, func() string {
			var v string
			if _, err := b.Get(t.Context(), "k", &v); err != nil {
				return err.Error()
			}
			return v
		})
		reply.wait(t)
		set(t, a, "k", "v2", pgcache.TTL(pgcache.NoExpiry))
		caughtUp()
		reply.release()
		if v := read(); v != "v1" {
			t.Fatalf("the read that began before the write returned %q", v)
		}
		for range 3 {
			want(t, b, "k", "v2")
		}
	})
}

// The older of two writers kept its value after the newer one's notification: it set its memory when its own call came
// back, whatever had come meanwhile.
func TestS02_OlderWriterKeepsItsValue(t *testing.T) {
	t.Parallel()
	forWindows(t, func(t *testing.T, cl *cluster) {
		a := cl.node(nil)
		b, wire := cl.wired(nil)
		set(t, a, "k", "v0")
		caughtUp := cl.follow(a, b, wire)
		reply := wire.after(named("PutEntry"))
		written := async(t, func() error { return b.Set(t.Context(), "k", "v1") })
		reply.wait(t)
		set(t, a, "k", "v2")
		caughtUp()
		reply.release()
		if err := written(); err != nil {
			t.Fatal(err)
		}
		want(t, b, "k", "v2")

		// Another write of the same node is newer.
		reply = wire.after(named("PutEntry"))
		written = async(t, func() error { return b.Set(t.Context(), "k", "v3") })
		reply.wait(t)
		later := async(t, func() error { return b.Set(t.Context(), "k", "v4") })
		reply.release()
		if err := errors.Join(written(), later()); err != nil {
			t.Fatal(err)
		}
		want(t, b, "k", "v4")
		caughtUp()
		want(t, b, "k", "v4")
		want(t, a, "k", "v4")
	})
}

// It kept the last event of a key in a batch: a delete and the next insert became one insert of version 1, which is not
// newer than what was held, so the old value stayed for ever.
func TestS03_DeleteAndSetInOneBatch(t *testing.T) {
	t.Parallel()
	forWindows(t, func(t *testing.T, cl *cluster) {
		const keys = 20
		a := cl.node(nil)
		link := testdb.NewProxy(t, testdb.DSN(t))
		b := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.Listener = pgxdriver.ListenerDSN(link.DSN()) })
		for i := range keys {
			for v := range 5 {
				set(t, a, strconv.Itoa(i), v)
			}
			warm(t, b, strconv.Itoa(i), 4)
		}
		caughtUp := cl.follow(a, b, nil)
		link.Freeze() // so that b finds them all at once
		for i := range keys {
			del(t, a, strconv.Itoa(i))
			set(t, a, strconv.Itoa(i), 100+i)
		}
		link.Thaw()
		caughtUp()
		for i := range keys {
			want(t, b, strconv.Itoa(i), 100+i)
		}
	})
}

// Its versions were an order and began at 1 again after a delete, a TRUNCATE or a crash: what was held was "newer".
func TestS04_VersionsBeginAnew(t *testing.T) {
	t.Parallel()
	for _, stmt := range []string{"DELETE FROM %s", "TRUNCATE %s"} {
		t.Run(stmt[:8], func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			a, b := cl.node(nil), cl.node(nil)
			for v := range 5 {
				set(t, a, "k", v)
			}
			warm(t, b, "k", 4)
			caughtUp := cl.follow(a, b, nil)
			cl.exec(fmt.Sprintf(stmt, cl.table()))
			set(t, a, "k", 99) // an insert, which is not published
			caughtUp()
			want(t, b, "k", 99)
		})
	}
}

// Its listener died with its connection, once and for all, and memory went on answering.
func TestS05_ListenerLost(t *testing.T) {
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
			if n := cl.count("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1", name); n != 1 {
				t.Fatalf("b has %d listeners", n)
			}
			set(t, a, "k", 100+round)
			eventually(t, "b notices", func() bool { return b.Stats().LocalFlushes > before })
			want(t, b, "k", 100+round)
			warm(t, b, "k", 100+round) // and is live again
		}
	})
}

// Its queue held 2048 notifications; what did not fit was dropped.
func TestS06_ManyNotifications(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.node(nil)
	link := testdb.NewProxy(t, testdb.DSN(t))
	b := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.Listener = pgxdriver.ListenerDSN(link.DSN()) })
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

// It skipped what it could not parse. A release with another format thereby ignored the invalidations of the others.
func TestS07_GarbageOnTheChannel(t *testing.T) {
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
		set(t, b, "k", i)
		warm(t, b, "k", i)
		cl.exec("UPDATE "+cl.table()+" SET version = 1, stamp = 1, value = $1::text::bytea WHERE key = 'k'", strconv.Itoa(1000+i))
		want(t, b, "k", i)
		before := b.Stats().LocalFlushes
		cl.exec("SELECT pg_notify($1, $2)", cl.names().Channel, garbage)
		eventually(t, fmt.Sprintf("b forgets everything after %.40q", garbage), func() bool { return b.Stats().LocalFlushes == before+1 })
		want(t, b, "k", 1000+i)
	}
}

// Without LISTEN it kept its memory, unbounded in time: entries without an expiry were stale for ever.
func TestS08_NoListener(t *testing.T) {
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

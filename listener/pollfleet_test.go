package listener_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// TestPollGap: when the incarnation is not that of before, notices may be missing: everything in memory is forgotten, and it
// starts again.
func TestPollGap(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"another": "UPDATE %s SET id = id + 1",
		"none":    "TRUNCATE %s",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			a, b := f.ready(f.start(nil)), f.ready(f.start(nil))
			f.set(a, "k", 1)
			f.get(b, "k", 1)
			before := b.Stats().LocalFlushes
			// A change that is not published, and then the notices are gone.
			f.exec("UPDATE " + f.object("cache_entries") + " SET value = '2', version = version + 1, stamp = version + 1")
			f.exec(fmt.Sprintf(damage, f.object("cache_incarnation")))
			f.get(b, "k", 2)
			f.get(a, "k", 2)
			if b.Stats().LocalFlushes == before {
				t.Error("it has not forgotten what was in memory")
			}
			f.set(a, "k", 3)
			f.get(b, "k", 3)
		})
	}
}

// TestPollSetBack: a poller finds what is published also where the notices, or a sequence that they are numbered by, are those of before.
func TestPollSetBack(t *testing.T) {
	t.Parallel()
	// Sets back every sequence of the table to %d.
	const setval = "SELECT count(setval(s.oid::regclass, %d, false)) FROM pg_class s JOIN pg_depend d ON d.objid = s.oid WHERE s.relkind = 'S' AND d.refobjid = '%s'::regclass"
	for name, back := range map[string]func(f *fleet, notices, dump string){
		"by hand": func(f *fleet, notices, _ string) {
			f.exec("DELETE FROM " + notices)
			f.exec(fmt.Sprintf(setval, 1, notices))
		},
		"by one": func(f *fleet, notices, _ string) {
			f.exec("DELETE FROM " + notices)
			f.exec(fmt.Sprintf(setval, 8, notices))
		},
		"beside old notices": func(f *fleet, notices, _ string) { f.exec(fmt.Sprintf(setval, 1, notices)) },
		"TRUNCATE":           func(f *fleet, notices, _ string) { f.exec("TRUNCATE " + notices + " RESTART IDENTITY") },
		"a dump of the data": func(f *fleet, notices, dump string) {
			f.exec("TRUNCATE " + notices + " RESTART IDENTITY")
			f.exec("INSERT INTO " + notices + " OVERRIDING SYSTEM VALUE SELECT * FROM " + dump)
			f.exec(fmt.Sprintf(setval, 3, notices))
		},
		"a dump of the data, as one restores it": func(f *fleet, notices, dump string) {
			f.exec("SET session_replication_role = replica; TRUNCATE " + notices + " RESTART IDENTITY; INSERT INTO " + notices + " OVERRIDING SYSTEM VALUE SELECT * FROM " + dump +
				"; RESET session_replication_role; " + fmt.Sprintf(setval, 3, notices))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			a, b := f.ready(f.start(nil)), f.ready(f.start(nil))
			notices, dump := f.object("cache_notices"), f.object("dump")
			write := func(from, to int) {
				for v := from; v <= to; v++ {
					f.set(a, "k", v)
					f.get(b, "k", v)
				}
			}
			write(1, 3)
			f.exec("CREATE TABLE " + dump + " AS TABLE " + notices)
			write(4, 9)
			back(f, notices, dump)
			write(10, 12)
		})
	}
}

// TestPollTruncated: notices that were removed before they were read are missed, and the poller says so.
func TestPollTruncated(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	h := make(handed, 1)
	c := f.start(func(*sql.DB) pgcache.Listener { return h })
	next, err := (<-h).StartPolling(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		f.set(c, "k", 1) // over what is there: it is published
	}
	if payloads, err := next(t.Context()); err != nil || len(payloads) == 0 {
		t.Fatalf("%q, %v", payloads, err)
	}
	f.exec("TRUNCATE " + f.object("cache_notices"))
	if payloads, err := next(t.Context()); err == nil {
		t.Errorf("%q, and no error", payloads)
	}
}

// TestPollFlushes: what a node left in the log that died, a poll publishes. Where all nodes poll nobody else may.
func TestPollFlushes(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	c := f.ready(f.start(nil))
	f.set(c, "k", 1)
	f.get(c, "k", 1)
	time.Sleep(1500 * time.Millisecond) // no sweep of its own is to help
	f.get(c, "k", 1)
	swept := c.Stats().Flushes
	tx, err := f.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{
		"UPDATE " + f.object("cache_entries") + " SET value = '2', version = version + 1, stamp = version + 1",
		"INSERT INTO " + f.object("cache_changes") + " (key, version) SELECT key, version FROM " + f.object("cache_entries"),
	} {
		if _, err := tx.ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	f.get(c, "k", 2)
	if c.Stats().Flushes != swept {
		t.Error("it was not the poll that flushed")
	}
}

// TestPollIsNoLead: a poll that flushes does so in nobody's name. Nodes that listen take another flush for the leader's
// of a node that goes on flushing, and leave it to that; a poller comes when it comes.
func TestPollIsNoLead(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	n := &node{channel: f.opts.Schema + "_p_cache_events", events: make(chan any, 10000)}
	n.probe = func(ctx context.Context, nonce string) error {
		_, err := f.db.ExecContext(ctx, "SELECT pg_notify($1, $2)", n.channel, pgcache.ProbePrefix+nonce)
		return err
	}
	listen(t, pgxdriver.Listener(f.db), n)
	next[time.Time](t, n)
	f.ready(f.start(nil))
	time.Sleep(1500 * time.Millisecond) // no sweep of its own comes before the poll
	f.exec("INSERT INTO " + f.object("cache_changes") + " (key, version) VALUES ('k', 1)")
	for {
		payload := next[string](t, n)
		if !strings.Contains(payload, "1:k0000000000000001;") {
			continue
		}
		if m, err := notify.Parse(payload); err == nil && m.Node != 0 {
			t.Errorf("%q poses as the flush of node %d", payload, m.Node)
		}
		return
	}
}

// TestPollRegisters: a write that began before anybody polled is only notified. Whoever begins to poll waits for it, or
// would keep what was there before.
func TestPollRegisters(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	writer := f.ready(f.start(func(db *sql.DB) pgcache.Listener { return pgxdriver.Listener(db) }))
	f.set(writer, "k", 1)
	tx, err := f.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // it is rolled back below
	if _, err := tx.ExecContext(t.Context(), "SELECT FROM "+f.object("cache_entries")+" FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	time.Sleep(4 * pgcache.DefaultWindow) // nothing was published for a while: it will publish itself
	go func() { written <- writer.Set(context.WithoutCancel(t.Context()), "k", 2) }()
	f.wait("the write waits for the row", func() bool {
		return scan[int](f, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%' || $1 || '%'", f.opts.Schema) > 0
	})
	poller := f.start(nil)
	early, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if poller.Ready(early) == nil {
		t.Error("it is live while a write is under way that does not know of it")
		f.get(poller, "k", 1)
	}
	_ = tx.Rollback()
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	f.get(f.ready(poller), "k", 2)
	f.set(writer, "k", 3)
	f.get(poller, "k", 3)
}

// pollable is a Subscriber as a Cache's.
type pollable interface {
	pgcache.Subscriber
	StartPolling(ctx context.Context) (func(context.Context) ([]string, error), error)
}

// handed is a Listener that hands its Subscriber to the test.
type handed chan pollable

func (h handed) Listen(ctx context.Context, _ string, sub pgcache.Subscriber) error {
	h <- sub.(pollable)
	<-ctx.Done()
	return nil
}

// TestPollLease: a poller says that it still polls, and removes old notices on the way. One that has been asleep does not
// trust its lease: writers may have forgotten it.
func TestPollLease(t *testing.T) {
	t.Parallel()
	dsn, schema := testdb.DSN(t), testdb.Schema(t)
	// In a bubble, for its clock. The database's goes on as ever, and no time passes while an answer is awaited.
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{t, pgcache.Options{Schema: schema, Prefix: "p_", Logger: slog.New(slog.DiscardHandler), CleanupInterval: -1}, nil}
		db, err := sql.Open("pgx", dsn)
		if err != nil {
			t.Fatal(err)
		}
		f.db = db
		h := make(handed, 1)
		f.opts.Listener = h
		c, err := pgcache.New(db, f.opts)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			c.Close()
			db.Close()
		}()
		if err := c.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		next, err := (<-h).StartPolling(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ask := func() int {
			t.Helper()
			payloads, err := next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return len(payloads)
		}
		lease := func() time.Time {
			return scan[time.Time](f, "SELECT poller_lease FROM "+f.object("cache_state"))
		}
		f.exec("INSERT INTO " + f.object("cache_notices") + " (payload, published_at) SELECT '2', clock_timestamp() - i * interval '1 minute' FROM generate_series(1, 10) i")
		first := lease()
		if n := ask(); n != 10 || !lease().Equal(first) {
			t.Errorf("%d notices; the lease was renewed at once", n)
		}
		for range 5 { // minutes, all in all
			time.Sleep(31 * time.Second)
			before := lease()
			if n := ask(); n != 0 || !lease().After(before) {
				t.Errorf("%d notices; the lease was not renewed: %v", n, lease())
			}
		}
		if n := scan[int](f, "SELECT count(*) FROM "+f.object("cache_notices")); n != 4 { // those that are younger than 5 minutes
			t.Errorf("%d notices are left", n)
		}
		time.Sleep(61 * time.Second)
		if _, err := next(t.Context()); err == nil {
			t.Error("it trusts a lease that may have ended")
		}
	})
}

// TestPollCrash: a crash of the server removes the changes that were not published.
func TestPollCrash(t *testing.T) {
	t.Parallel()
	server, err := pgserver.StartWith(t.Context(), pgserver.Config{Own: true, Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	f := &fleet{t, pgcache.Options{Logger: slog.New(slog.DiscardHandler), Durable: true}, testdb.Open(t, "pgx", server.DSN)}
	start := func() *pgcache.Cache {
		db, o := testdb.Open(t, "pgx", server.DSN), f.opts
		o.Listener = listener.Poll(10 * time.Millisecond)
		c, err := pgcache.New(db, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		return f.ready(c)
	}
	a, b := start(), start()
	f.set(a, "k", 1)
	f.get(a, "k", 1)
	f.get(b, "k", 1)
	before := b.Stats().LocalFlushes
	// The row outlives the crash, for the table is durable; what was to be published of it does not.
	f.exec("UPDATE cache_entries SET value = '2', version = version + 1, stamp = version + 1")
	if err := server.Restart(t.Context(), "immediate"); err != nil {
		t.Fatal(err)
	}
	f.get(b, "k", 2)
	f.get(a, "k", 2)
	if b.Stats().LocalFlushes == before {
		t.Error("it has not forgotten what was in memory")
	}
	f.wait("a writes", func() bool { return a.Set(t.Context(), "k", 3) == nil })
	f.get(b, "k", 3)
}

package pgcache_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// prepared is a cache on a server of its own, which lets transactions be prepared and can crash.
type prepared struct {
	t      *testing.T
	server *pgserver.Server
	db     *sql.DB
	opts   pgcache.Options
	pulses atomic.Int64 // that have succeeded, of all nodes
}

// pulseCounter is an Observer.
type pulseCounter struct{ pulses *atomic.Int64 }

func (pulseCounter) Open(func() pgcache.Stats) func() { return nil }
func (pulseCounter) Event(pgcache.Event)              {}

func (p pulseCounter) Begin(ctx context.Context, op pgcache.Op) (context.Context, func(pgcache.Outcome)) {
	return ctx, func(o pgcache.Outcome) {
		if op.Name == "pulse" && o.Err == nil {
			p.pulses.Add(1)
		}
	}
}

func newPrepared(t *testing.T, durable bool) *prepared {
	t.Helper()
	s, err := pgserver.StartWith(t.Context(), pgserver.Config{Own: true, Settings: map[string]string{"max_prepared_transactions": "5"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &prepared{t: t, server: s, db: testdb.Open(t, "pgx", s.DSN)}
	w.opts = pgcache.Options{CleanupInterval: -1, Durable: durable, Logger: slog.New(slog.DiscardHandler), Observer: pulseCounter{&w.pulses}}
	w.exec("CREATE TABLE users (id int, name text); INSERT INTO users VALUES (1, 'old'); CREATE TABLE items AS SELECT * FROM users")
	return w
}

func (w *prepared) exec(query string) {
	w.t.Helper()
	if _, err := w.db.ExecContext(w.t.Context(), query); err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
}

func (w *prepared) count(query string) (n int) {
	w.t.Helper()
	if err := w.db.QueryRowContext(w.t.Context(), query).Scan(&n); err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// node returns a ready node with a pool of its own.
func (w *prepared) node() *pgcache.Cache {
	w.t.Helper()
	o, db := w.opts, testdb.Open(w.t, "pgx", w.server.DSN)
	o.Listener = pgxdriver.Listener(db)
	cl := &cluster{t: w.t, opts: o}
	c := cl.new(db, nil)
	if err := c.Migrate(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	cl.ready(c)
	return c
}

// prepare runs f in a transaction and prepares it.
func (w *prepared) prepare(gid string, f func(tx pgcache.Querier)) {
	w.t.Helper()
	conn, err := w.db.Conn(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	exec := func(query string) {
		w.t.Helper()
		if _, err := conn.ExecContext(w.t.Context(), query); err != nil {
			w.t.Fatalf("%s: %v", query, err)
		}
	}
	exec("BEGIN")
	f(conn)
	exec("PREPARE TRANSACTION '" + gid + "'")
}

// crash lets the server crash, and waits until w's own pool has connections again.
func (w *prepared) crash() {
	w.t.Helper()
	if err := w.server.Restart(w.t.Context(), "immediate"); err != nil {
		w.t.Fatal(err)
	}
	eventually(w.t, "the server answers", func() bool { return w.db.PingContext(w.t.Context()) == nil })
}

// load is GetOrSet of the name of row 1 of a table, "" where it fails.
func (w *prepared) load(c *pgcache.Cache, key, table string) (name string) {
	err := c.GetOrSet(w.t.Context(), key, &name, func(ctx context.Context) (any, error) {
		var name string
		err := w.db.QueryRowContext(ctx, "SELECT name FROM "+table+" WHERE id = 1").Scan(&name)
		return name, err
	})
	if err != nil {
		return ""
	}
	return name
}

// P2, P6 and P8 over a crash: what a transaction has written to the cache, or to a watched table, was prepared before the crash
// and is committed after it. The change log, and the entries that are not Durable, have lost what it wrote.
func TestPrepared_Crash(t *testing.T) {
	t.Parallel()
	for _, durable := range []bool{false, true} {
		t.Run(fmt.Sprintf("durable=%v", durable), func(t *testing.T) {
			t.Parallel()
			w := newPrepared(t, durable)
			writer, reader := w.node(), w.node()
			if err := writer.WatchTable(t.Context(), pgcache.TableWatch{Table: "items", Keys: []string{"item:{id}"}}); err != nil {
				t.Fatal(err)
			}
			rows := map[string]string{"user:1": "users", "item:1": "items"}
			for key, table := range rows {
				if v := w.load(reader, key, table); v != "old" {
					t.Fatalf("%s is %q", key, v)
				}
			}
			w.prepare("early", func(tx pgcache.Querier) {
				for _, table := range rows {
					if _, err := tx.ExecContext(t.Context(), "UPDATE "+table+" SET name = 'new'"); err != nil {
						t.Fatal(err)
					}
				}
				if err := writer.WithTx(tx).Delete(t.Context(), "user:1"); err != nil {
					t.Fatal(err)
				}
			})
			w.crash()
			young := w.node() // is Ready
			for _, c := range []*pgcache.Cache{young, reader} {
				for key, table := range rows {
					eventually(t, "it is loaded after the crash", func() bool { return w.load(c, key, table) == "old" })
				}
				if n := w.count("SELECT count(*) FROM cache_entries"); n > 0 && !durable {
					t.Errorf("%d loaded values were stored", n)
				}
			}
			// What somebody reads and Sets meanwhile goes when the transaction commits: it has changed a watched table.
			eventually(t, "a Set after the crash", func() bool { return writer.Set(t.Context(), "item:1", "old") == nil })
			// Several pulses after the crash, so that the loss of the change log is no reason any more to forget what is in memory.
			before := w.pulses.Load()
			eventually(t, "all nodes have pulsed", func() bool { return w.pulses.Load() > before+6 })
			if durable {
				warm(t, reader, "user:1", "old")
			}
			warm(t, reader, "item:1", "old")
			// The changes of one that was prepared after the crash are in the log: it keeps nothing from working.
			w.prepare("late", func(tx pgcache.Querier) {
				if err := writer.WithTx(tx).Delete(t.Context(), "late"); err != nil {
					t.Fatal(err)
				}
			})
			if f := finds(t, reader, "prepared", `["early"]`); f.Severity != pgcache.Fault || !strings.Contains(f.Remedy, "COMMIT PREPARED") {
				t.Errorf("%+v", f)
			}
			if n := w.count("SELECT count(*) FROM cache_incarnation"); n != 0 {
				t.Error("there is an incarnation")
			}

			w.exec("COMMIT PREPARED 'early'")
			for _, c := range []*pgcache.Cache{reader, young, writer} {
				for key, table := range rows {
					eventually(t, "what was committed is seen", func() bool { return w.load(c, key, table) == "new" })
				}
			}
			eventually(t, "loads are stored again", func() bool {
				for key, table := range rows {
					w.load(reader, key, table)
				}
				return w.count("SELECT count(*) FROM cache_entries WHERE key IN ('user:1', 'item:1') AND value IS NOT NULL") == 2
			})
			findsNot(t, reader, "prepared")
			warm(t, reader, "user:1", "new")
			w.exec("COMMIT PREPARED 'late'")
			set(t, writer, "late", "next")
			want(t, writer, "late", "next")
		})
	}
}

// While nothing can be stored nobody waits for the row that another's load would leave.
func TestPrepared_LoadsWaitForNobody(t *testing.T) {
	t.Parallel()
	forGuards(t, func(t *testing.T, cl *cluster) {
		w := newPrepared(t, false)
		w.opts.Guard, w.opts.LockTimeout = cl.opts.Guard, time.Hour
		a := w.node()
		w.prepare("early", func(tx pgcache.Querier) {
			if err := a.WithTx(tx).Set(t.Context(), "other", 1); err != nil {
				t.Fatal(err)
			}
		})
		w.crash()
		b := w.node()
		eventually(t, "the first node has connections again", func() bool { return w.load(a, "x", "users") == "old" })
		slow := newLoader(1)
		var va, vb int
		first := async(t, func() error { return a.GetOrSet(t.Context(), "k", &va, slow.load) })
		slow.wait(t)
		second := async(t, func() error {
			return b.GetOrSet(t.Context(), "k", &vb, func(context.Context) (any, error) { return 2, nil })
		})
		if err := second(); err != nil || vb != 2 {
			t.Error(vb, err)
		}
		slow.release()
		if err := first(); err != nil || va != 1 {
			t.Error(va, err)
		}
		if got := a.Stats().Fenced + b.Stats().Fenced; got != 0 {
			t.Errorf("%d were fenced", got)
		}
	})
}

package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/pgcache/go/internal/dbsqlc"
	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
)

// ear hears what is told, on a session of its own.
type ear struct {
	w    *watched
	conn *pgx.Conn
}

func (w *watched) listen() *ear {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), testdb.DSN(w.t))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close(context.Background()) }) //nolint:usetesting // the test's context is done by then
	if _, err := conn.Exec(w.t.Context(), "LISTEN "+pgx.Identifier{w.Names.Channel}.Sanitize()); err != nil {
		w.t.Fatal(err)
	}
	return &ear{w, conn}
}

// told is what was heard.
type told struct {
	messages int
	longest  int
	all      bool // "forget everything"
	items    []item
	versions map[string][]int64 // of each key, in the order heard
}

type item struct {
	key      string
	versions []int64
}

func (h *told) add(t *testing.T, payload string) {
	t.Helper()
	h.messages++
	h.longest = max(h.longest, len(payload))
	err := notify.Parse(payload, func(key string, versions []int64) {
		h.items = append(h.items, item{key, slices.Clone(versions)})
		if h.versions == nil {
			h.versions = map[string][]int64{}
		}
		h.versions[key] = append(h.versions[key], versions...)
	}, func() { h.all = true })
	if err != nil {
		t.Error(err)
	}
}

// told returns what was told since the last call. Everything that was committed before the call is in it.
func (e *ear) told() (h told) {
	e.w.t.Helper()
	ctx, cancel := context.WithTimeout(e.w.t.Context(), 20*time.Second)
	defer cancel()
	if _, err := e.conn.Exec(ctx, "SELECT pg_notify($1, 'end')", e.w.Names.Channel); err != nil {
		e.w.t.Fatal(err)
	}
	for {
		n, err := e.conn.WaitForNotification(ctx)
		if err != nil {
			e.w.t.Fatal(err)
		}
		if n.Payload == "end" {
			return h
		}
		h.add(e.w.t, n.Payload)
	}
}

func (w *watched) flush() store.Flushed {
	w.t.Helper()
	f, err := w.Flush(w.t.Context(), notify.Head(1))
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// begin flushes inside a transaction, and returns it.
func (w *watched) begin() (tx *sql.Tx, pid int) {
	w.t.Helper()
	tx, err := w.db.BeginTx(w.t.Context(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = tx.Rollback() })
	var r dbsqlc.FlushRow
	if err := tx.QueryRow(w.Names.Render(dbsqlc.Flush), w.Names.Channel, w.Names.Class(), -2, notify.Head(2)).Scan(&r.Changes, &r.Messages, &r.Bytes); err != nil {
		w.t.Fatal(err)
	}
	if r.Changes == 0 {
		w.t.Fatal("the flush found nothing")
	}
	if err := tx.QueryRow("SELECT pg_backend_pid()").Scan(&pid); err != nil {
		w.t.Fatal(err)
	}
	return tx, pid
}

// log puts changes into the log by hand.
func (w *watched) log(keys, versions int, key string) {
	w.t.Helper()
	w.exec("INSERT INTO "+w.object("cache_changes")+" (key, version) SELECT "+key+", v * 1000000::bigint + k FROM generate_series(1, $1::int) k, generate_series(1, $2::int) v ORDER BY v", keys, versions)
}

// TestOrderIsCommitOrder: of each key, the version that is told last is the version of the row, however many wrote it at
// the same time and however many flushed.
func TestOrderIsCommitOrder(t *testing.T) {
	t.Parallel()
	const writers, keys, rounds = 12, 3, 40
	for name, flushing := range map[string]bool{"in the log": false, "as told": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := watch(t)
			for k := range keys {
				if _, err := w.set(row(fmt.Sprint("k", k), "", int64(k+1)))(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			var nodes []*store.Store
			for range writers {
				nodes = append(nodes, w.another(w.Names))
			}
			ear := w.listen()
			last, seen, written := map[string]int64{}, map[int64]int{}, 0
			for r := range rounds {
				var wg sync.WaitGroup
				for n, s := range nodes {
					version := int64(1000*(r+1) + 2*n)
					rows := []store.Write{row(fmt.Sprint("k", (r+n)%keys), "", version)}
					if (r+n)%5 == 0 { // many at once, too
						rows = append(rows, row(fmt.Sprint("k", (r+n+1)%keys), "", version+1))
					}
					written += len(rows)
					wg.Go(func() {
						if _, err := s.Put(t.Context(), rows, false); err != nil {
							t.Error(err)
						}
						if !flushing {
							return
						}
						if _, err := s.Flush(t.Context(), notify.Head(1)); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				if !flushing {
					wrong := scan[int](w, "SELECT count(*) FROM "+w.object("cache_entries")+" e WHERE version <> (SELECT version FROM "+
						w.object("cache_changes")+" c WHERE c.key = e.key ORDER BY seq DESC LIMIT 1)")
					if wrong > 0 {
						t.Errorf("the last of %d keys in the log is not what is in the row", wrong)
					}
				}
				w.flush()
				for _, i := range ear.told().items {
					last[i.key] = i.versions[0] // newest first
					for _, v := range i.versions {
						seen[v]++
					}
				}
				for k := range keys {
					key := fmt.Sprint("k", k)
					if v := scan[int64](w, "SELECT version FROM "+w.object("cache_entries")+" WHERE key = $1", key); last[key] != v {
						t.Errorf("%s: told last %d, the row has %d", key, last[key], v)
					}
				}
			}
			if len(seen) != written {
				t.Errorf("%d versions were told of %d written", len(seen), written)
			}
			for v, n := range seen {
				if n > 1 {
					t.Errorf("version %d was told %d times", v, n)
				}
			}
		})
	}
}

// TestPayloads: whatever is in the log, each message fits, and all of it is told: at most the newest 16 versions of a
// key, and "forget everything" where it would be too many messages.
func TestPayloads(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		keys, versions int
		key            string // SQL
		messages       int
		all            bool
	}{
		"one":                 {1, 1, "'k'", 1, false},
		"the longest":         {30, 30, "lpad(k::text, 1024, 'x')", 6, false},
		"the longest, one":    {1, 16, "lpad(k::text, 1024, 'x')", 1, false},
		"many":                {900, 1, "'some key ' || k", 5, false},
		"many more":           {1, 5000, "'k'", 1, false},
		"too many":            {9000, 1, "'some key ' || k", 1, true},
		"everything":          {1, 1, "''", 1, true},
		"everything and more": {3, 2, "CASE WHEN k = 2 THEN '' ELSE 'k' || k END", 1, true},
		"strange keys":        {5, 3, "(ARRAY['0:', ';', '1*', e'\\x1f\"', '\U0001F600'])[k]", 1, false},
		"a key like a length": {1, 1, "'0:'", 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := watch(t)
			ear := w.listen()
			w.log(test.keys, test.versions, test.key)
			if name == "too many" { // also for those who poll
				w.exec("UPDATE " + w.object("cache_state") + " SET polled_until = clock_timestamp() + interval '1 minute'")
			}
			f := w.flush()
			h := ear.told()
			if f.Changes != int64(test.keys*test.versions) || f.Bytes < 8192 || w.logged() != 0 {
				t.Errorf("flushed %+v, %d are left", f, w.logged())
			}
			if h.messages != test.messages || h.all != test.all || h.longest > notify.MaxPayload {
				t.Errorf("%d messages (want %d), the longest has %d bytes, all: %v", h.messages, test.messages, h.longest, h.all)
			}
			if name == "too many" && scan[int](w, "SELECT count(*) FROM "+w.object("cache_notices")) != 1 {
				t.Error("those who poll are told more than once")
			}
			if test.all {
				return
			}
			if len(h.items) != test.keys || len(h.versions) != test.keys {
				t.Errorf("%d items of %d keys", len(h.items), len(h.versions))
			}
			for _, i := range h.items {
				if n := min(test.versions, 16); len(i.versions) != n {
					t.Errorf("%.20q: %d versions", i.key, len(i.versions))
				}
				newest := int64(test.versions)
				for j, v := range i.versions {
					if v/1000000 != newest-int64(j) {
						t.Errorf("%.20q: %v: not the newest first", i.key, i.versions)
						break
					}
				}
			}
		})
	}
	t.Run("inline", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		ear := w.listen()
		for n, want := range map[int]told{900: {messages: 5}, 1000: {messages: 1, all: true}} {
			rows := make([]store.Write, n)
			for i := range rows {
				key := fmt.Sprint("some key ", i)
				if n == 1000 {
					key += strings.Repeat("x", 100)
				}
				rows[i] = store.Write{Key: key, Version: int64(i + 1), TTL: time.Minute, Codec: "c", Loud: true}
			}
			if _, err := w.Put(t.Context(), rows, true); err != nil {
				t.Fatal(err)
			}
			h := ear.told()
			if h.messages != want.messages || h.all != want.all || h.longest > notify.MaxPayload || (!want.all && len(h.versions) != n) {
				t.Errorf("%d keys: %d messages, the longest has %d bytes, %d keys, all: %v", n, h.messages, h.longest, len(h.versions), h.all)
			}
		}
	})
}

// TestOverlappingFlushes: whoever flushes, everything is told once, and what was committed before a flush was sent has
// been told when it returns.
func TestOverlappingFlushes(t *testing.T) {
	t.Parallel()
	w := watch(t)
	ear := w.listen()
	const writers, rounds = 6, 60
	var wg sync.WaitGroup
	for n := range writers {
		s := w.another(w.Names)
		key := fmt.Sprint("k", n)
		if _, err := s.Put(t.Context(), []store.Write{row(key, "", int64(n+1))}, false); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for r := range rounds {
				version := int64(100 + n*rounds + r)
				if _, err := s.Put(t.Context(), []store.Write{row(key, "", version)}, false); err != nil {
					t.Error(err)
				}
				if r%3 != 0 {
					continue
				}
				if _, err := s.Flush(t.Context(), notify.Head(uint32(n))); err != nil {
					t.Error(err)
				}
				var left int
				if err := w.db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+w.object("cache_changes")+" WHERE version = $1", version).Scan(&left); err != nil || left > 0 {
					t.Errorf("version %d is in the log after a flush that was sent later: %v", version, err)
				}
			}
		})
	}
	wg.Wait()
	w.flush()
	seen := map[int64]int{}
	for _, versions := range ear.told().versions {
		for _, v := range versions {
			seen[v]++
		}
	}
	for v := range int64(writers * rounds) {
		if seen[100+v] != 1 {
			t.Errorf("version %d was told %d times", 100+v, seen[100+v])
		}
	}
}

// TestFlushAllOrNothing: a flush that is rolled back, or whose session ends, tells nothing and leaves everything. Another
// that has waited behind it, tells it.
func TestFlushAllOrNothing(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(w *watched, tx *sql.Tx, pid int){
		"rolled back": func(w *watched, tx *sql.Tx, _ int) { _ = tx.Rollback() },
		"terminated":  func(w *watched, _ *sql.Tx, pid int) { w.exec("SELECT pg_terminate_backend($1)", pid) },
		"committed": func(w *watched, tx *sql.Tx, _ int) {
			if err := tx.Commit(); err != nil {
				w.t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := watch(t)
			ear := w.listen()
			w.log(10, 2, "'k' || k")
			tx, pid := w.begin()
			if h := ear.told(); h.messages > 0 || w.logged() != 20 {
				t.Errorf("before it is committed a flush has told %+v", h)
			}
			waiting := queue(t, t.Context(), func(ctx context.Context) (store.Flushed, error) { return w.Flush(ctx, notify.Head(1)) })
			waitFor(t, "another flush waits", func() bool {
				return scan[int](w, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND classid = $1::bigint::oid", int64(uint32(w.Names.Class()))) == 1
			})
			end(w, tx, pid)
			f, h := waiting.get(t), ear.told()
			if want := map[bool]int64{false: 20, true: 0}[name == "committed"]; f.Changes != want || f.Messages != min(want, 1) {
				t.Errorf("the flush behind it: %+v", f)
			}
			if h.messages != 1 || len(h.items) != 10 || w.logged() != 0 {
				t.Errorf("%+v; %d are left", h, w.logged())
			}
		})
	}
}

// TestOtherIsolation: whatever the isolation level of the sessions, a flush that has waited behind another is not refused,
// and a write that has waited for a poller to register knows of it.
func TestOtherIsolation(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"repeatable read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			w := watch(t, "default_transaction_isolation", level)
			ear := w.listen()
			w.log(10, 2, "'k' || k")
			tx, _ := w.begin()
			waiting := queue(t, t.Context(), func(ctx context.Context) (store.Flushed, error) { return w.Flush(ctx, notify.Head(1)) })
			waitFor(t, "another flush waits", func() bool {
				return scan[int](w, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND classid = $1::bigint::oid", int64(uint32(w.Names.Class()))) == 1
			})
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if f := waiting.get(t); f.Changes != 0 {
				t.Errorf("%+v", f)
			}
			if h := ear.told(); len(h.items) != 10 || w.logged() != 0 {
				t.Errorf("%d keys were told, %d changes are left", len(h.items), w.logged())
			}
			if err := w.DrainLog(t.Context(), notify.Head(1)); err != nil {
				t.Error(err)
			}

			// What BeginPolling does, held open.
			tx, err := w.db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback() //nolint:errcheck // it is committed below
			for _, query := range []string{dbsqlc.HoldChanges, "UPDATE " + w.object("cache_state") + " SET polled_until = clock_timestamp() + interval '1 minute'"} {
				if _, err := tx.Exec(w.Names.Render(query)); err != nil {
					t.Fatal(err)
				}
			}
			writing := queue(t, t.Context(), func(ctx context.Context) (store.Written, error) {
				return w.Put(ctx, []store.Write{{Key: "k", Version: 1, TTL: time.Minute, Loud: true}}, true)
			})
			waitFor(t, "the write waits", w.waiting)
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if out := writing.get(t); !out.Logged[0] || w.logged() != 1 {
				t.Errorf("%+v: whoever polls won't hear of it", out)
			}
		})
	}
}

// TestDrainKeepsItsSnapshotNew: the function refuses to run under a level that could truncate what it has not told.
func TestDrainKeepsItsSnapshotNew(t *testing.T) {
	t.Parallel()
	w := watch(t)
	w.log(1, 1, "'k'")
	tx, err := w.db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing is to stay
	if _, err := tx.Exec(w.Names.Render(dbsqlc.DrainChanges), w.Names.Channel, "2", w.Names.Class(), -2); err == nil || !strings.Contains(err.Error(), "READ COMMITTED") {
		t.Error(err)
	}
}

// TestDrain: it tells what is there and gives the space back, alone in the table. Behind somebody who reads the table it
// does not wait for long: all writers would wait behind it.
func TestDrain(t *testing.T) {
	t.Parallel()
	w := watch(t)
	ear := w.listen()
	w.log(2000, 1, "'k' || k")
	w.flush()
	w.log(300, 3, "'k' || k")
	ear.told()
	before := w.flushSize()
	reader, err := w.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Rollback() //nolint:errcheck // it is rolled back below
	if _, err := reader.Exec("LOCK TABLE " + w.object("cache_changes") + " IN ACCESS SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := w.DrainLog(t.Context(), notify.Head(1)); sqlerr.State(err) != "55P03" {
		t.Errorf("behind a reader: %v", err)
	}
	if d := time.Since(began); d > time.Second { // 20 ms, on a machine with nothing else to do
		t.Errorf("it waited for %v", d)
	}
	if h := ear.told(); h.messages > 0 || w.logged() != 900 {
		t.Errorf("refused, it has told %+v", h)
	}
	_ = reader.Rollback()
	if err := w.DrainLog(t.Context(), notify.Head(1)); err != nil {
		t.Fatal(err)
	}
	h := ear.told()
	if len(h.items) != 300 || len(h.items[0].versions) != 3 || h.all || h.longest > notify.MaxPayload {
		t.Errorf("%d items, %+v, all: %v", len(h.items), h.items[0], h.all)
	}
	if after := w.flushSize(); w.logged() != 0 || after >= before {
		t.Errorf("%d are left; %d bytes, then %d", w.logged(), before, after)
	}
	// Empty, too large, and for those who poll: like a flush.
	if err := w.DrainLog(t.Context(), notify.Head(1)); err != nil {
		t.Fatal(err)
	}
	if h := ear.told(); h.messages > 0 {
		t.Errorf("%+v", h)
	}
	w.exec("UPDATE " + w.object("cache_state") + " SET polled_until = clock_timestamp() + interval '1 minute'")
	w.log(9000, 1, "'some key ' || k")
	if err := w.DrainLog(t.Context(), notify.Head(1)); err != nil {
		t.Fatal(err)
	}
	if h := ear.told(); h.messages != 1 || !h.all || scan[int](w, "SELECT count(*) FROM "+w.object("cache_notices")) != 1 {
		t.Errorf("%+v", h)
	}
}

func (w *watched) flushSize() int64 {
	w.t.Helper()
	return scan[int64](w, "SELECT pg_relation_size('"+w.object("cache_changes")+"')")
}

// TestDrainAmongWriters: nothing slips between what is told and what is removed.
func TestDrainAmongWriters(t *testing.T) {
	t.Parallel()
	w := watch(t)
	ear := w.listen()
	const writers, rounds = 6, 100
	var wg, drainer sync.WaitGroup
	stop := make(chan struct{})
	drains := 0
	drainer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := w.DrainLog(t.Context(), notify.Head(1)); err == nil {
				drains++
			} else if sqlerr.State(err) != "55P03" && !sqlerr.Conflict(err) {
				t.Error(err)
			}
		}
	})
	for n := range writers {
		s := w.another(w.Names)
		wg.Go(func() {
			for r := range rounds {
				if _, err := s.Put(t.Context(), []store.Write{{Key: fmt.Sprint("k", n), Version: int64(1 + n*rounds + r), TTL: time.Minute, Loud: true}}, false); err != nil {
					t.Error(err)
				}
				if r%10 == 0 {
					if _, err := s.Flush(t.Context(), notify.Head(2)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	drainer.Wait()
	w.flush()
	seen := map[int64]int{}
	for _, versions := range ear.told().versions {
		for _, v := range versions {
			seen[v]++
		}
	}
	// A drain may tell more than 16 versions of a key, and names the newest.
	if len(seen) < writers*rounds*9/10 {
		t.Errorf("%d of %d versions were told", len(seen), writers*rounds)
	}
	for n := range writers {
		if v := int64((n + 1) * rounds); seen[v] != 1 {
			t.Errorf("the last version of k%d was told %d times", n, seen[v])
		}
	}
	if drains == 0 {
		t.Error("it never drained")
	}
}

// TestVacuum: the owner's removes dead rows, without giving the space back. Another's does no harm.
func TestVacuum(t *testing.T) {
	t.Parallel()
	w := watch(t)
	size := int64(0)
	waitFor(t, "the log does not grow", func() bool { // while a transaction is open, in other tests too, nothing is removed
		before := size
		w.log(5000, 1, "'k' || k")
		w.flush()
		if err := w.VacuumLog(t.Context()); err != nil {
			t.Fatal(err)
		}
		size = w.flushSize()
		return size == before
	})
	w.log(5000, 1, "'k' || k")
	role := "r_" + w.Names.Schema
	w.exec("CREATE ROLE " + role)
	t.Cleanup(func() {
		for _, s := range []string{"DROP OWNED BY " + role, "DROP ROLE " + role} {
			if _, err := w.db.ExecContext(context.Background(), s); err != nil { //nolint:usetesting // the test's context is done by then
				t.Error(err)
			}
		}
	})
	w.exec("GRANT USAGE ON SCHEMA " + w.Names.Schema + " TO " + role)
	w.exec("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA " + w.Names.Schema + " TO " + role)
	w.exec("GRANT USAGE ON ALL SEQUENCES IN SCHEMA " + w.Names.Schema + " TO " + role)
	other := w.another(w.Names, "role", role)
	if f, err := other.Flush(t.Context(), notify.Head(1)); err != nil || f.Changes != 5000 {
		t.Errorf("%+v, %v", f, err)
	}
	if err := other.VacuumLog(t.Context()); err != nil && sqlerr.State(err) != "42501" {
		t.Errorf("another role's VACUUM: %v", err)
	}
	if err := other.DrainLog(t.Context(), notify.Head(1)); sqlerr.State(err) != "42501" {
		t.Errorf("another role's drain: %v", err)
	}
	if _, err := other.Put(t.Context(), []store.Write{row("k", "v", 1)}, false); err != nil {
		t.Error(err)
	}
}

// TestNotices: those who poll read everything that was committed after they began, in the order of the commits: no notice
// comes late below one that was read.
func TestNotices(t *testing.T) {
	t.Parallel()
	w := watch(t)
	const writers, rounds = 6, 60
	identity, last, err := w.BeginPolling(t.Context(), "mark", time.Minute)
	if err != nil || identity != "mark" {
		t.Fatal(identity, err)
	}
	if again, _, err := w.BeginPolling(t.Context(), "another", time.Minute); again != "mark" || err != nil {
		t.Fatal("the identity is not that of before:", again, err)
	}
	var wg sync.WaitGroup
	for n := range writers {
		s := w.another(w.Names)
		wg.Go(func() {
			for r := range rounds {
				// Also those that tell themselves go through the log now.
				out, err := s.Put(t.Context(), []store.Write{{Key: fmt.Sprint("k", n), Version: int64(1 + n*rounds + r), TTL: time.Minute, Loud: true}}, r%2 == 0)
				if err != nil || !out.Logged[0] {
					t.Errorf("%+v, %v", out, err)
				}
				if r%4 == n%4 {
					if _, err := s.Flush(t.Context(), notify.Head(uint32(n))); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	var seqs []int64
	var h told
	poll := func() {
		t.Helper()
		found, notices, err := w.Notices(t.Context(), last)
		if err != nil || found != identity {
			t.Fatal(found, err)
		}
		for _, n := range notices {
			h.add(t, n.Payload)
			seqs, last = append(seqs, n.Seq), n.Seq
		}
	}
	for running := true; running; poll() {
		select {
		case <-done:
			running = false
		default:
		}
	}
	w.flush()
	poll()
	rows, err := w.db.QueryContext(t.Context(), "SELECT seq FROM "+w.object("cache_notices")+" WHERE seq > 0 ORDER BY seq")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all []int64
	for rows.Next() {
		var seq int64
		if err := rows.Scan(&seq); err != nil {
			t.Fatal(err)
		}
		all = append(all, seq)
	}
	if d := cmp.Diff(all, seqs); d != "" {
		t.Errorf("notices that were read (-all +read):\n%s", d)
	}
	versions := slices.Sorted(maps.Keys(versionSet(h)))
	if len(versions) != writers*rounds {
		t.Errorf("%d versions of %d were told", len(versions), writers*rounds)
	}
	// They are removed after a while; the identity stays.
	w.exec("UPDATE "+w.object("cache_notices")+" SET told_at = told_at - interval '10 minutes' WHERE seq <= $1", seqs[2])
	if err := w.DeleteNotices(t.Context(), 5*time.Minute); err != nil {
		t.Fatal(err)
	}
	if found, left, err := w.Notices(t.Context(), 0); found != identity || len(left) != len(all)-3 || err != nil {
		t.Errorf("%d of %d are left, identity %q, %v", len(left), len(all), found, err)
	}
}

// TestPollingWaits: whoever begins to poll waits for the writes that began before and do not know of it. Who begins to
// write meanwhile, waits too, and knows of it.
func TestPollingWaits(t *testing.T) {
	t.Parallel()
	w := watch(t)
	tx, err := w.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // it is committed below
	if _, err := tx.Exec("INSERT INTO " + w.object("cache_entries") + " (key, version, codec) VALUES ('k', 1, '')"); err != nil {
		t.Fatal(err)
	}
	polling := queue(t, t.Context(), func(ctx context.Context) (string, error) {
		for { // it waits for a second at most, and tries again
			identity, _, err := w.BeginPolling(ctx, "mark", time.Minute)
			if sqlerr.State(err) != "55P03" {
				return identity, err
			}
		}
	})
	waitFor(t, "it waits", w.waiting)
	writing := queue(t, t.Context(), func(ctx context.Context) (store.Written, error) {
		return w.Put(ctx, []store.Write{{Key: "l", Version: 2, TTL: time.Minute, Loud: true}}, true)
	})
	select {
	case <-polling.done:
		t.Error("it does not wait for a write that is under way")
	case <-time.After(50 * time.Millisecond):
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	polling.get(t)
	writing.get(t)
	if out, err := w.Put(t.Context(), []store.Write{row("k", "v", 3)}, true); err != nil || !out.Logged[0] {
		t.Errorf("%+v, %v", out, err)
	}
}

func versionSet(h told) map[int64]bool {
	set := map[int64]bool{}
	for _, versions := range h.versions {
		for _, v := range versions {
			set[v] = true
		}
	}
	return set
}

// TestCrash: a crash empties the log and the notices, and the sequences begin anew. It forgets the identity of the notices
// with them, but not that somebody polls.
func TestCrash(t *testing.T) {
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
	db := testdb.Open(t, "pgx", server.DSN)
	n, err := store.Names{Prefix: "s_"}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	migrateOn(t, db, n)
	s := store.New(db, n, 5*time.Second, false)
	t.Cleanup(s.Close)
	ctx := t.Context()
	put := func(version int64) {
		t.Helper()
		waitFor(t, "a write gets through", func() bool { // of the pool's connections some may be dead
			_, err := s.Put(ctx, []store.Write{{Key: "k", Version: version, TTL: time.Minute, Loud: true}}, false)
			return err == nil
		})
	}
	count := func(table string) (rows int) {
		t.Helper()
		if err := db.QueryRowContext(ctx, "SELECT count(*) FROM "+table).Scan(&rows); err != nil {
			t.Fatal(err)
		}
		return rows
	}
	identity, last, err := s.BeginPolling(ctx, "before", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	put(1)
	put(2)
	if _, err := s.Flush(ctx, notify.Head(1)); err != nil {
		t.Fatal(err)
	}
	put(3)
	if count("s_cache_changes") != 1 || count("s_cache_notices") != 2 {
		t.Fatal("the log is not as it should be")
	}
	for _, mode := range []string{"fast", "immediate"} {
		if err := server.Restart(ctx, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(ctx, "k"); err != nil {
			t.Fatal(err)
		}
		found, notices, err := s.Notices(ctx, last)
		if err != nil {
			t.Fatal(err)
		}
		if mode == "fast" {
			if found != identity || len(notices) != 1 || count("s_cache_changes") != 1 {
				t.Errorf("after an orderly restart: identity %q, %d notices, %d changes", found, len(notices), count("s_cache_changes"))
			}
			continue
		}
		if found == identity || count("s_cache_changes") != 0 || count("s_cache_notices") != 0 || count("s_cache_entries") != 0 {
			t.Errorf("after a crash: identity %q, %d changes, %d notices, %d entries", found, count("s_cache_changes"), count("s_cache_notices"), count("s_cache_entries"))
		}
	}
	put(4)
	if count("s_cache_changes") != 1 {
		t.Error("after a crash writers have forgotten that somebody polls")
	}
	if found, last, err := s.BeginPolling(ctx, "after", time.Hour); found != "after" || last != 0 || err != nil {
		t.Error(found, last, err)
	}
}

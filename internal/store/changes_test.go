package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgcache/go/internal/dbsqlc"
	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
)

// recorder receives what is published, on a session of its own.
type recorder struct {
	w    *watched
	conn *pgx.Conn
}

func (w *watched) listen() *recorder {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), testdb.DSN(w.t))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close(context.Background()) }) //nolint:usetesting // the test's context is done by then
	if _, err := conn.Exec(w.t.Context(), "LISTEN "+pgx.Identifier{w.Names.Channel}.Sanitize()); err != nil {
		w.t.Fatal(err)
	}
	return &recorder{w, conn}
}

// published is what was received.
const window = 25 * time.Millisecond

type published struct {
	messages int
	longest  int
	all      bool // "forget everything"
	prefixes []string
	items    []item
	versions map[string][]int64 // of each key, in the order received
}

type item struct {
	key      string
	versions []int64
}

func (h *published) add(t *testing.T, payload string) {
	t.Helper()
	h.messages++
	h.longest = max(h.longest, len(payload))
	m, err := notify.Parse(payload)
	if err != nil {
		t.Error(err)
		return
	}
	err = m.Items(func(key string, versions []int64) {
		h.items = append(h.items, item{key, slices.Clone(versions)})
		if h.versions == nil {
			h.versions = map[string][]int64{}
		}
		h.versions[key] = append(h.versions[key], versions...)
	}, func(g notify.Group) { h.prefixes = append(h.prefixes, g.Name) }, func() { h.all = true })
	if err != nil {
		t.Error(err)
	}
}

// published returns what was published since the last call. Everything that was committed before the call is in it.
func (e *recorder) published() (h published) {
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
	f, err := w.Flush(w.t.Context(), notify.Sender(1, window))
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// begin flushes inside a transaction, and returns it.
func (w *watched) begin() (tx *sql.Tx, pid int) {
	w.t.Helper()
	tx, err := w.db.BeginTx(w.t.Context(), &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = tx.Rollback() })
	var r dbsqlc.FlushRow
	if err := tx.QueryRow(w.Names.Render(dbsqlc.Flush), notify.Sender(2, window), w.Names.Class(), -2, false).Scan(&r.Changes, &r.Messages, &r.Bytes); err != nil {
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

// TestOrderIsCommitOrder: of each key, the version that is published last is the version of the row, however many wrote it at
// the same time and however many flushed.
func TestOrderIsCommitOrder(t *testing.T) {
	t.Parallel()
	const writers, keys, rounds = 12, 3, 40
	for name, flushing := range map[string]bool{"in the log": false, "as published": true} {
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
			recorder := w.listen()
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
						if _, err := s.Flush(t.Context(), notify.Sender(1, window)); err != nil && !errors.Is(err, store.ErrFlushing) {
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
				for _, i := range recorder.published().items {
					last[i.key] = i.versions[0] // newest first
					for _, v := range i.versions {
						seen[v]++
					}
				}
				for k := range keys {
					key := fmt.Sprint("k", k)
					if v := scan[int64](w, "SELECT version FROM "+w.object("cache_entries")+" WHERE key = $1", key); last[key] != v {
						t.Errorf("%s: published last %d, the row has %d", key, last[key], v)
					}
				}
			}
			if len(seen) != written {
				t.Errorf("%d versions were published of %d written", len(seen), written)
			}
			for v, n := range seen {
				if n > 1 {
					t.Errorf("version %d was published %d times", v, n)
				}
			}
		})
	}
}

// TestPayloads: whatever is in the log, each message fits, and all of it is published: at most the newest 16 versions of a
// key, and "forget everything" where it would be too many of them or of keys.
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
		"many long ones":      {400, 1, "lpad(k::text, 200, 'x')", 1, true},
		"the most":            {1024, 1, "'k' || k", 4, false},
		"one too many":        {1025, 1, "'k' || k", 1, true},
		"too many":            {9000, 1, "'some key ' || k", 1, true},
		"everything":          {1, 1, "''", 1, true},
		"everything and more": {3, 2, "CASE WHEN k = 2 THEN '' ELSE 'k' || k END", 1, true},
		"strange keys":        {5, 3, "(ARRAY['0:', ';', '1*', e'\\x1f\"', '\U0001F600'])[k]", 1, false},
		"a key like a length": {1, 1, "'0:'", 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := watch(t)
			recorder := w.listen()
			w.log(test.keys, test.versions, test.key)
			if name == "too many" { // also for those who poll
				w.exec("UPDATE " + w.object("cache_state") + " SET poller_lease = clock_timestamp() + interval '1 minute'")
			}
			f := w.flush()
			h := recorder.published()
			if f.Changes != int64(test.keys*test.versions) || f.Bytes < 8192 || w.logged() != 0 {
				t.Errorf("flushed %+v, %d are left", f, w.logged())
			}
			if h.messages != test.messages || h.all != test.all || h.longest > notify.MaxPayload {
				t.Errorf("%d messages (want %d), the longest has %d bytes, all: %v", h.messages, test.messages, h.longest, h.all)
			}
			if name == "too many" && scan[int](w, "SELECT count(*) FROM "+w.object("cache_notices")) != 1 {
				t.Error("those who poll are published more than once")
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
		recorder := w.listen()
		for n, want := range map[int]published{900: {messages: 5}, 1000: {messages: 1, all: true}} {
			rows := make([]store.Write, n)
			for i := range rows {
				key := fmt.Sprint("some key ", i)
				if n == 1000 {
					key += strings.Repeat("x", 100)
				}
				rows[i] = store.Write{Key: key, Version: int64(i + 1), TTL: time.Minute, Codec: "c", PublishNew: true}
			}
			if _, err := w.Put(t.Context(), rows, true); err != nil {
				t.Fatal(err)
			}
			h := recorder.published()
			if h.messages != want.messages || h.all != want.all || h.longest > notify.MaxPayload || (!want.all && len(h.versions) != n) {
				t.Errorf("%d keys: %d messages, the longest has %d bytes, %d keys, all: %v", n, h.messages, h.longest, len(h.versions), h.all)
			}
		}
	})
}

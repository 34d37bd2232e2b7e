package pgcache_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// logs is a log that can be read while it is written.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// logger writes to l whatever there is to be logged.
func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// cacheID is what messages of the cluster carry.
func (cl *cluster) cacheID() (id string) {
	cl.t.Helper()
	if err := cl.db.QueryRowContext(cl.t.Context(), "SELECT id FROM "+cl.names().State()).Scan(&id); err != nil {
		cl.t.Fatal(err)
	}
	return id
}

func (cl *cluster) forge(payload string) {
	cl.t.Helper()
	cl.exec("SELECT pg_notify($1, $2)", cl.names().Channel, payload)
}

// Who may NOTIFY on the channel can make a node forget, with a message that looks like any other, and nothing else: no value is
// served that is not in the table, nothing is written, and memory goes on. It is counted with the invalidations.
func TestForgedMessages(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	var log logs
	a := cl.on(testdb.DB(t), nil)
	b := cl.node(func(db *sql.DB, o *pgcache.Options) { o.Listener, o.Logger = calm(pgxdriver.Dial(db)), log.logger() })
	id := cl.cacheID()
	set(t, a, "k", 1)
	set(t, a, "ns:k", 2)
	content := func() (s string) {
		t.Helper()
		if err := cl.db.QueryRowContext(t.Context(), "SELECT string_agg(c::text, ' ' ORDER BY key) FROM "+cl.table()+" c").Scan(&s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	before, written := content(), int64(0)
	if err := cl.db.QueryRowContext(t.Context(), "SELECT version FROM "+cl.table()+" WHERE key = 'k'").Scan(&written); err != nil {
		t.Fatal(err)
	}
	item := func(key string, versions ...int64) string { return string(notify.AppendItem(nil, key, versions...)) }
	bodies := map[string]struct {
		body  string
		keys  uint64
		all   uint64
		keeps bool // the entry of k
	}{
		"everything":              {body: notify.All, all: 1},
		"nothing":                 {keeps: true},
		"the key, nobody's":       {body: item("k", 0), keys: 1},
		"the key, another":        {body: item("k", 1<<63-1), keys: 1},
		"the key, its own":        {body: item("k", written), keys: 1, keeps: true},
		"the key, many":           {body: item("k", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, written), keys: 1},
		"a key of a namespace":    {body: item("ns:k", 1), keys: 1, keeps: true},
		"the empty key":           {body: item("", 1), keys: 1, keeps: true},
		"a key that can't be":     {body: item(strings.Repeat("x", 5000), 1), keys: 1, keeps: true},
		"a key with strange text": {body: item("'; DROP TABLE x; --\n\u202e%s", 1), keys: 1, keeps: true},
		"many keys":               {body: strings.Repeat(item("k", 3), 200), keys: 200},
	}
	heads := map[string]string{
		"inline": "2" + id, "inline, any cache": "2" + notify.AnyCache, "a flush of nobody": "1" + id + notify.Nobody,
		"a flush": "1" + id + notify.Sender(0xdeadbeef, 25*time.Millisecond), "a flush, any cache": "1" + notify.AnyCache + notify.Sender(7, 0),
		"a flush, the longest window": "1" + id + notify.Sender(1<<32-1, time.Hour), "a flush, the shortest": "1" + id + notify.Sender(1, 0),
	}
	for head, start := range heads {
		for name, m := range bodies {
			name = head + ", " + name
			inTime(t, func() error { // where a busy machine keeps a pulse waiting nothing is answered from memory
				warm(t, b, "k", 1)
				warm(t, b, "ns:k", 2)
				was := b.Stats()
				cl.forge(start + m.body)
				cl.forge("2" + id + item("after it", 1))
				eventually(t, name+" arrives", func() bool { return b.Stats().Invalidations == was.Invalidations+m.keys+1 })
				is := b.Stats()
				if is.LocalFlushes != was.LocalFlushes+m.all || is.UnknownMessages != was.UnknownMessages {
					return fmt.Errorf("%s: before %+v, after %+v", name, was, is)
				}
				want(t, b, "k", 1)
				if kept := b.Stats().LocalHits == is.LocalHits+1; kept != m.keeps {
					return fmt.Errorf("%s: kept: %v", name, kept)
				}
				want(t, b, "ns:k", 2)
				return nil
			})
		}
	}
	// Keys are not hidden in this cache: a message that says so can't be understood.
	for _, kind := range []string{"3" + id + notify.Nobody, "4" + id, "4" + notify.AnyCache} {
		warm(t, b, "k", 1)
		was := b.Stats()
		cl.forge(kind + item(notify.HiddenKey(make([]byte, 32), "k"), 1))
		eventually(t, "it arrives", func() bool { return b.Stats().UnknownMessages == was.UnknownMessages+1 })
		want(t, b, "k", 1)
	}
	if after := content(); after != before {
		t.Errorf("the table was %s, is %s", before, after)
	}
	// An echo that was forged does not make the node believe that its listener is on another server.
	inTime(t, func() error {
		warm(t, b, "k", 1)
		was := b.Stats()
		for _, server := range []string{":123", "", ":", "x:-1", strings.Repeat("A", 26) + "::99"} {
			cl.forge(pgcache.ProbePrefix + server)
		}
		cl.forge("2" + id + item("after it", 1))
		eventually(t, "they arrive", func() bool { return b.Stats().Invalidations == was.Invalidations+1 })
		hits := b.Stats().LocalHits
		want(t, b, "k", 1)
		wantNone(t, b, "other") // a row's server is compared with the listener's
		want(t, b, "k", 1)
		if is := b.Stats(); is.LocalHits != hits+2 || is.LocalFlushes != was.LocalFlushes {
			return fmt.Errorf("before %+v, after %+v", was, is)
		}
		return nil
	})
	if s := log.String(); strings.Count(s, "WARN") != 1 || strings.Contains(s, "ERROR") { // of the first that could not be understood
		t.Errorf("it logged %s", s)
	}
	set(t, a, "k", 3)
	eventually(t, "the change arrives", func() bool { v, _ := get[int](t, b, "k"); return v == 3 })
}

// Where keys are hidden, who does not know the secret can't name one; with a plain key a message still makes a node forget it.
func TestForgedHidden(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	b := cl.node(func(db *sql.DB, o *pgcache.Options) { o.Listener, o.HideKeys = calm(pgxdriver.Dial(db)), true })
	id := cl.cacheID()
	set(t, b, "k", 1)
	for head, kept := range map[string]bool{"4" + id: true, "3" + id + notify.Sender(7, 0): true, "2" + id: false, "1" + id + notify.Nobody: false} {
		inTime(t, func() error { // where a busy machine keeps a pulse waiting nothing is answered from memory
			warm(t, b, "k", 1)
			was := b.Stats()
			key := "k"
			if kept {
				key = notify.HiddenKey(make([]byte, 32), "k") // of another secret
			}
			cl.forge(head + string(notify.AppendItem(nil, key, 1)))
			eventually(t, "it arrives", func() bool { return b.Stats().Invalidations == was.Invalidations+1 })
			want(t, b, "k", 1)
			if is := b.Stats(); is.LocalHits == was.LocalHits+1 != kept || is.LocalFlushes != was.LocalFlushes {
				return fmt.Errorf("%s: before %+v, after %+v", head, was, is)
			}
			return nil
		})
	}
}

// Messages that can't be understood are counted each and logged once a minute.
func TestForgedGarbage(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	var log logs
	b := cl.node(func(db *sql.DB, o *pgcache.Options) { o.Listener, o.Logger = calm(pgxdriver.Dial(db)), log.logger() })
	set(t, b, "k", 1)
	for _, n := range []uint64{500, 501} {
		for i := b.Stats().UnknownMessages; i < n; i++ {
			cl.forge(fmt.Sprintf("garbage %d\n\x1b[31m", i))
		}
		eventually(t, "all are counted", func() bool { return b.Stats().UnknownMessages == n })
		time.Sleep(1200 * time.Millisecond) // the limit of other warnings
	}
	if n := strings.Count(log.String(), "unknown message"); n != 1 {
		t.Errorf("logged %d times: %s", n, log.String())
	}
	if strings.Contains(log.String(), "\x1b") {
		t.Error("what came on the channel is in the log as it was")
	}
	warm(t, b, "k", 1)
}

// Forged flushes, without a pause, make nodes believe that somebody else leads. What they write is published all the same.
func TestForgedLeader(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.node(nil)
	b := cl.node(nil)
	id := cl.cacheID()
	set(t, a, "k", 0)
	warm(t, b, "k", 0)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	forging := async(t, func() error {
		for i := 0; ctx.Err() == nil; i++ {
			window := []time.Duration{time.Millisecond, 25 * time.Millisecond}[i%2]
			_, err := cl.db.ExecContext(ctx, "SELECT pg_notify($1, $2)", cl.names().Channel, "1"+id+notify.Sender(1<<32-1, window))
			if err != nil && ctx.Err() == nil {
				return err
			}
		}
		return nil
	})
	for v := 1; v <= 2; v++ {
		set(t, a, "k", v)
		began := time.Now()
		eventually(t, "the change arrives", func() bool {
			got, _ := get[int](t, b, "k")
			if got != v && got != v-1 {
				t.Fatalf("%d, want %d", got, v)
			}
			return got == v
		})
		t.Logf("after %v", time.Since(began))
	}
	cancel()
	if err := forging(); err != nil {
		t.Error(err)
	}
}

// FuzzPayload: whatever is sent on the channel, a node serves what is in the table, at the most it forgets.
func FuzzPayload(f *testing.F) {
	o := fuzzOptions(f)
	db := testdb.DB(f)
	a := fuzzNode(f, db, o)
	// The id is known, so that messages can be forged.
	mustExec(f, db, "UPDATE "+o.Schema+".t_cache_state SET id = 'c0ffee00'")
	near := nearNode(f, o)
	channel := o.Schema + "_t_cache_events"
	n := 0
	f.Fuzz(func(t *testing.T, payload string) {
		if len(payload) > notify.MaxPayload || !utf8.ValidString(payload) || strings.Contains(payload, "\x00") {
			return // the server refuses it
		}
		n++
		set(t, a, "k", n)
		set(t, a, "mark", -n)
		eventually(t, "the changes arrive", func() bool { v, _ := get[int](t, near, "k"); return v == n })
		warm(t, near, "k", n)
		warm(t, near, "mark", -n)
		mustExec(t, db, "SELECT pg_notify($1, $2)", channel, payload)
		n++
		set(t, a, "mark", -n)
		eventually(t, "what came after it arrives", func() bool {
			v, _ := get[int](t, near, "mark")
			if v != -n && v != 1-n {
				t.Fatalf("the mark is %d, want %d", v, -n)
			}
			return v == -n
		})
		want(t, near, "k", n-1)
		warm(t, near, "k", n-1) // memory goes on
		var rows int
		if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+o.Schema+".t_cache_entries").Scan(&rows); rows != 2 || err != nil {
			t.Errorf("%d rows, %v", rows, err)
		}
	})
}

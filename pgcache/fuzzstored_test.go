package pgcache_test

import (
	"context"
	"database/sql"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/msgpack"
	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// storedLimit is the MaxValueBytes of the nodes that read what was put into rows by hand.
const storedLimit = 16 << 10

// storedRow is a row that is written by hand, and nodes that read it.
type storedRow struct {
	db    *sql.DB
	table string
	codec codec.Codec
	nodes map[string]*pgcache.Cache
}

func newStoredRow(f *testing.F, c codec.Codec) *storedRow {
	f.Helper()
	o := fuzzOptions(f)
	o.Codec, o.MaxValueBytes = c, storedLimit
	s := &storedRow{db: testdb.DB(f), table: o.Schema + ".t_cache_entries", codec: c}
	s.nodes = map[string]*pgcache.Cache{"pgx": fuzzNode(f, s.db, o), "lib/pq": fuzzNode(f, testdb.Open(f, "postgres", testdb.DSN(f)), o), "memory": nearNode(f, o)}
	if err := s.nodes["pgx"].Set(f.Context(), "k", 1); err != nil {
		f.Fatal(err)
	}
	return s
}

// put writes the row, and waits until the node with a memory has received it.
func (s *storedRow) put(t *testing.T, value []byte, codecName string) error {
	t.Helper()
	received := s.nodes["memory"].Stats().Invalidations
	_, err := s.db.ExecContext(t.Context(), "UPDATE "+s.table+" SET value = $1, codec = $2 WHERE key = 'k'", value, codecName)
	if err == nil {
		eventually(t, "the change arrives", func() bool { return s.nodes["memory"].Stats().Invalidations > received })
	}
	return err
}

// decodes says whether every node's Get hands out what the codec makes of data as a T, or misses where it makes nothing of it.
func decodes[T any](t *testing.T, s *storedRow, data []byte) {
	t.Helper()
	var want, none T
	found := len(data) <= storedLimit && s.codec.Unmarshal(data, &want) == nil
	if !found {
		want = none
	}
	for name, c := range s.nodes {
		typed, before := pgcache.For[T](c), c.Stats()
		for range 2 { // the second time out of the memory, where there is one
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got, ok, err := typed.Get(t.Context(), "k")
			runtime.ReadMemStats(&after)
			if used, most := after.TotalAlloc-before.TotalAlloc, uint64(400*min(len(data), storedLimit)+1<<20); used > most {
				t.Errorf("%s: a Get of %d bytes as %T allocated %d, want at most %d", name, len(data), want, used, most)
			}
			var untyped T
			ok2, err2 := c.Get(t.Context(), "k", &untyped)
			if err != nil || err2 != nil || ok != found || ok2 != found {
				t.Errorf("%s: %.100q as %T: found %v, %v, %v, %v, want %v", name, data, want, ok, ok2, err, err2, found)
			}
			if !alike(want, got) || !alike(want, untyped) {
				t.Errorf("%s: %.100q as %T is %.200v, %.200v, want %.200v", name, data, want, got, untyped, want)
			}
		}
		if after := c.Stats(); !found && after.DecodeErrors == before.DecodeErrors {
			t.Errorf("%s: not counted", name)
		}
	}
}

func alike(a, b any) bool {
	return reflect.DeepEqual(a, b) || cmp.Equal(a, b, cmpopts.EquateNaNs())
}

// fuzzStored writes arbitrary bytes into the value of a row.
func fuzzStored(f *testing.F, c codec.Codec) {
	for _, v := range []any{
		nil, true, 7, -1 << 40, 2.5, "text", "\u00e9\x00",
		[]byte{0, 255},
		time.Unix(1e9, 5).UTC(),
		[]string{"a", ""},
		map[string]any{"a": "b"},
		user{7, "Ann", []string{"admin"}},
		strings.Repeat("x", storedLimit-3), strings.Repeat("x", storedLimit+1),
	} {
		data, err := c.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	s := newStoredRow(f, c)
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := s.put(t, data, c.Name()); err != nil {
			t.Fatal(err)
		}
		decodes[any](t, s, data)
		decodes[string](t, s, data)
		decodes[[]byte](t, s, data)
		decodes[int16](t, s, data)
		decodes[float64](t, s, data)
		decodes[time.Time](t, s, data)
		decodes[[]string](t, s, data)
		decodes[map[string]any](t, s, data)
		decodes[user](t, s, data)
	})
}

func FuzzStoredJSON(f *testing.F) { fuzzStored(f, codec.JSON{}) }

func FuzzStoredGob(f *testing.F) { fuzzStored(f, codec.Gob{}) }

func FuzzStoredMsgpack(f *testing.F) { fuzzStored(f, msgpack.Codec{}) }

// FuzzStoredCodec writes an arbitrary name of a codec into a row: only the reader's own is read.
func FuzzStoredCodec(f *testing.F) {
	s := newStoredRow(f, codec.JSON{})
	f.Fuzz(func(t *testing.T, name string) {
		if !utf8.ValidString(name) || strings.Contains(name, "\x00") {
			return // the server refuses it
		}
		if err := s.put(t, []byte("7"), name); err != nil {
			if len(name) <= 32 || sqlerr.State(err) != "23514" {
				t.Error(err)
			}
			return
		}
		for node, c := range s.nodes {
			for range 2 {
				if v, found, err := pgcache.For[int](c).Get(t.Context(), "k"); found != (name == "json") || found && v != 7 || err != nil {
					t.Errorf("%s: codec %q: %v, %v, %v", node, name, v, found, err)
				}
			}
		}
	})
}

// A value above MaxValueBytes, which another service or a node of other options has written, stays where it is: it is not read.
func TestStoredTooLarge(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		var log logs
		db := testdb.Open(t, driver, testdb.DSN(t))
		node := func(g pgcache.Guard) *pgcache.Cache {
			return cl.on(db, func(o *pgcache.Options) { o.MaxValueBytes, o.Logger, o.Guard = 1<<20, log.logger(), g })
		}
		c, bare := node(pgcache.AdvisoryLock()), node(pgcache.NoGuard())
		set(t, c, "good", "v")
		put := func() {
			t.Helper()
			cl.exec("INSERT INTO " + cl.table() + " (key, value) VALUES ('k', convert_to('\"' || repeat('x', 64 << 20) || '\"', 'UTF8')) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value")
		}
		put()
		for range 3 {
			wantNoneOf[string](t, c, "k")
		}
		if m, err := pgcache.For[string](c).GetMany(t.Context(), []string{"k", "good"}); len(m) != 1 || err != nil {
			t.Error(len(m), err)
		}
		if n := c.Stats().DecodeErrors; n != 4 {
			t.Errorf("%d are counted", n)
		}
		if !strings.Contains(log.String(), "MaxValueBytes") {
			t.Errorf("logged %q", log.String())
		}
		// A load stores over it.
		for i, c := range []*pgcache.Cache{c, bare} {
			if i > 0 {
				put()
			}
			var v string
			if err := c.GetOrSet(t.Context(), "k", &v, func(context.Context) (any, error) { return "small", nil }); v != "small" || err != nil {
				t.Errorf("%.20q, %v", v, err)
			}
			want(t, c, "k", "small")
		}
	})
}

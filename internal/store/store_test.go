package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/internal/migrate"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

type table struct {
	*store.Store
	t  *testing.T
	db *sql.DB
}

func forDrivers(t *testing.T, test func(t *testing.T, s *table)) {
	t.Parallel()
	for _, driver := range testdb.Drivers(t) {
		for _, prepare := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/prepare=%v", driver, prepare), func(t *testing.T) {
				t.Parallel()
				n, err := store.Names{Schema: testdb.Schema(t), Prefix: "s_"}.Resolve()
				if err != nil {
					t.Fatal(err)
				}
				db := testdb.Open(t, driver, testdb.DSN(t))
				if err := migrate.Run(t.Context(), db, n); err != nil {
					t.Fatal(err)
				}
				s := store.New(db, n, 5*time.Second, prepare)
				t.Cleanup(s.Close)
				test(t, &table{s, t, db})
			})
		}
	}
}

func (s *table) exec(query string, args ...any) {
	s.t.Helper()
	if _, err := s.db.ExecContext(s.t.Context(), query, args...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *table) put(rows ...store.Write) {
	s.t.Helper()
	out, err := s.Put(s.t.Context(), rows, true)
	if err != nil {
		s.t.Fatal(err)
	}
	if out.Server == 0 || len(out.Stored) != len(rows) || len(out.Logged) != len(rows) {
		s.t.Fatalf("%+v", out)
	}
}

func (s *table) get(key string) store.Row {
	s.t.Helper()
	row, err := s.Get(s.t.Context(), key)
	if err != nil {
		s.t.Fatal(err)
	}
	return row
}

func row(key, value string, version int64) store.Write {
	return store.Write{Key: key, Value: []byte(value), Version: version, TTL: time.Hour, Codec: "c"}
}

func TestRows(t *testing.T) {
	forDrivers(t, func(t *testing.T, s *table) {
		if r := s.get("none"); r.Key != "none" || r.Live() || r.Version != 0 || r.Server != 0 || r.Remaining != 0 {
			t.Errorf("%+v", r)
		}
		s.put(row("k", "v", 7))
		r := s.get("k")
		if string(r.Value) != "v" || r.Version != 7 || r.Codec != "c" || !r.Live() || r.Server == 0 || r.Remaining > time.Hour || r.Remaining < 59*time.Minute {
			t.Errorf("%+v", r)
		}
		server := r.Server
		s.put(store.Write{Key: "k", Version: 8, TTL: time.Minute, Codec: "d"}) // a tombstone
		if r := s.get("k"); r.Live() || r.Version != 8 || r.Codec != "d" || r.Server != server {
			t.Errorf("%+v", r)
		}
		s.put(store.Write{Key: "k", Value: []byte{}, Version: 9, TTL: store.Never, Codec: "c"})
		if r := s.get("k"); !r.Live() || len(r.Value) != 0 || r.Remaining < 100*365*24*time.Hour {
			t.Errorf("%+v", r)
		}
		s.put(store.Write{Key: "k", Value: []byte("x"), Version: 10, TTL: 0, Codec: "c"})
		if r := s.get("k"); r.Live() || r.Version != 10 { // expired, and its version is still there
			t.Errorf("%+v", r)
		}
		// Many: in the order asked for, whether they are there or not, also twice.
		s.put(row("a", "1", 1), store.Write{Key: "b", Version: 2, TTL: time.Minute, Codec: "c"}, row("c", "", 3), row("d", strings.Repeat("x", 100), 4))
		rows, err := s.GetMany(t.Context(), []string{"d", "none", "b", "a", "c", "a"})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range rows {
			got = append(got, fmt.Sprintf("%s %.3s %v %d", r.Key, r.Value, r.Live(), r.Version))
		}
		if want := []string{"d xxx true 4", "none  false 0", "b  false 2", "a 1 true 1", "c  true 3", "a 1 true 1"}; !cmp.Equal(got, want) {
			t.Errorf("%q", got)
		}
	})
}

// More than a statement takes: all arrives, whatever the sizes.
func TestBulk(t *testing.T) {
	forDrivers(t, func(t *testing.T, s *table) {
		var rows []store.Write
		var keys []string
		for i := range 2100 {
			w := row(fmt.Sprintf("k%d", i), strings.Repeat("v", i%50), int64(i+1))
			if i%7 == 0 {
				w.Value = nil
			}
			rows, keys = append(rows, w), append(keys, w.Key)
		}
		big := bytes.Repeat([]byte{0, 255, '\\', '\''}, 700_000) // 2.8 MB each
		for i := range 3 {
			rows = append(rows, store.Write{Key: fmt.Sprint("big", i), Value: big, Version: 5, TTL: time.Hour, Codec: "c"})
		}
		rand.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		s.put(rows...)
		got, err := s.GetMany(t.Context(), keys)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range got {
			if live := i%7 != 0; r.Live() != live || r.Version != int64(i+1) || (live && len(r.Value) != i%50) {
				t.Fatalf("%d: %+v", i, r)
			}
		}
		for i := range 3 {
			if r := s.get(fmt.Sprint("big", i)); !bytes.Equal(r.Value, big) {
				t.Errorf("big%d has %d bytes", i, len(r.Value))
			}
		}
	})
}

// The fence: what a load brings is stored over exactly the row that it saw, and never over a Clear.
func TestFence(t *testing.T) {
	forDrivers(t, func(t *testing.T, s *table) {
		ctx := t.Context()
		incarnation, looked, err := s.Incarnation(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i, test := range []struct {
			before []store.Write // what is there
			fence  int64
			gen    int64
			stored bool
		}{
			{nil, 0, incarnation, true},
			{nil, 5, incarnation, true}, // it was removed meanwhile: nobody wrote
			{[]store.Write{row("", "v", 5)}, 5, incarnation, true},
			{[]store.Write{row("", "v", 5)}, 0, incarnation, false},
			{[]store.Write{row("", "v", 6)}, 5, incarnation, false},
			{[]store.Write{row("", "v", 5), {Version: 7, TTL: time.Minute}}, 5, incarnation, false}, // deleted
			{[]store.Write{{Version: 7, TTL: time.Minute}}, 7, incarnation, true},                   // it saw the tombstone
			{[]store.Write{{Version: 7, TTL: time.Minute}}, 0, incarnation, false},
			{[]store.Write{{Value: []byte("v"), Version: 5, TTL: 0}}, 5, incarnation, true}, // it saw it expired
			{[]store.Write{{Value: []byte("v"), Version: 5, TTL: 0}}, 0, incarnation, false},
			{nil, 0, incarnation + 1, false},
			{nil, 0, incarnation - 1, false},
		} {
			key := fmt.Sprint("k", i)
			for _, w := range test.before {
				w.Key, w.Codec = key, "c"
				s.put(w)
			}
			before := s.get(key)
			load := row(key, "loaded", 100)
			load.Fence, load.Incarnation, load.Looked = test.fence, test.gen, looked
			beside := row("beside"+key, "loaded", 100) // which can always be stored
			beside.Incarnation, beside.Looked = incarnation, looked
			out, err := s.PutLoaded(ctx, []store.Write{load, beside}, true)
			if err != nil {
				t.Fatal(err)
			}
			if !cmp.Equal(out.Stored, []bool{test.stored, true}) {
				t.Errorf("%d: stored %v", i, out.Stored)
			}
			after := s.get(key)
			if test.stored && (string(after.Value) != "loaded" || after.Version != 100) || !test.stored && (after.Version != before.Version || string(after.Value) != string(before.Value)) {
				t.Errorf("%d: %+v, then %+v", i, before, after)
			}
		}
		if err := s.Clear(ctx); err != nil {
			t.Fatal(err)
		}
		turned, _, err := s.Incarnation(ctx)
		if err != nil || turned == incarnation {
			t.Fatal(turned, err)
		}
		if r := s.get("k2"); r.Version != 0 {
			t.Errorf("%+v", r)
		}
	})
}

// Writes that share statements: each gets its own answer, and of one key the row is one of those written.
func TestSharedStatements(t *testing.T) {
	forDrivers(t, func(t *testing.T, s *table) {
		const callers, writes = 16, 25
		var wg sync.WaitGroup
		for c := range callers {
			wg.Go(func() {
				for i := range writes {
					version := int64(c*1000 + i + 1)
					own, shared := row(fmt.Sprint("own", c), fmt.Sprint(i), version), row("shared", fmt.Sprint(version), version)
					out, err := s.Put(t.Context(), []store.Write{own, shared}, i%2 == 0)
					if err != nil || !cmp.Equal(out.Stored, []bool{true, true}) {
						t.Errorf("%+v, %v", out, err)
						return
					}
					r, err := s.Get(t.Context(), own.Key)
					if err != nil || r.Version != version || string(r.Value) != fmt.Sprint(i) {
						t.Errorf("wrote %d, then read %+v, %v", version, r, err)
						return
					}
					if r, err = s.Get(t.Context(), "shared"); err != nil || string(r.Value) != fmt.Sprint(r.Version) {
						t.Errorf("%+v, %v", r, err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

// An error reaches those whom it concerns: a statement that several share is tried one by one.
func TestErrorsOfOne(t *testing.T) {
	forDrivers(t, func(t *testing.T, s *table) {
		s.exec(fmt.Sprintf("ALTER TABLE %s ADD CHECK (key <> 'bad')", s.Names.Table()))
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				key := fmt.Sprint("good", i)
				if i%10 == 0 {
					key = "bad"
				}
				_, err := s.Put(t.Context(), []store.Write{row(key, "v", int64(i+1))}, true)
				if (err != nil) != (key == "bad") {
					t.Errorf("%s: %v", key, err)
				}
			})
		}
		wg.Wait()
		// And a caller that leaves, leaves alone.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Put(ctx, []store.Write{row("gone", "v", 1)}, true); err == nil {
			t.Error("an ended context wrote")
		}
	})
}

func TestUpkeep(t *testing.T) {
	forDrivers(t, func(t *testing.T, s *table) {
		ctx := t.Context()
		for i := range 10 {
			s.put(row(fmt.Sprint("live", i), "v", 1), store.Write{Key: fmt.Sprint("dead", i), Value: []byte("v"), Version: 1, TTL: 0, Codec: "c"})
		}
		s.put(store.Write{Key: "never", Value: []byte("v"), Version: 1, TTL: store.Never, Codec: "c"})
		for _, step := range []struct {
			grace time.Duration
			batch int
			want  int64
		}{{time.Minute, 100, 0}, {0, 4, 4}, {0, 100, 6}, {0, 100, 0}} {
			until, err := s.Ago(ctx, step.grace)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := s.Expire(ctx, 0, until, step.batch, true); n != step.want || err != nil {
				t.Errorf("%+v: %d, %v", step, n, err)
			}
		}
		rows, size, err := s.Size(ctx)
		if rows != 11 || size < 11*100 || err != nil {
			t.Error(rows, size, err)
		}
		// Of many that ask at once for one interval, one gets it.
		var mine int
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				got, err := s.ClaimSweep(ctx, time.Hour)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if got {
					mine++
				}
			})
		}
		wg.Wait()
		if mine != 1 {
			t.Errorf("%d claims", mine)
		}
		if got, err := s.ClaimSweep(ctx, 0); !got || err != nil {
			t.Error(got, err)
		}
		state, err := s.State(ctx)
		if state.Version != migrate.Latest() || len(state.ID) != 8 || state.Channel != s.Names.Channel || err != nil {
			t.Error(state, err)
		}
	})
}

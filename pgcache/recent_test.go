package pgcache

import (
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/localcache"
)

func numbered(i int) localcache.Key { return localcache.Key{Name: strconv.Itoa(i)} }

// What is remembered of keys is bounded, also where nothing of it is over: the newest is remembered then.
func TestRecentIsBounded(t *testing.T) {
	t.Parallel()
	var r recent[int]
	for i := range 3 * maxRecent {
		r.put(numbered(i), i, 0, math.MaxInt64)
		if v, _, ok := r.get(numbered(i), 1); !ok || v != i {
			t.Fatalf("%d is not remembered", i)
		}
		if len(r.of) > maxRecent {
			t.Fatalf("%d keys are remembered", len(r.of))
		}
	}
	// What is over goes first.
	var s recent[int]
	for i := range maxRecent {
		s.put(numbered(i), i, 0, int64(1+i%2*100))
	}
	for i := range maxRecent / 8 {
		s.put(numbered(maxRecent+i), i, 50, 1000)
	}
	lost := 0
	for i := 1; i < maxRecent; i += 2 {
		if _, _, ok := s.get(numbered(i), 50); !ok {
			lost++
		}
	}
	if lost > 8 {
		t.Errorf("%d were forgotten while others were over", lost)
	}
	s.put(numbered(0), 0, 50, 1000)
	s.forget(numbered(0))
	if _, _, ok := s.get(numbered(0), 50); ok {
		t.Error("it is remembered after forget")
	}
}

// At most maxEarlyLoads loads run in the background, one of a key, whatever is forgotten meanwhile; and each that ends makes room.
func TestRefreshesAreBounded(t *testing.T) {
	t.Parallel()
	var s earlyLoads
	for i := range maxEarlyLoads {
		if !s.begin(numbered(i)) || s.begin(numbered(i)) {
			t.Fatal(i)
		}
	}
	if s.begin(numbered(maxEarlyLoads)) {
		t.Error("one too many")
	}
	for i := range 3 * maxRecent { // those that run are forgotten too
		s.put(numbered(-1-i), struct{}{}, 0, math.MaxInt64)
	}
	for i := range maxEarlyLoads {
		s.end(numbered(i), int64(time.Hour))
	}
	if s.running != 0 || len(s.of) > maxRecent {
		t.Error(s.running, len(s.of))
	}
	if s.begin(numbered(0)) {
		t.Error("no pause")
	}
	s.end(numbered(1), -1)
	if !s.begin(numbered(1)) {
		t.Error("a pause that is over")
	}
}

// What a server answers that no test has at hand.
func TestDoctorServer(t *testing.T) {
	t.Parallel()
	now := time.Now()
	well := store.ServerHealth{Version: 150000, TrackCounts: true, Autovacuum: true, Locks: 10, LockRoom: 6400, NowUs: now.UnixMicro()}
	for id, change := range map[string]func(s *store.ServerHealth){
		"version":      func(s *store.ServerHealth) { s.Version = 130010 },
		"version ":     func(s *store.ServerHealth) { s.Version = 190000 },
		"standby":      func(s *store.ServerHealth) { s.InRecovery, s.ReadOnly = true, true },
		"read-only":    func(s *store.ServerHealth) { s.ReadOnly = true },
		"track-counts": func(s *store.ServerHealth) { s.TrackCounts = false },
		"autovacuum":   func(s *store.ServerHealth) { s.Autovacuum = false },
		"queue":        func(s *store.ServerHealth) { s.Queue = 0.2 },
		"locks":        func(s *store.ServerHealth) { s.Locks = 3201 },
		"clock":        func(s *store.ServerHealth) { s.NowUs -= (6 * time.Second).Microseconds() },
		"clock ":       func(s *store.ServerHealth) { s.NowUs += time.Hour.Microseconds() },
		"":             func(s *store.ServerHealth) { s.Version, s.NowUs = 180003, s.NowUs+time.Second.Microseconds() },
	} {
		s, d := well, &doctor{}
		change(&s)
		d.server(s, now, 2*time.Millisecond)
		switch {
		case id == "" && len(d.found) != 0, id != "" && len(d.found) != 1:
			t.Errorf("%q: %+v", id, d.found)
		case id != "" && (d.found[0].ID != id && d.found[0].ID+" " != id || d.found[0].What == "" || d.found[0].Remedy == ""):
			t.Errorf("%q: %+v", id, d.found)
		}
	}
	// A node that has waited 20 s for a connection knows the time of the answer to within these.
	d := &doctor{}
	well.NowUs = now.Add(20 * time.Second).UnixMicro()
	if d.server(well, now, 20*time.Second); len(d.found) != 0 {
		t.Errorf("%+v", d.found)
	}
}

// A transaction that is older than a bound is found. The bound is short here: the test would else take a minute.
func TestDoctorTransactions(t *testing.T) {
	t.Parallel()
	c, err := New(testdb.DB(t), Options{Schema: testdb.Schema(t), CleanupInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	tx, err := testdb.DB(t).BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // it ends the transaction
	var pid string
	if err := tx.QueryRowContext(t.Context(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		d := &doctor{c: c}
		if err := d.snapshots(t.Context(), time.Millisecond); err != nil {
			t.Fatal(err)
		}
		for _, f := range d.found { // five at the most, the oldest first: others run here too
			if f.ID != "old-transaction" || f.Remedy == "" {
				t.Errorf("%+v", f)
			}
			if strings.HasPrefix(f.What, "session "+pid+" of ") && strings.Contains(f.What, "does nothing in a transaction since") {
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("it is not found")
}

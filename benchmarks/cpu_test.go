package main

import (
	"math"
	"testing"
	"time"

	"github.com/pgcache/go/internal/notify"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	const line = "4711 (a (b) c) S 42 4711 4711 0 -1 4194560 1 2 3 4 150 50 7 3 20 0 1 0 100 1 1 18446744073709551615"
	got, ok := parseStat(line)
	want := procStat{name: "a (b) c", parent: 42, own: 2 * time.Second, ended: 100 * time.Millisecond}
	if !ok || got != want {
		t.Errorf("got %+v, %v", got, ok)
	}
	for _, bad := range []string{"", "1 (x) S 2", ")(", "1 (x) S y 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17"} {
		if got, ok := parseStat(bad); ok {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

// TestServerCPU: the time of a session counts while it lives and after it has ended.
func TestServerCPU(t *testing.T) {
	t.Parallel()
	s, err := startServers(t.Context(), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	if s.pgProcess == 0 || s.redis != nil && s.redisProcess == 0 {
		t.Fatalf("Postgres is process %d, Redis %d", s.pgProcess, s.redisProcess)
	}
	db, err := openDB("pgx", s.pg.DSN, 1)
	if err != nil {
		t.Fatal(err)
	}
	before := s.pgProcess.cpu()
	var session process
	if err := db.QueryRowContext(t.Context(), "SELECT pg_backend_pid() FROM generate_series(1, 1000000) i ORDER BY md5(i::text) LIMIT 1").Scan(&session); err != nil {
		t.Fatal(err)
	}
	own, living := session.cpu(), s.pgProcess.cpu()-before
	if own < 50*time.Millisecond || living < own-tick {
		t.Errorf("the session has used %v, the server %v", own, living)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for begun := time.Now(); session.cpu() > 0; time.Sleep(time.Millisecond) { // its end has no signal
		if time.Since(begun) > 10*time.Second {
			t.Fatal("the session does not end")
		}
	}
	// Waited for a moment later.
	for begun := time.Now(); s.pgProcess.cpu()-before < own-tick; time.Sleep(time.Millisecond) {
		if time.Since(begun) > 10*time.Second {
			t.Fatalf("the session had used %v, the server %v since it ended", own, s.pgProcess.cpu()-before)
		}
	}
}

func TestPerOperation(t *testing.T) {
	t.Parallel()
	if m := perOperation(3*time.Second, 1_000_000); math.Abs(m["server.cpu_us"]-3) > 1e-9 {
		t.Errorf("got %v", m)
	}
	if len(perOperation(0, 5)) > 0 || len(perOperation(time.Second, 0)) > 0 {
		t.Error("what nobody knows is a figure")
	}
}

func TestNamesGroup(t *testing.T) {
	t.Parallel()
	inline := "2" + notify.AnyCache
	group := string(notify.AppendGroup(nil, notify.Group{Kind: notify.Tag, Name: "a", ID: 1}))
	for payload, want := range map[string]bool{
		inline + string(notify.AppendItem(nil, "t1:a", 1)): false, inline + group: true, inline + notify.All: true, "nonsense": true,
	} {
		if got := namesGroup(payload); got != want {
			t.Errorf("%q: %v", payload, got)
		}
	}
}

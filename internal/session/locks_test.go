package session_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/internal/session"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

func forDrivers(t *testing.T, test func(t *testing.T, open func() *sql.DB, space string)) {
	t.Parallel()
	for _, driver := range []string{"pgx", "postgres"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			test(t, func() *sql.DB { return testdb.Open(t, driver, testdb.DSN(t)) }, t.Name()+time.Now().String())
		})
	}
}

func open(t *testing.T, db *sql.DB, space string) *session.Locks {
	t.Helper()
	l := session.OpenLocks(db, space)
	t.Cleanup(func() { l.Close() })
	return l
}

func try(t *testing.T, l *session.Locks, keys ...string) []bool {
	t.Helper()
	got, err := l.TryLock(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// held is the number of locks in a space.
func held(t *testing.T, db *sql.DB, space string) (n int) {
	t.Helper()
	err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND classid = $1::bigint::oid AND granted",
		int64(uint32(store.Hash(space+" keys")))).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// soon waits for what a server does behind a session that was closed.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what, ": not within 15 s")
		}
	}
}

func kill(t *testing.T, db *sql.DB, space string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND classid = $1::bigint::oid",
		int64(uint32(store.Hash(space+" keys")))); err != nil {
		t.Fatal(err)
	}
	soon(t, "the session ends", func() bool { return held(t, db, space) == 0 })
}

func TestTwoProcesses(t *testing.T) {
	forDrivers(t, func(t *testing.T, pool func() *sql.DB, space string) {
		a, b := open(t, pool(), space), open(t, pool(), space)
		if got := try(t, a, "x", "y"); !cmp.Equal(got, []bool{true, true}) {
			t.Fatal(got)
		}
		if got := try(t, b, "y", "z", "x"); !cmp.Equal(got, []bool{false, true, false}) {
			t.Fatal(got)
		}
		a.Unlock([]string{"x"})
		if got := try(t, b, "x", "y"); !cmp.Equal(got, []bool{true, false}) {
			t.Fatal(got)
		}
		a.Close()
		soon(t, "a's locks are free", func() bool { return try(t, b, "y")[0] })
		b.Unlock([]string{"x", "y", "z"})
		if n := held(t, pool(), space); n != 0 {
			t.Errorf("%d locks", n)
		}
		if got := try(t, b); len(got) != 0 {
			t.Error(got)
		}
	})
}

// All caches on a pool share one session, which goes with the last of them.
func TestOneSession(t *testing.T) {
	forDrivers(t, func(t *testing.T, pool func() *sql.DB, space string) {
		db, other := pool(), pool()
		a, b := open(t, db, space), open(t, db, space+"b")
		if n := db.Stats().OpenConnections; n != 0 {
			t.Errorf("Open connects: %d", n)
		}
		try(t, a, "x")
		try(t, b, "x", "y")
		if n := db.Stats().InUse; n != 1 {
			t.Errorf("%d connections", n)
		}
		if n, m := held(t, other, space), held(t, other, space+"b"); n != 1 || m != 2 {
			t.Errorf("%d and %d locks", n, m)
		}
		a.Unlock([]string{"x"})
		a.Close()
		a.Close() // counts once
		if n := held(t, other, space+"b"); n != 2 {
			t.Errorf("%d locks of b", n)
		}
		if got := try(t, b, "z"); !got[0] {
			t.Error(got)
		}
		b.Close()
		if n := db.Stats().InUse; n != 0 {
			t.Errorf("%d connections after the last Close", n)
		}
		soon(t, "the locks are free", func() bool { return held(t, other, space+"b") == 0 })
		again := open(t, db, space)
		if got := try(t, again, "x"); !got[0] {
			t.Error(got)
		}
	})
}

// Keys of one number hold it together: each unlocks once, and only the last one frees it.
func TestCollision(t *testing.T) {
	forDrivers(t, func(t *testing.T, pool func() *sql.DB, space string) {
		seen := map[int32]string{}
		x, y := "", ""
		for i := 0; x == ""; i++ {
			key := fmt.Sprint("key", i)
			if other, ok := seen[store.Hash(key)]; ok {
				x, y = other, key
			}
			seen[store.Hash(key)] = key
		}
		a, b := open(t, pool(), space), open(t, pool(), space)
		if got := try(t, a, x, y); !cmp.Equal(got, []bool{true, true}) {
			t.Fatal(got)
		}
		a.Unlock([]string{x})
		if got := try(t, b, y); got[0] {
			t.Error("freed by its namesake")
		}
		a.Unlock([]string{y})
		if got := try(t, b, y); !got[0] {
			t.Error("not free")
		}
	})
}

func TestSessionLost(t *testing.T) {
	forDrivers(t, func(t *testing.T, pool func() *sql.DB, space string) {
		other := pool()
		a := open(t, pool(), space)
		try(t, a, "x", "y")
		kill(t, other, space)
		// Seen by Unlock: the locks are gone, and that is all.
		a.Unlock([]string{"x"})
		if got := try(t, a, "x"); !got[0] {
			t.Error(got)
		}
		kill(t, other, space)
		// Seen by TryLock: once more on a new session.
		if got := try(t, a, "y", "z"); !cmp.Equal(got, []bool{true, true}) {
			t.Error(got)
		}
		if n := held(t, other, space); n != 2 {
			t.Errorf("%d locks", n)
		}
		a.Unlock([]string{"y", "z"})
		if n := held(t, other, space); n != 0 {
			t.Errorf("%d locks", n)
		}
	})
}

// Giving back what is not held does nothing.
func TestNotHeld(t *testing.T) {
	forDrivers(t, func(t *testing.T, pool func() *sql.DB, space string) {
		a, other := open(t, pool(), space), pool()
		try(t, a, "x")
		a.Unlock([]string{"y"})
		if n := held(t, other, space); n != 1 {
			t.Errorf("%d locks", n)
		}
		a.Unlock([]string{"x"})
		a.Unlock([]string{"x"})
		if n := held(t, other, space); n != 0 {
			t.Errorf("%d locks", n)
		}
	})
}

// TestBudget: a process takes no more than its share of the server's lock table. Beyond that it goes without, at once.
func TestBudget(t *testing.T) {
	forDrivers(t, func(t *testing.T, pool func() *sql.DB, space string) {
		a, b, other := open(t, pool(), space), open(t, pool(), space), pool()
		var perTransaction int
		if err := other.QueryRowContext(t.Context(), "SELECT current_setting('max_locks_per_transaction')::int").Scan(&perTransaction); err != nil {
			t.Fatal(err)
		}
		share := min(128, perTransaction/2)
		for i := range 500 {
			if got := try(t, a, fmt.Sprint("k", i)); !got[0] {
				t.Fatal("refused", i)
			}
		}
		if n := held(t, other, space); n != share {
			t.Errorf("%d locks, want %d", n, share)
		}
		if got := try(t, b, "k0", "k499"); !cmp.Equal(got, []bool{false, true}) {
			t.Error("the first is locked, the last went without:", got)
		}
		b.Unlock([]string{"k499"})
		for i := range 500 {
			a.Unlock([]string{fmt.Sprint("k", i)})
		}
		if n := held(t, other, space); n != 0 {
			t.Errorf("%d locks are left", n)
		}
		if got := try(t, b, "k0"); !got[0] {
			t.Error("not free")
		}
	})
}

// TestManyKeys: a call for many keys takes one lock, which the same call of another process waits for and no other.
func TestManyKeys(t *testing.T) {
	forDrivers(t, func(t *testing.T, pool func() *sql.DB, space string) {
		a, b, other := open(t, pool(), space), open(t, pool(), space), pool()
		keys := make([]string, 15_000)
		for i := range keys {
			keys[i] = fmt.Sprint("k", i)
		}
		if got := try(t, a, keys...); slices.Contains(got, false) || len(got) != len(keys) {
			t.Fatal("not locked")
		}
		if n := held(t, other, space); n != 1 {
			t.Errorf("%d locks", n)
		}
		shuffled := slices.Clone(keys)
		slices.Reverse(shuffled)
		if got := try(t, b, shuffled...); slices.Contains(got, true) {
			t.Error("the same keys in another order were locked twice")
		}
		if got := try(t, b, keys[1:]...); slices.Contains(got, false) {
			t.Error("other keys wait for these")
		}
		if got := try(t, b, "k7"); !got[0] {
			t.Error("one key waits for all")
		}
		a.Unlock(keys[:10_000])
		if n := held(t, other, space); n != 3 {
			t.Errorf("%d locks while some of the keys are loading", n)
		}
		a.Unlock(keys[10_000:])
		if n := held(t, other, space); n != 2 {
			t.Errorf("%d locks", n)
		}
	})
}

// A key that is locked anew before it was unlocked is held until it is unlocked twice.
func TestLockedAnew(t *testing.T) {
	forDrivers(t, func(t *testing.T, pool func() *sql.DB, space string) {
		a, other := open(t, pool(), space), pool()
		try(t, a, "x")
		try(t, a, "x")
		a.Unlock([]string{"x"})
		if n := held(t, other, space); n != 1 {
			t.Errorf("%d locks", n)
		}
		a.Unlock([]string{"x"})
		if n := held(t, other, space); n != 0 {
			t.Errorf("%d locks", n)
		}
	})
}

// A caller that gives up does not take others' locks with it.
func TestCancel(t *testing.T) {
	forDrivers(t, func(t *testing.T, pool func() *sql.DB, space string) {
		db, other := pool(), pool()
		a := open(t, db, space)
		try(t, a, "x")
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
				defer cancel()
				key := fmt.Sprint("k", i)
				if got, err := a.TryLock(ctx, []string{key}); err == nil && got[0] {
					a.Unlock([]string{key})
				}
			})
		}
		wg.Wait()
		if n := held(t, other, space); n != 1 {
			t.Errorf("%d locks, want x alone", n)
		}
		// No connection to be had: the context bounds the wait.
		full := pool()
		full.SetMaxOpenConns(1)
		conn, err := full.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		b := open(t, full, space)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := b.TryLock(ctx, []string{"x"}); err == nil {
			t.Error("locked without a connection")
		}
	})
}

// The server ends a session that a frozen process holds.
func TestAbandoned(t *testing.T) {
	t.Parallel()
	dsn := testdb.WithParam(testdb.DSN(t), "idle_session_timeout", "100")
	db, other := testdb.Open(t, "pgx", dsn), testdb.DB(t)
	space := t.Name() + time.Now().String()
	a := open(t, db, space)
	try(t, a, "x")
	time.Sleep(300 * time.Millisecond)
	// It has a setting of its own, in place of the role's.
	if n := held(t, other, space); n != 1 {
		t.Error("the session was ended")
	}
}

package lock_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/internal/lock"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

func forDrivers(t *testing.T, test func(t *testing.T, open func() *sql.DB, space string)) {
	t.Parallel()
	for _, driver := range testdb.Drivers(t) {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			test(t, func() *sql.DB { return testdb.Open(t, driver, testdb.DSN(t)) }, t.Name()+time.Now().String())
		})
	}
}

func open(t *testing.T, db *sql.DB, space string) *lock.Locks {
	t.Helper()
	l := lock.Open(db, space)
	t.Cleanup(func() { l.Close() })
	return l
}

func try(t *testing.T, l *lock.Locks, keys ...string) []bool {
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
		int64(uint32(store.KeyClass(space)))).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// soon waits for what a server does behind a session that was closed.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what, ": not within a minute")
		}
	}
}

func kill(t *testing.T, db *sql.DB, space string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND classid = $1::bigint::oid",
		int64(uint32(store.KeyClass(space)))); err != nil {
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
		soon(t, "x is free", func() bool { return try(t, b, "x")[0] })
		if got := try(t, b, "y"); got[0] {
			t.Fatal(got)
		}
		a.Close()
		soon(t, "a's locks are free", func() bool { return try(t, b, "y")[0] })
		b.Unlock([]string{"x", "y", "z"})
		other := pool()
		soon(t, "no lock is left", func() bool { return held(t, other, space) == 0 })
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
		soon(t, "it is free", func() bool { return try(t, b, y)[0] })
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
		soon(t, "no lock is left", func() bool { return held(t, other, space) == 0 })
	})
}

// A key that has no lock of ours, because there are too many, is given back as well.
func TestNotHeld(t *testing.T) {
	forDrivers(t, func(t *testing.T, pool func() *sql.DB, space string) {
		db, other := pool(), pool()
		a := open(t, db, space)
		try(t, a, "x")
		a.Unlock([]string{"y"})
		try(t, a, "z")
		a.Unlock([]string{"z"})
		soon(t, "z is free", func() bool { return held(t, other, space) == 1 })
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
		soon(t, "only x is locked", func() bool { return held(t, other, space) == 1 })
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
	dsn := testdb.WithParam(testdb.DSN(t), "idle_session_timeout", "1000")
	db, other := testdb.Open(t, "pgx", dsn), testdb.DB(t)
	space := t.Name() + time.Now().String()
	a := open(t, db, space)
	try(t, a, "x")
	time.Sleep(1500 * time.Millisecond)
	// It has a setting of its own, in place of the role's.
	if n := held(t, other, space); n != 1 {
		t.Error("the session was ended")
	}
}

// TestBounded: a process has few locks however much it loads, and says of the others that it got them.
func TestBounded(t *testing.T) {
	forDrivers(t, func(t *testing.T, pool func() *sql.DB, space string) {
		db, other := pool(), pool()
		a := open(t, db, space)
		keys := make([]string, 40_000)
		for i := range keys {
			keys[i] = fmt.Sprint("key ", i)
		}
		if got := try(t, a, keys...); len(got) != len(keys) || slices.Contains(got, false) {
			t.Error("not locked")
		}
		if n := held(t, other, space); n != 1 {
			t.Errorf("%d locks for one call, want 1", n)
		}
		b := open(t, pool(), space)
		slices.Reverse(keys)
		if got := try(t, b, keys...); slices.Contains(got, true) {
			t.Error("the same call got the lock too")
		}
		if got := try(t, b, keys[0]); !got[0] {
			t.Error("a key waits for a call with others")
		}
		for i := range 200 {
			if got := try(t, a, fmt.Sprint("lone ", i)); !got[0] {
				t.Error("not locked")
			}
		}
		const bound = 32 // half of max_locks_per_transaction
		if n := held(t, other, space); n != bound+1 {
			t.Errorf("%d locks, want %d and b's", n, bound)
		}
		if n := a.Unguarded(); n != 200+1-bound {
			t.Errorf("%d without a lock", n)
		}
		for i := range 200 {
			a.Unlock([]string{fmt.Sprint("lone ", i)})
		}
		a.Unlock(keys)
		soon(t, "only b's is left", func() bool { return held(t, other, space) == 1 })
		if got := try(t, a, "again"); !got[0] || a.Unguarded() != 200+1-bound {
			t.Error("there is no room again")
		}
	})
}

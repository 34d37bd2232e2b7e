// Package guardtest checks what pgcache expects of a Guard.
//
//	func TestMyGuard(t *testing.T) {
//		guardtest.Run(t, guardtest.Config{Guard: myGuard{}, Pool: openPool, Excludes: true})
//	}
package guardtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pgcache/go/pgcache"
)

// Config says what Run checks.
type Config struct {
	Guard pgcache.Guard

	// Pool opens a pool as another process would, and closes it when the test ends.
	Pool func(t testing.TB) *sql.DB

	// Space returns the space of a cache that nobody else uses, whose tables are there. nil: any name will do, as for guards that
	// need no tables of the cache's.
	Space func(t testing.TB) string

	// Excludes says that the guard keeps processes apart. Without it Run checks the rest alone: a guard that lets
	// everybody load is correct, because the fence of the store decides what is stored.
	Excludes bool
}

// limit is for what a guard may do after the call that asked for it, as giving a lock back.
const limit = 10 * time.Second

// Run checks the guard of c. Each part uses a space of its own.
func Run(t *testing.T, c Config) {
	t.Run("Network", c.network)
	t.Run("Answers", c.answers)
	t.Run("Cancelled", c.cancelled)
	t.Run("Crowd", c.crowd)
	t.Run("Close", c.close)
	if c.Excludes {
		t.Run("Excludes", c.excludes)
		t.Run("Spaces", c.spaces)
	}
}

func (c Config) space(t *testing.T) string {
	t.Helper()
	if c.Space == nil {
		return rand.Text()
	}
	return c.Space(t)
}

// process opens the guard as a process with a pool of its own.
func (c Config) process(t *testing.T, space string) pgcache.Locks {
	t.Helper()
	l := c.Guard.Open(c.Pool(t), space)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error("Close:", err)
		}
	})
	return l
}

func try(t *testing.T, l pgcache.Locks, keys ...string) []bool {
	t.Helper()
	got, err := l.TryLock(t.Context(), keys)
	if err != nil {
		t.Fatal("TryLock:", err)
	}
	if len(got) != len(keys) {
		t.Fatalf("TryLock: %d answers for %d keys", len(got), len(keys))
	}
	return got
}

// free waits until l gets all of keys, one by one, and gives them back.
func free(t *testing.T, l pgcache.Locks, keys ...string) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for _, key := range keys {
		for !try(t, l, key)[0] {
			if time.Now().After(deadline) {
				t.Fatalf("%q is still locked after %v", key, limit)
			}
			time.Sleep(time.Millisecond)
		}
		l.Unlock([]string{key})
	}
}

// network: New calls Open, and New touches no network.
func (c Config) network(t *testing.T) {
	db := c.Pool(t)
	before := db.Stats().OpenConnections
	l := c.Guard.Open(db, c.space(t))
	if n := db.Stats().OpenConnections; n != before {
		t.Errorf("Open connects: %d connections, %d before", n, before)
	}
	if err := l.Close(); err != nil {
		t.Error("Close of unused locks:", err)
	}
}

// answers: one for each key, in order, and a key that was given back can be had again.
func (c Config) answers(t *testing.T) {
	l := c.process(t, c.space(t))
	try(t, l)
	keys := []string{"a", "b", "ns:c", "ключ", "with space", "'; --"}
	for range 2 {
		if got := try(t, l, keys...); slices.Contains(got, false) {
			t.Fatal("nobody else locks, but TryLock says", got)
		}
		l.Unlock(keys)
	}
	many := make([]string, 1000)
	for i := range many {
		many[i] = fmt.Sprint("many", i)
	}
	if got := try(t, l, many...); slices.Contains(got, false) {
		t.Error("nobody else locks, but not all of many keys are to be had")
	}
	l.Unlock(many)
	free(t, c.process(t, c.space(t)), "a")
}

// cancelled: an ended context ends a TryLock soon, and takes no lock of others with it.
func (c Config) cancelled(t *testing.T) {
	space := c.space(t)
	a, b := c.process(t, space), c.process(t, space)
	try(t, a, "kept")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	got, err := a.TryLock(ended, []string{"x"})
	if took := time.Since(began); took > limit {
		t.Errorf("TryLock with an ended context took %v", took)
	}
	if err == nil && len(got) == 1 && got[0] {
		a.Unlock([]string{"x"})
	}
	free(t, b, "x") // after an error nothing is held
	if c.Excludes && try(t, b, "kept")[0] {
		t.Error("a cancelled call gave back a lock of another")
	}
	a.Unlock([]string{"kept"})
	free(t, b, "kept")
}

// crowd: all methods may be called at once, and nothing stays locked.
func (c Config) crowd(t *testing.T) {
	const callers, rounds = 16, 10
	space := c.space(t)
	a, b := c.process(t, space), c.process(t, space)
	keys := make([]string, callers)
	var wg sync.WaitGroup
	for i := range callers {
		keys[i] = fmt.Sprint("key", i)
		wg.Go(func() {
			for n := range rounds {
				l := a
				if n%2 == 1 {
					l = b
				}
				got, err := l.TryLock(t.Context(), keys[i:i+1])
				if err != nil || len(got) != 1 {
					t.Errorf("TryLock: %v, %v", got, err)
					return
				}
				if got[0] {
					l.Unlock(keys[i : i+1])
				}
			}
		})
	}
	wg.Wait()
	free(t, a, keys...)
	free(t, b, keys...)
}

// close gives back everything that is the process's own, and may be called again.
func (c Config) close(t *testing.T) {
	space := c.space(t)
	a, b := c.process(t, space), c.process(t, space)
	try(t, a, "x", "y")
	other := c.process(t, space)
	try(t, other, "z")
	for range 2 {
		if err := other.Close(); err != nil {
			t.Error("Close:", err)
		}
	}
	if c.Excludes && slices.Contains(try(t, b, "x", "y"), true) {
		t.Error("Close gave back what another process has")
	}
	for range 2 {
		if err := a.Close(); err != nil {
			t.Error("Close:", err)
		}
	}
	free(t, b, "x", "y", "z")
}

// excludes: of two processes one has a key, until it gives it back.
func (c Config) excludes(t *testing.T) {
	space := c.space(t)
	a, b := c.process(t, space), c.process(t, space)
	if got := try(t, a, "x", "y"); slices.Contains(got, false) {
		t.Fatal(got)
	}
	if got := try(t, b, "y", "z", "x"); !slices.Equal(got, []bool{false, true, false}) {
		t.Fatal("x and y are the other process's, z is free:", got)
	}
	a.Unlock([]string{"x"})
	free(t, b, "x")
	if try(t, b, "y")[0] {
		t.Error("y was freed together with x")
	}
	a.Unlock([]string{"y"})
	free(t, b, "y")
	b.Unlock([]string{"z"})
	free(t, a, "z")
}

// spaces: caches of other spaces are not in each other's way.
func (c Config) spaces(t *testing.T) {
	a, b := c.process(t, c.space(t)), c.process(t, c.space(t))
	try(t, a, "x")
	if !try(t, b, "x")[0] {
		t.Error("a lock of another space is in the way")
	}
	a.Unlock([]string{"x"})
	b.Unlock([]string{"x"})
}

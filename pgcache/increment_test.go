package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

func increment(t *testing.T, c *pgcache.Cache, key string, delta, want int64, opts ...pgcache.Option) {
	t.Helper()
	if n, err := c.Increment(t.Context(), key, delta, opts...); n != want || err != nil {
		t.Fatalf("%q is %d after %+d (%v), want %d", key, n, delta, err, want)
	}
}

// Each caller's delta counts once, whoever shares its statement: nobody is given a number twice.
func TestIncrementIsExact(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		const nodes, callers, rounds = 8, 8, 12 // 64 callers
		cl := newCluster(t)
		var mu sync.Mutex
		var all []int64
		var wg sync.WaitGroup
		for i := range nodes {
			// Sessions of another isolation level count as well.
			level := []string{"read committed", "repeatable read", "serializable", "read committed"}[i%4]
			db := testdb.Open(t, driver, testdb.WithParam(testdb.DSN(t), "default_transaction_isolation", level))
			c := cl.on(db, func(o *pgcache.Options) {
				if i%2 == 0 {
					o.InvalidationWindow = pgcache.Immediate
				}
			})
			for range callers {
				wg.Go(func() {
					for range rounds {
						n, err := c.Increment(t.Context(), "n", 1)
						if err != nil {
							t.Error(err)
							return
						}
						mu.Lock()
						all = append(all, n)
						mu.Unlock()
					}
				})
			}
		}
		wg.Wait()
		slices.Sort(all)
		for i, n := range all {
			if n != int64(i+1) {
				t.Fatalf("the numbers are %v", all)
			}
		}
		if len(all) != nodes*callers*rounds {
			t.Error(len(all))
		}
		want(t, cl.on(cl.db, nil), "n", nodes*callers*rounds)
	})
}

// What adds and what takes away share statements too, at the edges of 64 bits as well: what was acknowledged counts, once, and what
// was refused does not.
func TestIncrementAtTheEdge(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c, w := cl.wired(nil)
	for _, start := range []int64{math.MaxInt64 - 1, math.MinInt64 + 1, 0} {
		key := fmt.Sprint("k", start)
		set(t, c, key, start)
		first := w.before(named("Increment"))
		var wg sync.WaitGroup
		wg.Go(func() { increment(t, c, key, 0, start) })
		first.wait(t)
		var sum atomic.Int64
		for i := range 40 { // most share the next statement
			wg.Go(func() {
				delta := int64(math.MaxInt64)
				if i%2 == 0 {
					delta = -delta
				}
				switch _, err := c.Increment(t.Context(), key, delta); {
				case err == nil:
					sum.Add(delta) // wraps around on the way, and not at the end
				case !errors.Is(err, pgcache.ErrOverflow):
					t.Error(err)
				}
			})
		}
		first.release()
		wg.Wait()
		want(t, c, key, start+sum.Load())
	}
	set(t, c, "max", int64(math.MaxInt64))
	_, err := c.Increment(t.Context(), "max", 1)
	wantErr(t, err, pgcache.ErrOverflow)
	_, err = c.Increment(t.Context(), "max", math.MinInt64)
	if err != nil {
		t.Error(err)
	}
	want(t, c, "max", int64(-1))
	set(t, c, "min", int64(math.MinInt64))
	_, err = c.Increment(t.Context(), "min", -1)
	wantErr(t, err, pgcache.ErrOverflow)
	want(t, c, "min", int64(math.MinInt64))
}

func TestIncrement(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		c := cl.on(testdb.Open(t, driver, testdb.DSN(t)), nil)
		expires := func(key string) (at sql.NullTime) {
			t.Helper()
			if err := cl.db.QueryRowContext(t.Context(), "SELECT expires_at FROM "+cl.table()+" WHERE key = $1", key).Scan(&at); err != nil {
				t.Fatal(err)
			}
			return at
		}
		increment(t, c, "n", 5, 5, pgcache.TTL(time.Hour))
		began := expires("n")
		increment(t, c, "n", -7, -2, pgcache.TTL(time.Minute))
		increment(t, c, "n", 0, -2, pgcache.TTL(pgcache.NoExpiry))
		if expires("n") != began {
			t.Error("a later one has changed the end")
		}
		want(t, c, "n", -2)
		cl.expire("key = 'n'")
		increment(t, c, "n", 3, 3, pgcache.TTL(pgcache.NoExpiry))
		if expires("n").Valid {
			t.Error("it expires")
		}
		del(t, c, "n")
		increment(t, c, "n", 1, 1, pgcache.ExpiresAt(time.Now().Add(time.Hour)))
		set(t, c, "n", 41)
		increment(t, c, "n", 1, 42)

		// What is no counter stays as it is, and nothing of it is in an error.
		for key, value := range map[string]any{
			"text": "secret", "float": 1.5, "large": uint64(math.MaxUint64), "list": []int{1}, "null": nil, "bool": true, "digits": "12",
		} {
			set(t, c, key, value)
			var before, after int64
			version := "SELECT version FROM " + cl.table() + " WHERE key = $1"
			if err := cl.db.QueryRowContext(t.Context(), version, key).Scan(&before); err != nil {
				t.Fatal(err)
			}
			_, err := c.Increment(t.Context(), key, 1)
			wantErr(t, err, pgcache.ErrNotCounter)
			if e := cause(t, err, "increment", key); e.Error() != fmt.Sprintf("pgcache: increment %q: the value is no counter", key) {
				t.Error(e)
			}
			if err := cl.db.QueryRowContext(t.Context(), version, key).Scan(&after); err != nil || after != before {
				t.Errorf("%s: the row has changed (%v)", key, err)
			}
		}
		set(t, c, "gob", 5, pgcache.WithCodec(codec.Gob{}))
		_, err := c.Increment(t.Context(), "gob", 1)
		wantErr(t, err, pgcache.ErrNotCounter)
		_, err = c.Increment(t.Context(), "n", 1, pgcache.WithCodec(codec.JSON{}))
		cause(t, err, "increment", "n")
		_, err = c.Increment(t.Context(), "n", 1, pgcache.TTL(-1))
		wantErr(t, err, pgcache.ErrInvalidTTL)
		_, err = c.Increment(t.Context(), "", 1)
		wantErr(t, err, pgcache.ErrInvalidKey)
		increment(t, pgcache.Null(), "n", 7, 7)
	})
}

// Where the reply is lost nobody knows whether the delta was counted: to send it again could count it twice.
func TestIncrementIsNotSentTwice(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c, w := cl.wired(nil)
	increment(t, c, "n", 1, 1)
	want(t, c, "n", 1)
	lost := w.lose(named("Increment"), io.ErrUnexpectedEOF)
	if n, err := c.Increment(t.Context(), "n", 1); err == nil {
		t.Fatal("no error, but", n)
	}
	lost.release()
	want(t, c, "n", 2)
	increment(t, c, "n", 1, 3)
	if n := w.count(named("Increment")); n != 3 {
		t.Errorf("%d statements", n)
	}
}

// Each conditional write is seen on its own node at once (P3), by others soon (P2), and fences loads that began before it (P6).
func TestConditionalWritesAreWrites(t *testing.T) {
	t.Parallel()
	forWindows(t, func(t *testing.T, cl *cluster) {
		a, b := cl.node(nil), cl.node(nil)
		ctx := t.Context()
		for name, write := range map[string]struct {
			before any // the value that is there; nil: none
			after  int
			write  func(key string) error
		}{
			"increment":       {1, 2, func(key string) error { _, err := a.Increment(ctx, key, 1); return err }},
			"first increment": {nil, 1, func(key string) error { _, err := a.Increment(ctx, key, 1); return err }},
			"absent":          {nil, 7, func(key string) error { _, err := a.SetIfAbsent(ctx, key, 7); return err }},
			"update": {1, 2, func(key string) error {
				_, err := pgcache.For[int](a).Update(ctx, key, func(old int, _ bool) (int, error) { return old + 1, nil })
				return err
			}},
			"first update": {nil, 1, func(key string) error {
				_, err := pgcache.For[int](a).Update(ctx, key, func(old int, _ bool) (int, error) { return old + 1, nil })
				return err
			}},
			"touch": {1, 1, func(key string) error { _, err := a.Touch(ctx, key, time.Hour); return err }},
		} {
			key := name
			if write.before != nil {
				set(t, a, key, write.before)
				warm(t, a, key, 1)
				warm(t, b, key, 1)
			}
			if err := write.write(key); err != nil {
				t.Fatal(name, err)
			}
			want(t, a, key, write.after)
			eventually(t, name+" is seen by b", func() bool { v, _ := get[int](t, b, key); return v == write.after })

			// A load that began before it does not store over it. The row is there and does not decode, or is not there.
			key += " fenced"
			if write.before != nil {
				set(t, a, key, 1)
			}
			l := newLoader("old")
			var v string
			loaded := async(t, func() error { return b.GetOrSet(ctx, key, &v, l.load) })
			l.wait(t)
			if err := write.write(key); err != nil {
				t.Fatal(name, err)
			}
			l.release()
			_ = loaded() // it may get the newer value, which is no string: an error
			want(t, a, key, write.after)
			want(t, b, key, write.after)
		}
	})
}

// A counter's row that somebody holds does not keep the others from counting.
func TestIncrementBesideALockedRow(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	increment(t, c, "held", 1, 1)
	tx, err := cl.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // ends the lock
	if _, err := tx.ExecContext(t.Context(), "SELECT FROM "+cl.table()+" WHERE key = 'held' FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	held := make([]func() error, 8)
	for i := range held {
		held[i] = async(t, func() error { _, err := c.Increment(ctx, "held", 1); return err })
	}
	for i := range int64(20) {
		increment(t, c, "free", 1, i+1)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	for _, done := range held {
		if err := done(); err != nil {
			t.Error(err)
		}
	}
	increment(t, c, "held", 1, 10)
}

// Who adds to one counter at the same time shares a row of one statement: a hot counter is as fast as the node's statements.
func TestHotCounterSharesStatements(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c, w := cl.wired(nil)
	increment(t, c, "n", 1, 1)
	w.forget()
	first := w.before(named("Increment"))
	var calls []func() error
	call := func() {
		calls = append(calls, async(t, func() error { _, err := c.Increment(t.Context(), "n", 1); return err }))
	}
	call()
	first.wait(t)
	for range 63 {
		call()
	}
	time.Sleep(20 * time.Millisecond) // they queue; who does not yet has a statement more
	first.release()
	for _, done := range calls {
		if err := done(); err != nil {
			t.Error(err)
		}
	}
	want(t, c, "n", 65)
	if n := w.count(named("Increment")); n > 10 {
		t.Errorf("%d statements for 64 calls", n)
	}
}

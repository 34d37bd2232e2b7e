package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// The other node waits for the one that holds the lock, gets its value, and nothing more is loaded or stored.
func TestTwoNodesOneLoad(t *testing.T) {
	t.Parallel()
	forGuards(t, func(t *testing.T, cl *cluster) {
		a, b := cl.node(nil), cl.node(nil)
		for i := range 10 {
			key := strconv.Itoa(i)
			l := newLoader("a's " + key)
			var va, vb string
			first := async(t, func() error { return a.GetOrSet(t.Context(), key, &va, l.load) })
			l.wait(t)
			before := b.Stats().Misses
			second := async(t, func() error { return b.GetOrSet(t.Context(), key, &vb, noLoad(t)) })
			if i%2 == 1 {
				eventually(t, "b misses it", func() bool { return b.Stats().Misses == before+1 })
			}
			l.release()
			if err := errors.Join(first(), second()); err != nil || va != "a's "+key || vb != va {
				t.Fatal(va, vb, err)
			}
			cl.noLocks()
		}
	})
}

// The lock is on the numbers that package store makes of schema, prefix and key: a foreign holder of it is waited for no
// longer than LockTimeout.
func TestForeignHolder(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	patient := cl.on(testdb.DB(t), nil)

	l := newLoader(1)
	loaded := async(t, func() error { return patient.GetOrSet(t.Context(), "user:1", new(int), l.load) })
	l.wait(t)
	id := cl.keyLocks("coalesce(max(objid::bigint), 0)")
	if n := cl.locks(); n != 1 || id != int(uint32(store.Hash("user:1"))) {
		t.Errorf("%d locks, of %d; want one of %d", n, id, uint32(store.Hash("user:1")))
	}
	l.release()
	if err := loaded(); err != nil {
		t.Fatal(err)
	}
	cl.noLocks()

	holder, err := cl.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	if _, err := holder.ExecContext(t.Context(), "SELECT pg_advisory_lock($1::int, $2::int)", cl.names().KeyClass(), store.Hash("user:1")); err != nil {
		t.Fatal(err)
	}
	c := cl.on(testdb.DB(t), func(o *pgcache.Options) { o.LockTimeout = 150 * time.Millisecond })
	inTime(t, func() error {
		del(t, patient, "user:1")
		began := time.Now()
		var v int
		if err := c.GetOrSet(t.Context(), "user:1", &v, func(context.Context) (any, error) { return 2, nil }); err != nil || v != 2 {
			t.Error(v, err)
		}
		if took := time.Since(began); took < 150*time.Millisecond || took > 3*time.Second {
			return fmt.Errorf("took %v", took)
		}
		return nil
	})
	want(t, c, "user:1", 2) // and stored: the fence alone decides
	if n := cl.locks(); n != 1 {
		t.Errorf("%d locks: the holder's own is gone, or another one is left", n)
	}
}

// Where the pool has no connection left for the lock session, LockTimeout bounds the wait for it too: those who hold the
// connections may be waiting for this very load.
func TestNoConnectionForTheLock(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	db, wire := openWire(t, "pgx", testdb.DSN(t))
	db.SetMaxOpenConns(4)
	cl.on(testdb.DB(t), nil) // makes the tables, with more time
	c := cl.new(db, func(o *pgcache.Options) { o.LockTimeout, o.Timeout = 100*time.Millisecond, 400*time.Millisecond })
	reply := wire.after(named("GetEntry"))
	var v int
	load := async(t, func() error {
		return c.GetOrSet(t.Context(), "k", &v, func(context.Context) (any, error) { return 7, nil })
	})
	reply.wait(t)
	for range 3 {
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	// The fourth waits for the connection of the read.
	fourth := async(t, func() error {
		conn, err := db.Conn(t.Context())
		if err == nil {
			t.Cleanup(func() { conn.Close() })
		}
		return err
	})
	eventually(t, "the fourth waits", func() bool { return db.Stats().WaitCount > 0 })
	reply.release()
	if err := fourth(); err != nil {
		t.Fatal(err)
	}
	if err := load(); err != nil || v != 7 {
		t.Error(v, err)
	}
}

// panicking is a Guard whose TryLock panics, or whose Unlock does.
type panicking struct{ unlocked chan struct{} } // nil: TryLock

func (g panicking) Open(*sql.DB, string) pgcache.Locks { return g }

func (g panicking) TryLock(_ context.Context, keys []string) ([]bool, error) {
	if g.unlocked == nil {
		panic("index out of range")
	}
	return slices.Repeat([]bool{true}, len(keys)), nil
}

func (g panicking) Unlock([]string) {
	g.unlocked <- struct{}{}
	panic("index out of range")
}

func (panicking) Close() error { return nil }

// A Guard that panics is one that fails: loads go on without it. It is called in goroutines of the cache's, where a panic would end
// the program.
func TestGuardPanics(t *testing.T) {
	t.Parallel()
	for name, guard := range map[string]panicking{"TryLock": {}, "Unlock": {make(chan struct{}, 10)}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			cl.opts.Guard = guard
			c := cl.on(testdb.DB(t), nil)
			for _, key := range []string{"a", "b"} {
				var s string
				if err := c.GetOrSet(t.Context(), key, &s, func(context.Context) (any, error) { return "new", nil }); err != nil || s != "new" {
					t.Error(s, err)
				}
				want(t, c, key, "new")
				if guard.unlocked != nil {
					<-guard.unlocked
				}
			}
			if n := c.Stats().GuardErrors; (n == 2) != (guard.unlocked == nil) {
				t.Errorf("%d errors", n)
			}
			if err := c.Close(); err != nil { // waits for what is under way
				t.Error(err)
			}
		})
	}
}

package drivertest

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/pgcache"
)

// oneLoad: however many ask on two nodes, one of them loads, with the same pool.
func oneLoad(t *testing.T, b *bundle) {
	const callers = 50
	ctx := t.Context()
	nodes := []node{b.node(nil), b.node(nil)}
	for _, n := range nodes {
		n.db.SetMaxOpenConns(4)
	}
	var loads atomic.Int32
	asked := make(chan struct{}, 2*callers)
	var wg sync.WaitGroup
	for _, n := range nodes {
		for range callers {
			wg.Go(func() {
				var got []byte
				err := n.GetOrSet(ctx, "k", &got, func(ctx context.Context) (any, error) {
					loads.Add(1)
					for range callers { // so that most of them have come before it ends
						<-asked
					}
					var value []byte
					err := n.db.QueryRowContext(ctx, "SELECT 'loaded'::bytea").Scan(&value)
					return value, err
				})
				if err != nil || string(got) != "loaded" {
					t.Errorf("GetOrSet returns %q, %v", got, err)
				}
			})
			asked <- struct{}{}
		}
	}
	wg.Wait()
	if n := loads.Load(); n != 1 {
		t.Errorf("%d loads", n)
	}
}

func failingLoads(t *testing.T, b *bundle) {
	ctx := t.Context()
	n, other := b.node(nil), b.node(nil)
	view := pgcache.For[[]byte](n.Cache)
	broken := errors.New("broken")
	var panicked *pgcache.PanicError
	for name, c := range map[string]struct {
		load func(ctx context.Context) (any, error)
		is   func(error) bool
	}{
		"error":    {func(context.Context) (any, error) { return nil, broken }, func(err error) bool { return errors.Is(err, broken) }},
		"no entry": {func(context.Context) (any, error) { return nil, pgcache.ErrNotFound }, func(err error) bool { return errors.Is(err, pgcache.ErrNotFound) }},
		"panic":    {func(context.Context) (any, error) { panic(broken) }, func(err error) bool { return errors.As(err, &panicked) && errors.Is(err, broken) }},
		"exit":     {func(context.Context) (any, error) { runtime.Goexit(); return nil, nil }, func(err error) bool { return errors.Is(err, pgcache.ErrLoaderExited) }},
		"recursion": {func(ctx context.Context) (any, error) {
			var v []byte
			return v, n.GetOrSet(ctx, "recursion", &v, func(context.Context) (any, error) { return nil, nil })
		}, func(err error) bool { return errors.Is(err, pgcache.ErrRecursiveLoad) }},
		"not bytes": {func(context.Context) (any, error) { return 1, nil }, func(err error) bool { return err != nil }},
	} {
		var got []byte
		err := n.GetOrSet(ctx, name, &got, c.load)
		if !c.is(err) {
			t.Errorf("%s: GetOrSet returns %v", name, err)
		}
		if err := new(pgcache.Error); !errors.As(err, &err) {
			t.Errorf("%s: %v is no *Error", name, err)
		}
		other.want(t, name, nil)
		// And no lock is left: another node can load at once.
		began := time.Now()
		must(t, other.GetOrSet(ctx, name, &got, func(context.Context) (any, error) { return []byte("fine"), nil }))
		if took := time.Since(began); took > patience/2 { // LockTimeout
			t.Errorf("%s: after it, the next load took %v", name, took)
		}
	}
	many, err := view.GetOrSetMany(ctx, []string{"error", "more"}, func(context.Context, []string) (map[string][]byte, error) {
		return nil, broken
	})
	if !errors.Is(err, broken) || len(many) != 1 {
		t.Errorf("GetOrSetMany returns %q, %v", many, err)
	}
}

// fencedLoads: what was loaded before a write is not stored over it, whoever wrote.
func fencedLoads(t *testing.T, b *bundle) {
	ctx := t.Context()
	loader, writer, db := b.node(nil), b.node(nil), b.node(forgetful)
	clearing := func(key string) error { return writer.Clear(ctx) }
	for name, c := range map[string]struct {
		before        []byte
		write         func(key string) error
		stored, given []byte // nil: nothing is stored; what was loaded is given
	}{
		"delete of nothing": {nil, func(key string) error { return writer.Delete(ctx, key) }, nil, []byte("loaded")},
		"delete of many":    {nil, func(key string) error { return writer.Delete(ctx, key, key+"2") }, nil, []byte("loaded")},
		"delete of a value": {[]byte("old"), func(key string) error { return writer.Delete(ctx, key) }, nil, []byte("loaded")},
		"set":               {nil, func(key string) error { return writer.Set(ctx, key, []byte("set")) }, []byte("set"), []byte("set")},
		"set over expired":  {[]byte("old"), func(key string) error { return writer.Set(ctx, key, []byte("set")) }, []byte("set"), []byte("set")},
		"set many": {nil, func(key string) error {
			return pgcache.For[[]byte](writer.Cache).SetMany(ctx, map[string][]byte{key: []byte("set"), key + "2": {}})
		}, []byte("set"), []byte("set")},
		"own delete":    {nil, func(key string) error { return loader.Delete(ctx, key) }, nil, []byte("loaded")},
		"clear":         {nil, clearing, nil, []byte("loaded")},
		"clear expired": {[]byte("old"), clearing, nil, []byte("loaded")},
	} {
		if c.before != nil {
			must(t, writer.Set(ctx, name, c.before, pgcache.TTL(1)))
			db.sees(t, name, nil)
		}
		var got []byte
		err := loader.GetOrSet(ctx, name, &got, func(context.Context) (any, error) {
			return []byte("loaded"), c.write(name)
		})
		if err != nil || !bytes.Equal(got, c.given) {
			t.Errorf("%s: GetOrSet returns %q, %v; want %q", name, got, err, c.given)
		}
		db.want(t, name, c.stored)
		writer.want(t, name, c.stored)
		loader.want(t, name, c.stored)
	}
	if n := loader.Stats().Fenced; n != 9 {
		t.Errorf("%d loads were fenced, want 9", n)
	}
}

// fencedLoadsOfMany: of many that are loaded together, only those that were written meanwhile are not stored.
func fencedLoadsOfMany(t *testing.T, b *bundle) {
	ctx := t.Context()
	loader, writer, db := b.node(nil), b.node(nil), b.node(forgetful)
	loaded := map[string][]byte{"a": []byte("loaded"), "b": []byte("loaded"), "c": []byte("loaded"), "d": []byte("loaded")}
	keys := []string{"a", "b", "c", "d"}
	got, err := pgcache.For[[]byte](loader.Cache).GetOrSetMany(ctx, keys, func(context.Context, []string) (map[string][]byte, error) {
		return loaded, errors.Join(writer.Set(ctx, "b", []byte("set")), writer.Delete(ctx, "c"))
	})
	must(t, err)
	sameMany(t, got, map[string][]byte{"a": []byte("loaded"), "b": []byte("set"), "c": []byte("loaded"), "d": []byte("loaded")})
	stored := map[string][]byte{"a": []byte("loaded"), "b": []byte("set"), "d": []byte("loaded")}
	for _, n := range []node{db, writer, loader} {
		wantMany(t, pgcache.For[[]byte](n.Cache), keys, stored)
	}
}

// locks: a load holds one advisory lock on a session of its node, and none when it is over.
func locks(t *testing.T, b *bundle) {
	ctx := t.Context()
	n := b.node(nil)
	// Locks of a transaction, with which changes are published, are not meant.
	held := func(sessions string) int {
		return b.count(`SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
			WHERE l.locktype = 'advisory' AND a.state = 'idle' AND starts_with(a.application_name, $1::text)`, sessions)
	}
	var got []byte
	must(t, n.GetOrSet(ctx, "k", &got, func(context.Context) (any, error) {
		eventually(t, "a lock is held during a load", func() bool { return held(n.name) == 1 }) // its session may be about something else just now
		return []byte{}, nil
	}))
	keys := []string{"a", "b", "c"}
	_, err := pgcache.For[[]byte](n.Cache).GetOrSetMany(ctx, keys, func(_ context.Context, missing []string) (map[string][]byte, error) {
		eventually(t, "a lock is held for each key", func() bool { return held(n.name) == len(missing) })
		return nil, nil
	})
	must(t, err)
	// The last caller has its value before its lock is given back.
	eventually(t, "no lock is held", func() bool { return held(b.name) == 0 })
	if s := n.Stats(); s.GuardErrors != 0 {
		t.Errorf("%d guard errors", s.GuardErrors)
	}
}

package drivertest

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/pgcache/go/pgcache"
)

// shortTTL: an entry lives as long as it was given, to within 50 ms, in memory, in the database and as seen by others.
func shortTTL(t *testing.T, b *bundle) {
	const ttl, slack = 300 * time.Millisecond, 50 * time.Millisecond
	ctx := t.Context()
	writer, other, db := b.node(nil), b.node(nil), b.node(forgetful)
	var wg sync.WaitGroup
	lives := func(op, key string, write func() error) {
		before := time.Now()
		must(t, write())
		after := time.Now()
		for name, n := range map[string]node{"the writer": writer, "another node": other, "the database": db} {
			wg.Go(func() {
				for {
					asked := time.Now()
					var got []byte
					found, err := n.Get(ctx, key, &got)
					answered := time.Now()
					switch {
					case err != nil:
						t.Errorf("%s: %v", op, err)
					case found && asked.Sub(after) > ttl+slack:
						t.Errorf("%s: %s serves it %v after it was written, with a TTL of %v", op, name, asked.Sub(after), ttl)
					case !found && answered.Sub(before) < ttl:
						t.Errorf("%s: %s has lost it %v after it was written, with a TTL of %v", op, name, answered.Sub(before), ttl)
					case found:
						time.Sleep(5 * time.Millisecond)
						continue
					}
					return
				}
			})
		}
	}
	view := pgcache.For[[]byte](writer.Cache, pgcache.TTL(ttl))
	lives("Set", "set", func() error { return writer.Set(ctx, "set", []byte{}, pgcache.TTL(ttl)) })
	lives("SetMany", "set many", func() error {
		return view.SetMany(ctx, map[string][]byte{"set many": {}, "and another": {}})
	})
	lives("GetOrSet", "loaded", func() error {
		var got []byte
		return writer.GetOrSet(ctx, "loaded", &got, func(context.Context) (any, error) { return []byte{}, nil }, pgcache.TTL(ttl))
	})
	wg.Wait()

	// What has expired is loaded again and stored over the old row.
	got, err := view.GetOrSet(ctx, "set", func(context.Context) ([]byte, error) { return []byte("again"), nil }, pgcache.TTL(time.Hour))
	if err != nil || string(got) != "again" {
		t.Errorf("GetOrSet after expiry returns %q, %v", got, err)
	}
	db.want(t, "set", []byte("again"))

	must(t, writer.Set(ctx, "at once", []byte{}, pgcache.TTL(1))) // rounded up to a microsecond
	db.sees(t, "at once", nil)
}

func longTTLs(t *testing.T, b *bundle) {
	ctx := t.Context()
	n, db := b.node(nil), b.node(forgetful)
	for name, c := range map[string]struct {
		ttl  time.Duration
		left string // what the row says
	}{
		"default": {0, "expires_at > clock_timestamp() + interval '4 minutes' AND expires_at < clock_timestamp() + interval '5 minutes 1 s'"},
		"never":   {pgcache.NoExpiry, "expires_at IS NULL"},
		"century": {100 * 365 * 24 * time.Hour, "expires_at > clock_timestamp() + interval '99 years'"},
		"longest": {math.MaxInt64, "expires_at > clock_timestamp() + interval '99 years'"},
	} {
		load := func(context.Context) (any, error) { return []byte("loaded"), nil }
		var got []byte
		must(t, n.Set(ctx, name+" set", []byte("set"), pgcache.TTL(c.ttl)))
		must(t, pgcache.For[[]byte](n.Cache, pgcache.TTL(c.ttl)).SetMany(ctx, map[string][]byte{name + " many": {}, name + " more": {}}))
		must(t, n.GetOrSet(ctx, name+" loaded", &got, load, pgcache.TTL(c.ttl)))
		for _, key := range []string{name + " set", name + " many", name + " more", name + " loaded"} {
			if b.count("SELECT count(*) FROM "+b.table()+" WHERE key = $1::text AND "+c.left, key) != 1 {
				t.Errorf("%s: the row does not expire as it should", key)
			}
			if found, err := db.Get(ctx, key, &got); !found || err != nil {
				t.Errorf("%s: Get returns %v, %v", key, found, err)
			}
			n.inMemory(t, key)
		}
	}
}

func badTTLs(t *testing.T, b *bundle) {
	ctx := t.Context()
	n := b.start(nil) // no tables: nothing of this may reach the server
	for _, ttl := range []time.Duration{-2, -time.Second, math.MinInt64} {
		var got []byte
		load := func(context.Context) (any, error) { return []byte{}, nil }
		_, viewErr := pgcache.For[[]byte](n.Cache, pgcache.TTL(ttl)).GetMany(ctx, []string{"k"})
		for op, err := range map[string]error{
			"Set": n.Set(ctx, "k", []byte{}, pgcache.TTL(ttl)), "GetOrSet": n.GetOrSet(ctx, "k", &got, load, pgcache.TTL(ttl)), "For": viewErr,
		} {
			if !errors.Is(err, pgcache.ErrInvalidTTL) {
				t.Errorf("%s with a TTL of %v returns %v, want ErrInvalidTTL", op, ttl, err)
			}
		}
	}
}

// tombstones: a Delete leaves a row without a value, which is found by nobody.
func tombstones(t *testing.T, b *bundle) {
	ctx := t.Context()
	n, db := b.node(nil), b.node(forgetful)
	must(t, n.Set(ctx, "was there", []byte{}))
	must(t, n.Set(ctx, "stays", []byte("here")))
	must(t, n.Delete(ctx, "was there"))
	must(t, n.Delete(ctx, "never was", "nor this", "nor this"))
	gone := []string{"was there", "never was", "nor this"}
	if rows := b.count("SELECT count(*) FROM " + b.table() + " WHERE value IS NULL AND expires_at > clock_timestamp()"); rows != len(gone) {
		t.Errorf("%d tombstones, want %d", rows, len(gone))
	}
	for _, c := range []node{n, db} {
		for _, key := range gone {
			c.want(t, key, nil)
		}
		wantMany(t, pgcache.For[[]byte](c.Cache), append(gone, "stays"), map[string][]byte{"stays": []byte("here")})
	}
	// They stand in nobody's way.
	var got []byte
	must(t, n.Set(ctx, "was there", []byte{}))
	must(t, n.GetOrSet(ctx, "never was", &got, func(context.Context) (any, error) { return []byte{}, nil }))
	must(t, pgcache.For[[]byte](n.Cache).SetMany(ctx, map[string][]byte{"nor this": {}, "and this": {}}))
	for _, key := range append(gone, "and this") {
		db.want(t, key, []byte{})
	}
}

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/redis/rueidis"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/localcache"
	"github.com/pgcache/go/pgcache"
)

const (
	hitTyped  = "postgres-cache, typed"
	hitOtter  = "otter"
	hitExpiry = "otter with expiry"
)

var hitShape = shape{
	name: "hit",
	about: "A hit in memory, as a Go benchmark with one goroutine on 1,024 keys: a typed view with a namespace and a struct value, beside otter's own " +
		"GetIfPresent with a string for a key, with and without expiry, and rueidis' client-side caching, whose message is still to be decoded. " +
		"Otter keeps count of reads only from half full on, so there are two sizes.",
	backends: []string{hitTyped, hitOtter, hitExpiry, rueidisCSC},
	columns:  []column{nanos("ns", "hit.ns"), count("allocs", "hit.allocs"), count("bytes", "hit.bytes")},
	plan: func(b *bench) (p plan) {
		p.most = 3
		n := b.cfg.sizes.hitKeys
		for _, room := range []int{4 * n, n + n/4} {
			line := fmt.Sprintf("%d of %d", n, room)
			for _, v := range []struct {
				name string
				run  func(ctx context.Context, keys, room int) (func(b *testing.B), func() error, error)
			}{{hitTyped, b.typedHit}, {hitOtter, otterHit(nil)}, {hitExpiry, otterHit(otter.ExpiryWriting[string, point](hour))}, {rueidisCSC, b.rueidisHit}} {
				if v.name == rueidisCSC && b.backend(rueidisCSC) == nil {
					continue
				}
				p.steps = append(p.steps, step{line + ", " + v.name, 2 * b.cfg.sizes.hitTime, func(ctx context.Context) ([]Sample, error) {
					bench, done, err := v.run(ctx, n, room)
					if err != nil {
						return nil, err
					}
					m, err := goBenchmark(bench, b.cfg.sizes.hitTime)
					return []Sample{{Line: line, Backend: v.name, Metrics: m}}, errors.Join(err, done())
				}})
			}
		}
		return p
	},
}

// point is the struct that is cached.
type point struct {
	ID   int64
	Name string
	X, Y float64
}

// hitNames are n names, a power of two: to step through them should cost next to nothing.
func hitNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%08d", i)
	}
	return names
}

// typedHit is Typed.Get of a struct in a namespace.
func (b *bench) typedHit(ctx context.Context, n, room int) (func(tb *testing.B), func() error, error) {
	schema := newSchema()
	db, err := openDB("pgx", b.servers.pg.DSN, callerConns)
	if err != nil {
		return nil, nil, err
	}
	cache, err := pgcache.New(db, pgcache.Options{
		Schema: schema, DefaultTTL: hour, Listener: pgxdriver.Listener(db), Local: localcache.New(localcache.Options{MaxEntries: room}),
	})
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	done := func() error {
		_, err := b.servers.admin.ExecContext(context.WithoutCancel(ctx), "DROP SCHEMA IF EXISTS "+schema+" CASCADE")
		return errors.Join(cache.Close(), db.Close(), err)
	}
	view := pgcache.For[point](cache, pgcache.Namespace("point"))
	names := hitNames(n)
	values := map[string]point{}
	for i, name := range names {
		values[name] = point{int64(i), name, 1, 2}
	}
	if err := errors.Join(cache.Migrate(ctx), cache.Ready(ctx)); err != nil {
		return nil, nil, errors.Join(err, done())
	}
	if err := view.SetMany(ctx, values); err != nil {
		return nil, nil, errors.Join(err, done())
	}
	return func(tb *testing.B) {
		for i := 0; tb.Loop(); i++ {
			if v, ok, err := view.Get(ctx, names[i&(len(names)-1)]); !ok || err != nil || v.X != 1 {
				tb.Fatal(v, ok, err)
			}
		}
		tb.StopTimer()
		if remote := cache.Stats().RemoteHits; remote > uint64(len(names)) {
			tb.Fatalf("%d of the hits were not in memory", remote)
		}
	}, done, nil
}

func otterHit(expiry otter.ExpiryCalculator[string, point]) func(context.Context, int, int) (func(tb *testing.B), func() error, error) {
	return func(_ context.Context, n, room int) (func(tb *testing.B), func() error, error) {
		c, err := otter.New(&otter.Options[string, point]{MaximumSize: room, ExpiryCalculator: expiry})
		if err != nil {
			return nil, nil, err
		}
		names := make([]string, 0, n)
		for i, name := range hitNames(n) {
			names = append(names, "point:"+name)
			c.Set(names[i], point{int64(i), name, 1, 2})
		}
		return func(tb *testing.B) {
			for i := 0; tb.Loop(); i++ {
				if v, ok := c.GetIfPresent(names[i&(len(names)-1)]); !ok || v.X != 1 {
					tb.Fatal(v, ok)
				}
			}
		}, func() error { c.StopAllGoroutines(); return nil }, nil
	}
}

// rueidisHit is DoCache of a key that the client holds, up to a string: the bytes of a value of the same length as the
// struct's as JSON.
func (b *bench) rueidisHit(ctx context.Context, n, _ int) (func(tb *testing.B), func() error, error) {
	if err := b.servers.emptyRedis(ctx); err != nil {
		return nil, nil, err
	}
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{b.servers.redis.addr}})
	if err != nil {
		return nil, nil, err
	}
	done := func() error {
		client.Close()
		return b.servers.emptyRedis(context.WithoutCancel(ctx))
	}
	names := keys(n)
	get := func(name string) rueidis.RedisResult {
		return client.DoCache(ctx, client.B().Get().Key(name).Cache(), hour)
	}
	for _, name := range names {
		set := client.B().Set().Key(name).Value(`{"ID":12345678,"Name":"12345678","X":1,"Y":2}`).Px(2 * hour).Build()
		if err := errors.Join(client.Do(ctx, set).Error(), get(name).Error()); err != nil {
			return nil, nil, errors.Join(err, done())
		}
	}
	return func(tb *testing.B) {
		for i := 0; tb.Loop(); i++ {
			r := get(names[i&(len(names)-1)])
			if v, err := r.ToString(); err != nil || v == "" || !r.IsCacheHit() {
				tb.Fatal(v, err, r.IsCacheHit())
			}
		}
	}, done, nil
}

// goBenchmark runs f as `go test -bench` would.
func goBenchmark(f func(tb *testing.B), time time.Duration) (metrics, error) {
	if flag.Lookup("test.benchtime") == nil {
		testing.Init()
	}
	if err := flag.Set("test.benchtime", time.String()); err != nil {
		return nil, err
	}
	r := testing.Benchmark(f)
	if r.N == 0 {
		return nil, errors.New("the benchmark failed: a hit was none")
	}
	return metrics{
		"hit.ns":     float64(r.T.Nanoseconds()) / float64(r.N),
		"hit.allocs": float64(r.AllocsPerOp()), "hit.bytes": float64(r.AllocedBytesPerOp()),
	}, nil
}

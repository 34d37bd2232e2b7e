package pgcache_test

import (
	"errors"
	"testing"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/localcache"
	"github.com/pgcache/go/pgcache"
)

type point struct {
	ID   int64
	Name string
	X, Y float64
}

// BenchmarkHit is the local hit beside the map that it is built on.
func BenchmarkHit(b *testing.B) { benchmarkHit(b, nil) }

// BenchmarkHitObserved is the same with an Observer.
func BenchmarkHitObserved(b *testing.B) { benchmarkHit(b, &shown{ops: map[string]int{}}) }

func benchmarkHit(b *testing.B, observer pgcache.Observer) {
	b.Helper()
	db := testdb.DB(b)
	c, err := pgcache.New(db, pgcache.Options{Schema: testdb.Schema(b), DefaultTTL: time.Hour, Listener: pgxdriver.Listener(db), Observer: observer})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	if err := errors.Join(c.Migrate(b.Context()), c.Ready(b.Context())); err != nil {
		b.Fatal(err)
	}
	view := pgcache.For[point](c, pgcache.Namespace("point"))
	want := point{7, "seven", 1, 2}
	if err := view.Set(b.Context(), "7", want); err != nil {
		b.Fatal(err)
	}
	if _, _, err := view.Get(b.Context(), "7"); err != nil {
		b.Fatal(err)
	}
	ctx := b.Context()
	b.Run("typed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if v, ok, err := view.Get(ctx, "7"); !ok || err != nil || v != want {
				b.Fatal(v, ok, err)
			}
		}
	})
	if n := testing.AllocsPerRun(100, func() { _, _, _ = view.Get(ctx, "7") }); n != 0 {
		b.Errorf("%v allocations a hit", n)
	}
	plain := otter.Must(&otter.Options[string, point]{MaximumSize: 4096})
	plain.Set("7", want)
	b.Run("otter", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if v, ok := plain.GetIfPresent("7"); !ok || v != want {
				b.Fatal(v, ok)
			}
		}
	})
	expiring := otter.Must(&otter.Options[string, point]{MaximumSize: 4096, ExpiryCalculator: otter.ExpiryWriting[string, point](time.Hour)})
	expiring.Set("7", want)
	b.Run("otter-expiry", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if v, ok := expiring.GetIfPresent("7"); !ok || v != want {
				b.Fatal(v, ok)
			}
		}
	})
	local := localcache.New(localcache.Options{})
	local.Set(localcache.Key{Namespace: "point", Name: "7"}, &localcache.Entry{Value: want})
	b.Run("localcache", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if e := local.Get(localcache.Key{Namespace: "point", Name: "7"}); e == nil {
				b.Fatal()
			}
		}
	})
	expiring.StopAllGoroutines()
}

package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

// demo runs f with a cache of its own on a Postgres for tests. In a program db comes from sql.Open.
func demo(f func(ctx context.Context, db *sql.DB, cache *pgcache.Cache) error) {
	err := pgcachetest.Do(func(t pgcachetest.TB) {
		node := pgcachetest.Nodes(t, 1, pgcache.Options{})[0]
		if err := f(context.Background(), node.DB, node.Cache); err != nil {
			t.Fatalf("%v", err)
		}
	})
	if err != nil {
		fmt.Println(err)
	}
}

// inTx runs f in a transaction, which it commits unless f fails.
func inTx(ctx context.Context, db *sql.DB, f func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a Commit it does nothing
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

func ExampleNew() {
	demo(func(ctx context.Context, db *sql.DB, _ *pgcache.Cache) error {
		cache, err := pgcache.New(db, pgcache.Options{
			Listener:   pgxdriver.Listener(db), // receives what other nodes change
			Prefix:     "shop_",                // begins the names of its tables
			DefaultTTL: time.Minute,
		})
		if err != nil {
			return err // names the option that is wrong
		}
		defer cache.Close() // before the pool
		fmt.Println(cache.Migrate(ctx), cache.Ready(ctx))
		return nil
	})
	// Output: <nil> <nil>
}

func ExampleNull() {
	cache := pgcache.Null() // no database: every Get misses, every GetOrSet loads
	defer cache.Close()
	numbers := pgcache.For[int](cache)
	fmt.Println(numbers.GetOrSet(context.Background(), "answer", func(context.Context) (int, error) { return 42, nil }))
	// Output: 42 <nil>
}

func ExampleHashKey() {
	fmt.Println(pgcache.HashKey("short-and-valid"))
	key := pgcache.HashKey(strings.Repeat("https://example.com/", 20))
	fmt.Println(key[:20], len(key))
	// Output:
	// short-and-valid
	// https_//example.com/ 132
}

func ExampleMigrationSQL() {
	text, err := pgcache.MigrationSQL(pgcache.Options{Schema: "app", Prefix: "p_"}) // for a tool of your own
	if err != nil {
		fmt.Println(err)
		return
	}
	first, _, _ := strings.Cut(text, "\n")
	fmt.Println(first)
	fmt.Println(strings.Contains(text, `"app"."p_cache_entries"`))
	// Output:
	// -- pgcache migration 1: entries
	// true
}

func ExampleCache_Set() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		if err := cache.Set(ctx, "greeting", "hello", pgcache.TTL(time.Hour)); err != nil {
			return err
		}
		var greeting string
		found, err := cache.Get(ctx, "greeting", &greeting)
		fmt.Println(greeting, found)
		return err
	})
	// Output: hello true
}

func ExampleCache_Get() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		var greeting string
		found, err := cache.Get(ctx, "nobody has set this", &greeting)
		fmt.Printf("%q %v\n", greeting, found)
		return err
	})
	// Output: "" false
}

func ExampleCache_GetOrSet() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		for range 2 {
			var report string
			err := cache.GetOrSet(ctx, "report", &report, func(context.Context) (any, error) {
				fmt.Println("loading") // the slow part
				return "all is well", nil
			})
			if err != nil {
				return err
			}
			fmt.Println(report)
		}
		return nil
	})
	// Output:
	// loading
	// all is well
	// all is well
}

func ExampleCache_Delete() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		if err := cache.Set(ctx, "a", 1); err != nil {
			return err
		}
		if err := cache.Delete(ctx, "a", "b"); err != nil { // "b" was never there: no error
			return err
		}
		var v int
		found, err := cache.Get(ctx, "a", &v)
		fmt.Println(found)
		return err
	})
	// Output: false
}

func ExampleCache_Clear() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		if err := cache.Set(ctx, "a", 1); err != nil {
			return err
		}
		if err := cache.Clear(ctx); err != nil { // on every node, under this Prefix
			return err
		}
		var v int
		found, err := cache.Get(ctx, "a", &v)
		fmt.Println(found)
		return err
	})
	// Output: false
}

func ExampleCache_Cleanup() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		for { // for those who have no janitor: CleanupInterval is negative
			n, err := cache.Cleanup(ctx)
			if err != nil || n == 0 {
				fmt.Println("done", err)
				return err
			}
		}
	})
	// Output: done <nil>
}

func ExampleCache_Close() {
	demo(func(ctx context.Context, db *sql.DB, _ *pgcache.Cache) error {
		cache, err := pgcache.New(db, pgcache.Options{})
		if err != nil {
			return err
		}
		fmt.Println(cache.Close())
		var v int
		_, err = cache.Get(ctx, "a", &v)
		fmt.Println(errors.Is(err, pgcache.ErrClosed))
		return db.PingContext(ctx) // the pool is the caller's, and open
	})
	// Output:
	// <nil>
	// true
}

func ExampleCache_Migrate() {
	demo(func(ctx context.Context, db *sql.DB, _ *pgcache.Cache) error {
		cache, err := pgcache.New(db, pgcache.Options{Prefix: "other_"})
		if err != nil {
			return err
		}
		defer cache.Close()
		fmt.Println(errors.Is(cache.Ready(ctx), pgcache.ErrNotMigrated))
		if err := cache.Migrate(ctx); err != nil { // every process may, at once
			return err
		}
		fmt.Println(cache.Ready(ctx))
		return nil
	})
	// Output:
	// true
	// <nil>
}

func ExampleCache_MigrationState() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		state, err := cache.MigrationState(ctx)
		fmt.Println(state.Have == state.Want, state.Pending)
		return err
	})
	// Output: true []
}

func ExampleCache_Ready() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		fmt.Println(cache.Ready(ctx)) // tables, rights, and a listener that is trusted
		return nil
	})
	// Output: <nil>
}

func ExampleCache_Stats() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		before := cache.Stats()
		var v int
		if _, err := cache.Get(ctx, "a", &v); err != nil {
			return err
		}
		fmt.Println(cache.Stats().Misses - before.Misses)
		return nil
	})
	// Output: 1
}

func ExampleCache_WithTx() {
	demo(func(ctx context.Context, db *sql.DB, cache *pgcache.Cache) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		if err := cache.WithTx(tx).Set(ctx, "a", 1); err != nil {
			return errors.Join(err, tx.Rollback())
		}
		var v int
		before, _ := cache.Get(ctx, "a", &v)
		if err := tx.Commit(); err != nil {
			return err
		}
		after, err := cache.Get(ctx, "a", &v)
		fmt.Println(before, after)
		return err
	})
	// Output: false true
}

func ExampleTTL() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		fmt.Println(cache.Set(ctx, "a", 1, pgcache.TTL(time.Minute)))
		fmt.Println(cache.Set(ctx, "b", 1, pgcache.TTL(pgcache.NoExpiry)))
		err := cache.Set(ctx, "c", 1, pgcache.TTL(time.Until(time.Now().Add(-time.Hour))))
		fmt.Println(errors.Is(err, pgcache.ErrInvalidTTL))
		return nil
	})
	// Output:
	// <nil>
	// <nil>
	// true
}

func ExampleWithCodec() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		images := pgcache.For[[]byte](cache, pgcache.Namespace("image"), pgcache.WithCodec(codec.Raw{}))
		if err := images.Set(ctx, "logo", []byte("GIF89a")); err != nil {
			return err
		}
		logo, _, err := images.Get(ctx, "logo")
		fmt.Printf("%s\n", logo)
		return err
	})
	// Output: GIF89a
}

func ExampleAdvisoryLock() {
	fmt.Println(pgcache.Options{Guard: pgcache.AdvisoryLock()}.Guard == pgcache.AdvisoryLock()) // the default: one load in the fleet
	// Output: true
}

func ExampleLease() {
	demo(func(ctx context.Context, db *sql.DB, _ *pgcache.Cache) error {
		cache, err := pgcache.New(db, pgcache.Options{
			Guard:  pgcache.Lease(), // db leads through a pooler in transaction mode; the Listener would not
			Prefix: "leased_",
		})
		if err != nil {
			return err
		}
		defer cache.Close()
		if err := cache.Migrate(ctx); err != nil {
			return err
		}
		var v int
		err = cache.GetOrSet(ctx, "answer", &v, func(context.Context) (any, error) { return 42, nil })
		fmt.Println(v)
		return err
	})
	// Output: 42
}

func ExampleNoGuard() {
	demo(func(ctx context.Context, db *sql.DB, _ *pgcache.Cache) error {
		cache, err := pgcache.New(db, pgcache.Options{
			Guard:  pgcache.NoGuard(), // loaders are cheap: once per process will do
			Prefix: "cheap_",
		})
		if err != nil {
			return err
		}
		defer cache.Close()
		if err := cache.Migrate(ctx); err != nil {
			return err
		}
		var v int
		err = cache.GetOrSet(ctx, "a", &v, func(context.Context) (any, error) { return 7, nil })
		fmt.Println(v)
		return err
	})
	// Output: 7
}

func ExampleError() {
	_, err := pgcache.Null().Get(context.Background(), "", new(int))
	var e *pgcache.Error
	fmt.Println(errors.As(err, &e), e.Op)
	fmt.Println(errors.Is(err, pgcache.ErrInvalidKey))
	// Output:
	// true get
	// true
}

func ExamplePanicError() {
	var v int
	err := pgcache.Null().GetOrSet(context.Background(), "a", &v, func(context.Context) (any, error) { panic("no source") })
	var p *pgcache.PanicError
	fmt.Println(errors.As(err, &p), p.Value)
	// Output: true no source
}

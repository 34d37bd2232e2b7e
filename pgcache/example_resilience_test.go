package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pgcache/go/pgcache"
)

func ExampleTyped_Fetch() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		users := pgcache.For[member](cache, pgcache.Namespace("user"))
		r, err := users.Fetch(ctx, "42", func(context.Context, *pgcache.Load[member]) (member, error) {
			return member{"Ann"}, nil
		})
		fmt.Println(r.Value.Name, r.Source, r.Stale)
		return err
	})
	// Output: Ann loader false
}

// The value outlives its TTL for callers whose loader fails.
func ExampleStaleFor() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		rates := pgcache.For[string](cache, pgcache.TTL(time.Millisecond), pgcache.StaleFor(time.Hour))
		if err := rates.Set(ctx, "rates", "of today"); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond) // the TTL is over
		r, err := rates.Fetch(ctx, "rates", func(context.Context, *pgcache.Load[string]) (string, error) {
			return "", errors.New("the bank does not answer")
		})
		fmt.Println(r.Value, r.Stale)
		return err
	})
	// Output: of today true
}

// Callers wait 10 ms for a slow loader where there is a stale value.
func ExampleSoftTimeout() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		rates := pgcache.For[string](cache, pgcache.TTL(time.Millisecond),
			pgcache.StaleFor(time.Hour), pgcache.SoftTimeout(10*time.Millisecond))
		if err := rates.Set(ctx, "rates", "of today"); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond) // the TTL is over
		answer := make(chan struct{})
		defer close(answer)
		r, err := rates.Fetch(ctx, "rates", func(context.Context, *pgcache.Load[string]) (string, error) {
			<-answer
			return "of tomorrow", nil
		})
		fmt.Println(r.Value, r.Stale, errors.Is(r.Err, pgcache.ErrLoadTimeout))
		return err
	})
	// Output: of today true true
}

// Nobody waits longer than 50 ms, the loader goes on.
func ExampleHardTimeout() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		rates := pgcache.For[string](cache, pgcache.HardTimeout(50*time.Millisecond))
		answer := make(chan struct{})
		defer close(answer)
		_, err := rates.GetOrSet(ctx, "rates", func(context.Context) (string, error) {
			<-answer
			return "of tomorrow", nil
		})
		fmt.Println(errors.Is(err, pgcache.ErrLoadTimeout))
		return nil
	})
	// Output: true
}

// A hit in the last fifth of the hour starts a load in the background.
func ExampleRefreshAfter() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		rates := pgcache.For[string](cache, pgcache.TTL(time.Hour), pgcache.RefreshAfter(0.8))
		v, err := rates.GetOrSet(ctx, "rates", func(context.Context) (string, error) { return "of today", nil })
		fmt.Println(v)
		return err
	})
	// Output: of today
}

func ExampleNegativeTTL() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		users := pgcache.For[member](cache, pgcache.Namespace("user"), pgcache.NegativeTTL(time.Minute))
		for range 2 {
			_, err := users.GetOrSet(ctx, "43", func(context.Context) (member, error) {
				fmt.Println("loading")
				return member{}, pgcache.ErrNotFound
			})
			fmt.Println(errors.Is(err, pgcache.ErrNotFound))
		}
		return nil
	})
	// Output:
	// loading
	// true
	// true
}

// A loader looks at the value that has expired, and returns it again if it has not changed.
func ExampleLoad_Stale() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		pages := pgcache.For[string](cache, pgcache.TTL(time.Millisecond), pgcache.StaleFor(time.Hour))
		if err := pages.Set(ctx, "/", "welcome"); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond) // the TTL is over
		r, err := pages.Fetch(ctx, "/", func(_ context.Context, l *pgcache.Load[string]) (string, error) {
			if old, ok := l.Stale(); ok {
				return old, nil // the origin has answered "304 Not Modified"
			}
			return "a new page", nil
		}, pgcache.TTL(time.Hour))
		fmt.Println(r.Value, r.Source, r.Stale)
		return err
	})
	// Output: welcome loader false
}

func ExampleLoad_SetTTL() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		tokens := pgcache.For[string](cache, pgcache.Namespace("token"))
		_, err := tokens.Fetch(ctx, "api", func(_ context.Context, l *pgcache.Load[string]) (string, error) {
			l.SetTTL(time.Hour) // what the issuer says
			return "secret", nil
		})
		if err != nil {
			return err
		}
		e, _, err := tokens.GetEntry(ctx, "api")
		fmt.Println(e.ExpiresIn > 50*time.Minute, e.ExpiresIn <= time.Hour)
		return err
	})
	// Output: true true
}

func ExampleLoad_SetTags() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		pages := pgcache.For[string](cache, pgcache.Namespace("page"))
		_, err := pages.Fetch(ctx, "/", func(_ context.Context, l *pgcache.Load[string]) (string, error) {
			l.SetTags("author-7") // the page shows what the author wrote
			return "welcome", nil
		})
		if err != nil {
			return err
		}
		e, _, err := pages.GetEntry(ctx, "/")
		fmt.Println(e.Tags)
		return err
	})
	// Output: [author-7]
}

func ExampleLoad_DoNotStore() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		pages := pgcache.For[string](cache, pgcache.Namespace("page"))
		r, err := pages.Fetch(ctx, "/", func(_ context.Context, l *pgcache.Load[string]) (string, error) {
			l.DoNotStore() // the origin has answered "no-store"
			return "welcome", nil
		})
		if err != nil {
			return err
		}
		_, found, err := pages.Get(ctx, "/")
		fmt.Println(r.Value, found)
		return err
	})
	// Output: welcome false
}

func ExampleOutcome_Result() {
	fmt.Println(pgcache.Outcome{Layer: pgcache.LayerLoader}.Result())
	fmt.Println(pgcache.Outcome{Miss: true}.Result())
	fmt.Println(pgcache.Outcome{Err: pgcache.ErrNotFound}.Result())
	fmt.Println(pgcache.Outcome{Err: context.Canceled}.Result())
	fmt.Println(pgcache.Outcome{Err: errors.New("no memory")}.Result())
	// Output:
	// ok
	// miss
	// not found
	// canceled
	// error
}

package pgcache_test

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/pgcache/go/pgcache"
)

func ExampleExpiresAt() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		now := time.Now()
		tomorrow := time.Date(now.Year(), now.Month(), now.Day()+1, 1, 0, 0, 0, now.Location()) // at one
		if err := cache.Set(ctx, "rates", "of today", pgcache.ExpiresAt(tomorrow)); err != nil {
			return err
		}
		var rates string
		found, err := cache.Get(ctx, "rates", &rates)
		fmt.Println(rates, found)
		return err
	})
	// Output: of today true
}

func ExampleTyped_SetIfAbsent() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		owners := pgcache.For[string](cache, pgcache.Namespace("owner"))
		for _, name := range []string{"Ann", "Bob"} {
			stored, err := owners.SetIfAbsent(ctx, "job", name)
			if err != nil {
				return err
			}
			fmt.Println(name, stored)
		}
		return nil
	})
	// Output:
	// Ann true
	// Bob false
}

func ExampleCache_Touch() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		if err := cache.Set(ctx, "session:1", "Ann", pgcache.TTL(time.Minute)); err != nil {
			return err
		}
		found, err := cache.Touch(ctx, "session:1", time.Hour) // one more hour from now on
		if err != nil {
			return err
		}
		fmt.Println(found)
		found, err = cache.Touch(ctx, "session:2", time.Hour)
		fmt.Println(found)
		return err
	})
	// Output:
	// true
	// false
}

func ExampleTyped_Touch() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		sessions := pgcache.For[member](cache, pgcache.Namespace("session"), pgcache.TTL(time.Hour))
		if err := sessions.Set(ctx, "1", member{"Ann"}); err != nil {
			return err
		}
		found, err := sessions.Touch(ctx, "1", 0) // the TTL of the view, from now on
		fmt.Println(found)
		return err
	})
	// Output: true
}

func ExampleTyped_GetEntry() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		users := pgcache.For[member](cache, pgcache.Namespace("user"))
		if err := users.Set(ctx, "42", member{"Ann"}, pgcache.TTL(time.Hour)); err != nil {
			return err
		}
		e, found, err := users.GetEntry(ctx, "42")
		fmt.Println(e.Key, e.Value.Name, e.ExpiresIn > 50*time.Minute, found)
		return err
	})
	// Output: 42 Ann true true
}

func ExampleTyped_Entries() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		users := pgcache.For[member](cache, pgcache.Namespace("user"))
		if err := users.SetMany(ctx, map[string]member{"42": {"Ann"}, "43": {"Bob"}}); err != nil {
			return err
		}
		for e, err := range users.Entries(ctx) {
			if err != nil {
				return err
			}
			fmt.Println(e.Key, e.Value.Name)
		}
		return nil
	})
	// Output:
	// 42 Ann
	// 43 Bob
}

func ExampleCache_Keys() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		for _, key := range []string{"user:42", "user:43", "group:1"} {
			if err := cache.Set(ctx, key, "x"); err != nil {
				return err
			}
		}
		for key, err := range cache.Keys(ctx, "user:") {
			if err != nil {
				return err
			}
			fmt.Println(key)
		}
		return nil
	})
	// Output:
	// user:42
	// user:43
}

package pgcache_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/pgcache/go/pgcache"
)

// tagged stores two entries of org:7 and one of org:8.
func tagged(ctx context.Context, cache *pgcache.Cache) error {
	for key, org := range map[string]string{"user:1": "org:7", "user:2": "org:7", "user:3": "org:8"} {
		if err := cache.Set(ctx, key, key, pgcache.Tags(org)); err != nil {
			return err
		}
	}
	return nil
}

// left prints the keys that are left.
func left(ctx context.Context, cache *pgcache.Cache) error {
	for key, err := range cache.Keys(ctx, "user:") {
		if err != nil {
			return err
		}
		fmt.Println(key)
	}
	return nil
}

func ExampleTags() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		users := pgcache.For[member](cache, pgcache.Namespace("user"), pgcache.Tags("people"))
		if err := users.Set(ctx, "42", member{"Ann"}, pgcache.Tags("org:7")); err != nil { // both tags
			return err
		}
		if err := cache.DeleteTags(ctx, "org:7"); err != nil {
			return err
		}
		_, found, err := users.Get(ctx, "42")
		fmt.Println(found)
		return err
	})
	// Output: false
}

func ExampleCache_DeleteTags() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		if err := tagged(ctx, cache); err != nil {
			return err
		}
		if err := cache.DeleteTags(ctx, "org:7", "org:9"); err != nil { // every entry with either
			return err
		}
		return left(ctx, cache)
	})
	// Output: user:3
}

func ExampleCache_DeletePrefix() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		for _, key := range []string{"user:1", "user:10", "user:2"} {
			if err := cache.Set(ctx, key, 1); err != nil {
				return err
			}
		}
		if err := cache.DeletePrefix(ctx, "user:1"); err != nil {
			return err
		}
		return left(ctx, cache)
	})
	// Output: user:2
}

func ExampleTyped_Clear() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		users := pgcache.For[int](cache, pgcache.Namespace("user"))
		orgs := pgcache.For[int](cache, pgcache.Namespace("org"))
		if err := users.Set(ctx, "1", 1); err != nil {
			return err
		}
		if err := orgs.Set(ctx, "1", 1); err != nil {
			return err
		}
		if err := users.Clear(ctx); err != nil {
			return err
		}
		_, user, err := users.Get(ctx, "1")
		if err != nil {
			return err
		}
		_, org, err := orgs.Get(ctx, "1")
		fmt.Println(user, org)
		return err
	})
	// Output: false true
}

func ExampleTx_DeleteTags() {
	demo(func(ctx context.Context, db *sql.DB, cache *pgcache.Cache) error {
		if err := tagged(ctx, cache); err != nil {
			return err
		}
		if err := inTx(ctx, db, func(tx *sql.Tx) error { return cache.WithTx(tx).DeleteTags(ctx, "org:7") }); err != nil {
			return err
		}
		return left(ctx, cache)
	})
	// Output: user:3
}

func ExampleTx_DeletePrefix() {
	demo(func(ctx context.Context, db *sql.DB, cache *pgcache.Cache) error {
		if err := tagged(ctx, cache); err != nil {
			return err
		}
		if err := inTx(ctx, db, func(tx *sql.Tx) error { return cache.WithTx(tx).DeletePrefix(ctx, "user:1") }); err != nil {
			return err
		}
		return left(ctx, cache)
	})
	// Output:
	// user:2
	// user:3
}

func ExampleTypedTx_DeleteTags() {
	demo(func(ctx context.Context, db *sql.DB, cache *pgcache.Cache) error {
		if err := tagged(ctx, cache); err != nil {
			return err
		}
		users := pgcache.For[string](cache, pgcache.Namespace("user"))
		if err := inTx(ctx, db, func(tx *sql.Tx) error { return users.WithTx(tx).DeleteTags(ctx, "org:8") }); err != nil {
			return err
		}
		return left(ctx, cache)
	})
	// Output:
	// user:1
	// user:2
}

func ExampleTypedTx_DeletePrefix() {
	demo(func(ctx context.Context, db *sql.DB, cache *pgcache.Cache) error {
		if err := tagged(ctx, cache); err != nil {
			return err
		}
		users := pgcache.For[string](cache, pgcache.Namespace("user"))
		if err := inTx(ctx, db, func(tx *sql.Tx) error { return users.WithTx(tx).DeletePrefix(ctx, "user:1") }); err != nil {
			return err
		}
		return left(ctx, cache)
	})
	// Output:
	// user:2
	// user:3
}

func ExampleCache_WatchTable() {
	demo(func(ctx context.Context, db *sql.DB, cache *pgcache.Cache) error {
		if _, err := db.ExecContext(ctx, "CREATE TABLE members (id int PRIMARY KEY, name text)"); err != nil {
			return err
		}
		defer db.ExecContext(ctx, "DROP TABLE members") //nolint:errcheck // of the example
		if err := cache.WatchTable(ctx, pgcache.TableWatch{Table: "members", Keys: []string{"member:{id}"}}); err != nil {
			return err
		}
		if err := cache.Set(ctx, "member:42", "nobody"); err != nil {
			return err
		}
		if _, err := db.ExecContext(ctx, "INSERT INTO members VALUES (42, 'Ann')"); err != nil { // whoever writes
			return err
		}
		for _, err := range cache.Keys(ctx, "member:42") {
			fmt.Println("still there", err)
		}
		fmt.Println("deleted with the commit")
		return cache.UnwatchTable(ctx, "members")
	})
	// Output: deleted with the commit
}

func ExampleCache_UnwatchTable() {
	demo(func(ctx context.Context, db *sql.DB, cache *pgcache.Cache) error {
		if _, err := db.ExecContext(ctx, "CREATE TABLE teams (id int PRIMARY KEY)"); err != nil {
			return err
		}
		defer db.ExecContext(ctx, "DROP TABLE teams") //nolint:errcheck // of the example
		if err := cache.WatchTable(ctx, pgcache.TableWatch{Table: "teams", Keys: []string{"team:{id}"}}); err != nil {
			return err
		}
		if err := cache.UnwatchTable(ctx, "teams"); err != nil {
			return err
		}
		var triggers int
		err := db.QueryRowContext(ctx, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'teams'::regclass").Scan(&triggers)
		fmt.Println(triggers, "triggers are left")
		return err
	})
	// Output: 0 triggers are left
}

func ExampleWatchSQL() {
	text, err := pgcache.WatchSQL(pgcache.Options{}, pgcache.TableWatch{Table: "public.users", Keys: []string{"user:{id}"}})
	fmt.Println(strings.Contains(text, "cache_watch"), err)
	// Output: true <nil>
}

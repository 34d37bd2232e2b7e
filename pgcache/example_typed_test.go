package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pgcache/go/pgcache"
)

type member struct{ Name string }

func ExampleFor() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		users := pgcache.For[member](cache, pgcache.Namespace("user"), pgcache.TTL(time.Minute)) // keep it
		if err := users.Set(ctx, "42", member{"Ann"}); err != nil {
			return err
		}
		u, found, err := users.Get(ctx, "42")
		fmt.Println(u.Name, found)
		return err
	})
	// Output: Ann true
}

func ExampleNamespace() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		users := pgcache.For[member](cache, pgcache.Namespace("user"))
		if err := users.Set(ctx, "42", member{"Ann"}); err != nil {
			return err
		}
		var u user
		found, err := cache.Get(ctx, "user:42", &u) // the key of the row
		fmt.Println(u.Name, found)
		return err
	})
	// Output: Ann true
}

func ExampleShared() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		rights := pgcache.For[map[string]bool](cache, pgcache.Namespace("rights"), pgcache.Shared())
		if err := rights.Set(ctx, "42", map[string]bool{"read": true}); err != nil {
			return err
		}
		may, _, err := rights.Get(ctx, "42") // all hits hand out one map: nobody may change it
		fmt.Println(may["read"], may["write"])
		return err
	})
	// Output: true false
}

func ExampleLocalNever() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		sessions := pgcache.For[[]byte](cache, pgcache.Namespace("session"), pgcache.TTL(time.Hour), pgcache.LocalNever())
		for _, data := range []string{"cart: 1", "cart: 2"} { // the second wakes no listener
			if err := sessions.Set(ctx, "42", []byte(data)); err != nil {
				return err
			}
		}
		data, _, err := sessions.Get(ctx, "42") // asks the database, on every node
		fmt.Printf("%s\n", data)
		return err
	})
	// Output: cart: 2
}

func ExampleTyped_Get() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		_, found, err := pgcache.For[member](cache).Get(ctx, "42")
		fmt.Println(found)
		return err
	})
	// Output: false
}

func ExampleTyped_Set() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		users := pgcache.For[member](cache, pgcache.Namespace("user"))
		fmt.Println(users.Set(ctx, "42", member{"Ann"}, pgcache.TTL(time.Hour)))
		return nil
	})
	// Output: <nil>
}

// A loader that finds nothing says so with ErrNotFound.
func ExampleTyped_GetOrSet() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		users := pgcache.For[member](cache, pgcache.Namespace("user"))
		for _, id := range []string{"42", "42", "43"} {
			u, err := users.GetOrSet(ctx, id, func(context.Context) (member, error) {
				fmt.Println("loading", id)
				if id != "42" {
					return member{}, pgcache.ErrNotFound
				}
				return member{"Ann"}, nil
			})
			if errors.Is(err, pgcache.ErrNotFound) {
				fmt.Println("nobody")
			} else if err != nil {
				return err
			} else {
				fmt.Println(u.Name)
			}
		}
		return nil
	})
	// Output:
	// loading 42
	// Ann
	// Ann
	// loading 43
	// nobody
}

func ExampleTyped_Delete() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		users := pgcache.For[member](cache, pgcache.Namespace("user"))
		if err := users.Set(ctx, "42", member{"Ann"}); err != nil {
			return err
		}
		if err := users.Delete(ctx, "42"); err != nil {
			return err
		}
		_, found, err := users.Get(ctx, "42")
		fmt.Println(found)
		return err
	})
	// Output: false
}

func ExampleTyped_SetMany() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		numbers := pgcache.For[int](cache, pgcache.Namespace("number"))
		if err := numbers.SetMany(ctx, map[string]int{"one": 1, "two": 2}); err != nil { // one statement
			return err
		}
		found, err := numbers.GetMany(ctx, []string{"one", "two"})
		fmt.Println(found)
		return err
	})
	// Output: map[one:1 two:2]
}

func ExampleTyped_GetMany() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		numbers := pgcache.For[int](cache, pgcache.Namespace("number"))
		if err := numbers.Set(ctx, "one", 1); err != nil {
			return err
		}
		found, err := numbers.GetMany(ctx, []string{"one", "two"}) // one statement
		fmt.Println(found)
		return err
	})
	// Output: map[one:1]
}

func ExampleTyped_GetOrSetMany() {
	demo(func(ctx context.Context, _ *sql.DB, cache *pgcache.Cache) error {
		squares := pgcache.For[int](cache, pgcache.Namespace("length"))
		if err := squares.Set(ctx, "a", 1); err != nil {
			return err
		}
		found, err := squares.GetOrSetMany(ctx, []string{"a", "bb"}, func(_ context.Context, missing []string) (map[string]int, error) {
			fmt.Println("loading", missing)
			loaded := map[string]int{}
			for _, key := range missing {
				loaded[key] = len(key)
			}
			return loaded, nil
		})
		fmt.Println(found)
		return err
	})
	// Output:
	// loading [bb]
	// map[a:1 bb:2]
}

func ExampleTx_Set() {
	demo(func(ctx context.Context, db *sql.DB, cache *pgcache.Cache) error {
		err := inTx(ctx, db, func(tx *sql.Tx) error { return cache.WithTx(tx).Set(ctx, "a", 1) })
		fmt.Println(err)
		return nil
	})
	// Output: <nil>
}

// A transaction sees what it has written itself.
func ExampleTx_Get() {
	demo(func(ctx context.Context, db *sql.DB, cache *pgcache.Cache) error {
		return inTx(ctx, db, func(tx *sql.Tx) error {
			c := cache.WithTx(tx)
			if err := c.Set(ctx, "a", 1); err != nil {
				return err
			}
			var v int
			found, err := c.Get(ctx, "a", &v)
			fmt.Println(v, found)
			return err
		})
	})
	// Output: 1 true
}

// After a rollback all is as before.
func ExampleTx_Delete() {
	demo(func(ctx context.Context, db *sql.DB, cache *pgcache.Cache) error {
		if err := cache.Set(ctx, "a", 1); err != nil {
			return err
		}
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		if err := errors.Join(cache.WithTx(tx).Delete(ctx, "a"), tx.Rollback()); err != nil {
			return err
		}
		var v int
		found, err := cache.Get(ctx, "a", &v)
		fmt.Println(v, found)
		return err
	})
	// Output: 1 true
}

func ExampleTypedTx_Set() {
	demo(func(ctx context.Context, db *sql.DB, cache *pgcache.Cache) error {
		users := pgcache.For[member](cache, pgcache.Namespace("user"))
		err := inTx(ctx, db, func(tx *sql.Tx) error { return users.WithTx(tx).Set(ctx, "42", member{"Ann"}) })
		if err != nil {
			return err
		}
		u, _, err := users.Get(ctx, "42")
		fmt.Println(u.Name)
		return err
	})
	// Output: Ann
}

func ExampleTypedTx_SetMany() {
	demo(func(ctx context.Context, db *sql.DB, cache *pgcache.Cache) error {
		numbers := pgcache.For[int](cache, pgcache.Namespace("number"))
		err := inTx(ctx, db, func(tx *sql.Tx) error {
			return numbers.WithTx(tx).SetMany(ctx, map[string]int{"one": 1, "two": 2})
		})
		if err != nil {
			return err
		}
		found, err := numbers.GetMany(ctx, []string{"one", "two"})
		fmt.Println(found)
		return err
	})
	// Output: map[one:1 two:2]
}

func ExampleTypedTx_Get() {
	demo(func(ctx context.Context, db *sql.DB, cache *pgcache.Cache) error {
		users := pgcache.For[member](cache, pgcache.Namespace("user"))
		return inTx(ctx, db, func(tx *sql.Tx) error {
			_, found, err := users.WithTx(tx).Get(ctx, "42")
			fmt.Println(found)
			return err
		})
	})
	// Output: false
}

func ExampleTypedTx_Delete() {
	demo(func(ctx context.Context, db *sql.DB, cache *pgcache.Cache) error {
		users := pgcache.For[member](cache, pgcache.Namespace("user"))
		if err := users.Set(ctx, "42", member{"Ann"}); err != nil {
			return err
		}
		if err := inTx(ctx, db, func(tx *sql.Tx) error { return users.WithTx(tx).Delete(ctx, "42") }); err != nil {
			return err
		}
		_, found, err := users.Get(ctx, "42")
		fmt.Println(found)
		return err
	})
	// Output: false
}

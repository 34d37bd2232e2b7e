package pgcache_test

import (
	"context"
	"fmt"
	"time"

	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

// The name of a user and what is cached of it change in one commit. Nobody sees the one without the other, and a loader that
// began before cannot bring back the old name.
func ExampleTyped_WithTx() {
	err := pgcachetest.Do(func(t pgcachetest.TB) {
		ctx := context.Background()
		node := pgcachetest.Nodes(t, 1, pgcache.Options{})[0]
		if _, err := node.DB.ExecContext(ctx, "CREATE TABLE users (id int PRIMARY KEY, name text)"); err != nil {
			t.Fatalf("%v", err)
		}
		if _, err := node.DB.ExecContext(ctx, "INSERT INTO users VALUES (42, 'Bob')"); err != nil {
			t.Fatalf("%v", err)
		}
		names := pgcache.For[string](node.Cache, pgcache.Namespace("name"))
		name := func() string {
			name, err := names.GetOrSet(ctx, "42", func(ctx context.Context) (name string, err error) {
				err = node.DB.QueryRowContext(ctx, "SELECT name FROM users WHERE id = 42").Scan(&name)
				return name, err
			})
			if err != nil {
				t.Fatalf("%v", err)
			}
			return name
		}
		fmt.Println(name())

		tx, err := node.DB.BeginTx(ctx, nil)
		if err != nil {
			t.Fatalf("%v", err)
		}
		defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
		if _, err := tx.ExecContext(ctx, "UPDATE users SET name = 'Ann' WHERE id = 42"); err != nil {
			t.Fatalf("%v", err)
		}
		if err := names.WithTx(tx).Delete(ctx, "42"); err != nil {
			t.Fatalf("%v", err)
		}
		fmt.Println(name()) // nothing is committed yet
		if err := tx.Commit(); err != nil {
			t.Fatalf("%v", err)
		}
		fmt.Println(name())
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// Bob
	// Bob
	// Ann
}

// Three requests a minute for each client, counted over all nodes. The minute begins with the first request.
func ExampleCache_Increment() {
	err := pgcachetest.Do(func(t pgcachetest.TB) {
		ctx := context.Background()
		cache := pgcachetest.New(t, pgcache.Options{})
		for range 4 {
			n, err := cache.Increment(ctx, "requests:203.0.113.7", 1, pgcache.TTL(time.Minute))
			if err != nil {
				t.Fatalf("%v", err)
			}
			fmt.Println(n, n <= 3)
		}
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// 1 true
	// 2 true
	// 3 true
	// 4 false
}

// Of all nodes one sends the report of a day.
func ExampleCache_SetIfAbsent() {
	err := pgcachetest.Do(func(t pgcachetest.TB) {
		ctx := context.Background()
		for i, node := range pgcachetest.Nodes(t, 2, pgcache.Options{}) {
			mine, err := node.Cache.SetIfAbsent(ctx, "report:2026-11-28", i, pgcache.TTL(24*time.Hour))
			if err != nil {
				t.Fatalf("%v", err)
			}
			fmt.Println("node", i, "sends it:", mine)
		}
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// node 0 sends it: true
	// node 1 sends it: false
}

// An item is put into a basket that others may change at the same time: no item is lost.
func ExampleTyped_Update() {
	err := pgcachetest.Do(func(t pgcachetest.TB) {
		ctx := context.Background()
		baskets := pgcache.For[[]string](pgcachetest.New(t, pgcache.Options{}), pgcache.Namespace("basket"))
		for _, item := range []string{"tea", "milk"} {
			basket, err := baskets.Update(ctx, "42", func(old []string, _ bool) ([]string, error) {
				return append(old, item), nil
			})
			if err != nil {
				t.Fatalf("%v", err)
			}
			fmt.Println(basket)
		}
		for e, err := range baskets.Entries(ctx) {
			if err != nil {
				t.Fatalf("%v", err)
			}
			fmt.Println(e.Key, e.Value)
		}
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// [tea]
	// [tea milk]
	// 42 [tea milk]
}

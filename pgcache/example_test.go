package pgcache_test

import (
	"context"
	"fmt"

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

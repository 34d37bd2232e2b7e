package pgcachetest_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

// profile and app stand for a program that uses the cache.
type profile struct{ Name string }

type app struct {
	cache    *pgcache.Cache
	profiles *pgcache.Typed[profile]
}

func newApp(ctx context.Context, db *sql.DB) (*app, error) {
	cache, err := pgcache.New(db, pgcache.Options{Listener: pgxdriver.Listener(db)})
	if err != nil {
		return nil, err
	}
	if err := cache.Migrate(ctx); err != nil {
		return nil, errors.Join(err, cache.Close())
	}
	return appOn(cache), nil
}

func appOn(cache *pgcache.Cache) *app {
	return &app{cache, pgcache.For[profile](cache, pgcache.Namespace("profile"), pgcache.TTL(time.Hour))}
}

// name asks a slow service, here always for Ann, and keeps the answer.
func (a *app) name(ctx context.Context, id string) string {
	p, err := a.profiles.GetOrSet(ctx, id, func(context.Context) (profile, error) {
		fmt.Println("asks for", id)
		return profile{"Ann"}, nil
	})
	if err != nil {
		return err.Error()
	}
	return p.Name
}

func (a *app) rename(ctx context.Context, id, name string) error {
	return a.profiles.Set(ctx, id, profile{name})
}

// A program that makes its cache itself gets a pool. In a test, t is a *testing.T, and what is within Do is the test.
func Example() {
	err := pgcachetest.Do(func(t pgcachetest.TB) {
		ctx := context.Background()
		app, err := newApp(ctx, pgcachetest.DB(t))
		if err != nil {
			t.Fatalf("newApp: %v", err)
		}
		t.Cleanup(func() { app.cache.Close() })

		fmt.Println(app.name(ctx, "1"))
		fmt.Println(app.name(ctx, "1"))
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// asks for 1
	// Ann
	// Ann
}

// What one process writes, another sees: some milliseconds later, or at once after Sync.
func Example_nodes() {
	err := pgcachetest.Do(func(t pgcachetest.TB) {
		ctx := context.Background()
		nodes := pgcachetest.Nodes(t, 2, pgcache.Options{})
		a, b := appOn(nodes[0].Cache), appOn(nodes[1].Cache)

		fmt.Println(a.name(ctx, "1"), b.name(ctx, "1"))
		if err := a.rename(ctx, "1", "Bea"); err != nil {
			t.Fatalf("rename: %v", err)
		}
		pgcachetest.Sync(t, b.cache)
		fmt.Println(b.name(ctx, "1"))
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// asks for 1
	// Ann Ann
	// Bea
}

// An hour goes by.
func Example_expire() {
	err := pgcachetest.Do(func(t pgcachetest.TB) {
		ctx := context.Background()
		app := appOn(pgcachetest.New(t, pgcache.Options{}))

		fmt.Println(app.name(ctx, "1"))
		pgcachetest.Expire(t, app.cache, "profile:1")
		fmt.Println(app.name(ctx, "1"))
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// asks for 1
	// Ann
	// asks for 1
	// Ann
}

// The database is gone: GetOrSet goes on, each time with the loader; Set says that it can't.
func Example_faults() {
	err := pgcachetest.Do(func(t pgcachetest.TB) {
		ctx := context.Background()
		node := pgcachetest.Nodes(t, 1, pgcache.Options{})[0]
		app := appOn(node.Cache)

		node.Faults.Down()
		fmt.Println(app.name(ctx, "1"))
		fmt.Println("an error:", app.rename(ctx, "1", "Bea") != nil)

		node.Faults.Mend()
		if err := app.cache.Ready(ctx); err != nil {
			t.Fatalf("Ready: %v", err)
		}
		fmt.Println("an error:", app.rename(ctx, "1", "Bea") != nil)
		fmt.Println(app.name(ctx, "1"))
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// asks for 1
	// Ann
	// an error: true
	// an error: false
	// Bea
}

// Without a listener nothing is answered from memory, so nothing is old either.
func Example_listener() {
	err := pgcachetest.Do(func(t pgcachetest.TB) {
		ctx := context.Background()
		nodes := pgcachetest.Nodes(t, 2, pgcache.Options{})
		a, b := appOn(nodes[0].Cache), appOn(nodes[1].Cache)

		fmt.Println(a.name(ctx, "1"), b.name(ctx, "1"))
		nodes[1].Listener.Stop()
		if err := a.rename(ctx, "1", "Bea"); err != nil {
			t.Fatalf("rename: %v", err)
		}
		fmt.Println(b.name(ctx, "1"))

		nodes[1].Listener.Start()
		if err := b.cache.Ready(ctx); err != nil {
			t.Fatalf("Ready: %v", err)
		}
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// asks for 1
	// Ann Ann
	// Bea
}

// Logic that does not depend on a cache needs no database.
func Example_null() {
	app := appOn(pgcache.Null())
	fmt.Println(app.name(context.Background(), "1"))
	fmt.Println(app.name(context.Background(), "1"))
	// Output:
	// asks for 1
	// Ann
	// asks for 1
	// Ann
}

package gocache_test

import (
	"context"
	"fmt"

	"github.com/eko/gocache/lib/v4/cache"
	"github.com/eko/gocache/lib/v4/store"

	"github.com/pgcache/go/adapters/gocache"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

func ExampleNew() {
	err := pgcachetest.Do(func(t pgcachetest.TB) {
		ctx := context.Background()
		c := pgcachetest.New(t, pgcache.Options{})
		users := cache.New[string](gocache.New[string](c))
		if err := users.Set(ctx, "42", "Ann", store.WithTags([]string{"org:7"})); err != nil {
			t.Fatalf("%v", err)
		}
		fmt.Println(users.Get(ctx, "42"))
		if err := users.Invalidate(ctx, store.WithInvalidateTags([]string{"org:7"})); err != nil {
			t.Fatalf("%v", err)
		}
		fmt.Println(users.Get(ctx, "42"))
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// Ann <nil>
	//  value not found in store
}

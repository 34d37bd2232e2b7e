package sturdyc_test

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/viccon/sturdyc"

	pgsturdyc "github.com/pgcache/go/adapters/sturdyc"
	"github.com/pgcache/go/localcache"
	"github.com/pgcache/go/pgcache"
)

// Records live an hour in the database, a minute in the memory of each process, and are refreshed early. sturdyc has the memory, so
// the cache needs none, and no listener.
func Example() {
	ctx := context.Background()
	db, err := sql.Open("pgx", "postgres://localhost/app")
	if err != nil {
		panic(err)
	}
	cache, err := pgcache.New(db, pgcache.Options{Local: localcache.None()})
	if err != nil {
		panic(err)
	}
	defer cache.Close()
	if err := cache.Migrate(ctx); err != nil {
		panic(err)
	}

	storage := pgsturdyc.New(cache, pgcache.TTL(time.Hour))
	users := sturdyc.New[string](10_000, 10, time.Minute, 10,
		sturdyc.WithDistributedStorageEarlyRefreshes(storage, 10*time.Minute))

	name, err := sturdyc.GetOrFetch(ctx, users, "user-42", func(ctx context.Context) (name string, err error) {
		return name, db.QueryRowContext(ctx, "SELECT name FROM users WHERE id = 42").Scan(&name)
	})
	fmt.Println(name, err)
}

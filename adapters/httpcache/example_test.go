package httpcache_test

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	bartventer "github.com/bartventer/httpcache"
	gregjones "github.com/gregjones/httpcache"

	"github.com/pgcache/go/adapters/httpcache"
	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/pgcache"
)

func newPgcache() *pgcache.Cache {
	db, err := sql.Open("pgx", "postgres://localhost/app")
	if err != nil {
		panic(err)
	}
	cache, err := pgcache.New(db, pgcache.Options{Listener: pgxdriver.Listener(db)})
	if err != nil {
		panic(err)
	}
	if err := cache.Migrate(context.Background()); err != nil {
		panic(err)
	}
	return cache
}

// With gregjones/httpcache, or sandrolain/httpcache.
func ExampleNew() {
	cache := newPgcache()
	defer cache.Close()
	client := gregjones.NewTransport(httpcache.New(cache)).Client()
	resp, err := client.Get("https://api.example.com/rates")
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status, resp.Header.Get(gregjones.XFromCache))
}

// With bartventer/httpcache.
func ExampleRegister() {
	cache := newPgcache()
	defer cache.Close()
	httpcache.Register("pgcache", httpcache.NewConn(cache, pgcache.TTL(time.Hour)))
	client := bartventer.NewClient("pgcache://")
	resp, err := client.Get("https://api.example.com/rates")
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status, resp.Header.Get(bartventer.CacheStatusHeader))
}

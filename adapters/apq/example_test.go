package apq_test

import (
	"context"
	"database/sql"
	"net/http"

	"github.com/99designs/gqlgen/graphql/handler/extension"
	"github.com/99designs/gqlgen/graphql/handler/testserver"
	"github.com/99designs/gqlgen/graphql/handler/transport"

	"github.com/pgcache/go/adapters/apq"
	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/pgcache"
)

// A server that takes a query by its hash once any process of the service has seen it.
func Example() {
	db, err := sql.Open("pgx", "postgres://localhost/app")
	if err != nil {
		panic(err)
	}
	cache, err := pgcache.New(db, pgcache.Options{Listener: pgxdriver.Listener(db), MaxBytes: 1 << 30})
	if err != nil {
		panic(err)
	}
	defer cache.Close()
	if err := cache.Migrate(context.Background()); err != nil {
		panic(err)
	}

	server := testserver.New().Server // stands for handler.New(generated.NewExecutableSchema(...))
	server.AddTransport(transport.GET{})
	server.AddTransport(transport.POST{})
	server.Use(extension.AutomaticPersistedQuery{Cache: apq.New(cache)})
	panic(http.ListenAndServe("localhost:4000", server))
}

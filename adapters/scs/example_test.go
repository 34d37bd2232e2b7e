package scs_test

import (
	"context"
	"database/sql"
	"net/http"

	"github.com/alexedwards/scs/v2"

	pgscs "github.com/pgcache/go/adapters/scs"
	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/pgcache"
)

// Sessions in a table of their own that outlives a crash of the server.
func Example() {
	db, err := sql.Open("pgx", "postgres://localhost/app")
	if err != nil {
		panic(err)
	}
	cache, err := pgcache.New(db, pgcache.Options{Prefix: "session_", Durable: true, Listener: pgxdriver.Listener(db)})
	if err != nil {
		panic(err)
	}
	defer cache.Close()
	if err := cache.Migrate(context.Background()); err != nil {
		panic(err)
	}

	sessions := scs.New()
	sessions.Store = pgscs.New(cache)

	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		if err := sessions.RenewToken(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		sessions.Put(r.Context(), "user", "ann")
	})
	panic(http.ListenAndServe("localhost:4000", sessions.LoadAndSave(mux)))
}

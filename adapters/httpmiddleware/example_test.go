package httpmiddleware_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"

	"github.com/pgcache/go/adapters/httpmiddleware"
	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/compress"
	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/pgcache"
)

// What says how long it may be kept runs once a minute in the whole fleet.
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

	mux := http.NewServeMux()
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=60")
		fmt.Fprintln(w, "an expensive report")
	})
	cached := httpmiddleware.New(cache, httpmiddleware.Options{
		Wrap: func(c codec.Codec) codec.Codec { return compress.New(c) },
	})
	panic(http.ListenAndServe("localhost:4000", cached(mux)))
}

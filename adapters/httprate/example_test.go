package httprate_test

import (
	"context"
	"database/sql"
	"net"
	"net/http"
	"time"

	"github.com/go-chi/httprate"

	pghttprate "github.com/pgcache/go/adapters/httprate"
	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/pgcache"
)

// byAddress is for servers without a proxy before them.
func byAddress(r *http.Request) (string, error) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	return host, err
}

// Ten logins a minute for each address, in the whole fleet.
func Example() {
	db, err := sql.Open("pgx", "postgres://localhost/app")
	if err != nil {
		panic(err)
	}
	cache, err := pgcache.New(db, pgcache.Options{Listener: pgxdriver.Listener(db)})
	if err != nil {
		panic(err)
	}
	defer cache.Close()
	if err := cache.Migrate(context.Background()); err != nil {
		panic(err)
	}

	counter := pghttprate.New(cache, "login")
	counter.Fallback = httprate.NewLocalLimitCounter(0)
	limit := httprate.LimitBy(10, time.Minute, byAddress, httprate.WithLimitCounter(counter))

	mux := http.NewServeMux()
	mux.Handle("POST /login", limit(http.NotFoundHandler()))
	panic(http.ListenAndServe("localhost:4000", mux))
}

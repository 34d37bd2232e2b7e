// Command httpapi is a small web service with a cached answer.
//
//	go run ./examples/httpapi
//	curl localhost:8080/number                    a random number from a slow source, the same for 10 seconds
//	curl -d 42 localhost:8080/number              sets it (or: curl -X POST 'localhost:8080/number?value=42')
//	curl localhost:8080/stats                     where the answers came from
//
// It takes the Postgres that PGCACHE_DSN names, or starts one for the time being. Start it twice, with
// PGCACHE_DSN and two -addr, and both give the same number.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

func main() {
	addr := flag.String("addr", "localhost:8080", "where to listen")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr); err != nil {
		log.Fatal("httpapi: ", err)
	}
}

// run serves on addr until ctx ends.
func run(ctx context.Context, addr string) (err error) {
	dsn, stopPostgres, err := pgcachetest.StartPostgres(ctx, log.Printf) // a service would have its DSN from its configuration
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopPostgres()) }()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	cache, err := pgcache.New(db, pgcache.Options{Prefix: "httpapi_", Listener: pgxdriver.Listener(db)})
	if err != nil {
		return err
	}
	defer cache.Close()
	if err := cache.Migrate(ctx); err != nil {
		return err
	}

	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	log.Printf("listening on http://%s", listener.Addr())
	return serve(ctx, listener, newAPI(cache, slowSource))
}

// serve answers until ctx ends, and then lets the requests that are under way come to their end.
func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return server.Shutdown(patience)
}

// slowSource is where the number comes from.
func slowSource(ctx context.Context) (int, error) {
	select {
	case <-time.After(500 * time.Millisecond):
		return rand.N(1000), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

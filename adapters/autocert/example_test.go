package autocert_test

import (
	"context"
	"database/sql"
	"encoding/base64"
	"net/http"
	"os"

	"golang.org/x/crypto/acme/autocert"

	pgautocert "github.com/pgcache/go/adapters/autocert"
	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/encrypt"
	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/pgcache"
)

// Certificates in a table of their own that outlives a crash of the server, with encrypted keys.
func Example() {
	db, err := sql.Open("pgx", "postgres://localhost/app")
	if err != nil {
		panic(err)
	}
	cache, err := pgcache.New(db, pgcache.Options{Prefix: "certificate_", Durable: true, Listener: pgxdriver.Listener(db)})
	if err != nil {
		panic(err)
	}
	defer cache.Close()
	if err := cache.Migrate(context.Background()); err != nil {
		panic(err)
	}
	secret, err := base64.StdEncoding.DecodeString(os.Getenv("CERTIFICATES_SECRET")) // 32 random bytes
	if err != nil {
		panic(err)
	}
	encrypted, err := encrypt.New(codec.Raw{}, encrypt.Key{ID: "2026", Secret: secret})
	if err != nil {
		panic(err)
	}

	m := &autocert.Manager{
		Prompt:     autocert.AcceptTOS,
		HostPolicy: autocert.HostWhitelist("www.example.com"),
		Cache:      pgautocert.New(cache, pgcache.WithCodec(encrypted)),
	}
	server := &http.Server{Addr: ":443", TLSConfig: m.TLSConfig()}
	panic(server.ListenAndServeTLS("", ""))
}

package otel_test

import (
	"database/sql"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/pgcache"
	pgotel "github.com/pgcache/go/telemetry/otel"
	"go.opentelemetry.io/otel/attribute"
)

func Example() {
	var db *sql.DB // of the program

	cache, err := pgcache.New(db, pgcache.Options{
		Listener: pgxdriver.Listener(db),
		Observer: pgotel.Observer(pgotel.WithAttributes(attribute.String("cache.name", "orders"))),
	})
	if err != nil {
		panic(err)
	}
	defer cache.Close()
}

package prometheus_test

import (
	"database/sql"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/pgcache"
	pgprom "github.com/pgcache/go/telemetry/prometheus"
	"github.com/prometheus/client_golang/prometheus"
)

func Example() {
	var db *sql.DB // of the program

	observer := pgprom.NewObserver()
	cache, err := pgcache.New(db, pgcache.Options{Listener: pgxdriver.Listener(db), Observer: observer})
	prometheus.MustRegister(pgprom.NewCollector(cache, observer))
	if err != nil {
		panic(err)
	}
	defer cache.Close()
}

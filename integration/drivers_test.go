package integration

import (
	"database/sql"
	"net/url"
	"testing"
	"time"

	"github.com/pgcache/go/driver/drivertest"
	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/driver/pqdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// The configurations in which people use the two drivers. The first of each are what they do by default.
var (
	pgxModes = []drivertest.Factory{
		viaPgx("cache_statement"), viaPgx("simple_protocol"), viaPgx("exec"), viaPgx("cache_describe"), viaPgx("describe_exec"),
	}
	pqModes = []drivertest.Factory{viaPq("no"), viaPq("yes")}
)

// viaPgx is pgx in one of its ways to send a query, listening on a connection of the pool.
func viaPgx(mode string) drivertest.Factory {
	return drivertest.Factory{
		Name: "pgx " + mode,
		Open: func(tb testing.TB, dsn string) *sql.DB {
			return testdb.Open(tb, "pgx", testdb.WithParam(dsn, "default_query_exec_mode", mode))
		},
		Listener: func(_ testing.TB, db *sql.DB, _ string) pgcache.Listener { return pgxdriver.Listener(db) },
	}
}

// viaPq is lib/pq, with its parameters in text or in binary.
func viaPq(binary string) drivertest.Factory {
	return drivertest.Factory{
		Name: "pq binary_parameters=" + binary,
		Open: func(tb testing.TB, dsn string) *sql.DB {
			return testdb.Open(tb, "postgres", testdb.WithParam(dsn, "binary_parameters", binary))
		},
		Listener: func(_ testing.TB, _ *sql.DB, dsn string) pgcache.Listener { return pqdriver.Listener(dsn) },
	}
}

// listeningTo returns f with a listener that goes to the server itself while the data go through a pooler.
func listeningTo(direct string, f drivertest.Factory) drivertest.Factory {
	f.Name += ", direct listener"
	f.Listener = func(_ testing.TB, _ *sql.DB, dsn string) pgcache.Listener {
		return pgxdriver.ListenerDSN(testdb.WithParam(direct, "application_name", applicationName(dsn)))
	}
	return f
}

// polling returns f with a listener that asks, through the pool, instead of listening.
func polling(f drivertest.Factory) drivertest.Factory {
	f.Name += ", polling"
	f.Listener = func(testing.TB, *sql.DB, string) pgcache.Listener { return listener.Poll(10 * time.Millisecond) }
	return f
}

func applicationName(dsn string) string {
	u, err := url.Parse(dsn)
	if err != nil {
		return ""
	}
	return u.Query().Get("application_name")
}

package pgcache_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// onePid hands out one session for every connection, as a pooler may.
type onePid struct {
	driver.Connector
	conn driver.Conn
}

func (p *onePid) Connect(context.Context) (driver.Conn, error) {
	return unclosed{&wireConn{p.conn, &wire{}}}, nil
}

type unclosed struct{ *wireConn }

func (unclosed) Close() error { return nil }

// A pooler is between where two connections share a session.
func TestDoctor_Pooler(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	cl.on(testdb.DB(t), nil)
	config, err := pgx.ParseConfig(testdb.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	p := &onePid{Connector: stdlib.GetConnector(*config)}
	if p.conn, err = p.Connector.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer p.conn.Close()
	db := sql.OpenDB(p)
	defer db.Close()
	c := cl.new(db, func(o *pgcache.Options) { o.CleanupInterval = -1 })
	finds(t, c, "pooler", "several sessions")
}

// A node that found changes which nobody could publish says so, whatever it is like now.
func TestDoctor_Unpublished(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	db, w := openWire(t, "pgx", testdb.DSN(t))
	c := cl.on(db, func(o *pgcache.Options) { o.Listener = listenerOf("pgx", db, testdb.DSN(t)) })
	stop := w.before(named("Flush"))
	defer stop.release()
	set(t, c, "k", 0)
	eventually(t, "a pulse finds it", func() bool {
		set(t, c, "k", 1)
		return c.Stats().Unpublished > 0
	})
	stop.release()
	finds(t, c, "unpublished", "could not be published")
}

// A table that a subscription fills is named.
func TestDoctor_WatchReplicated(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	w.watch(pgcache.TableWatch{Keys: []string{"user:{id}"}})
	for _, f := range must(w.c.Doctor(t.Context())) {
		if strings.HasPrefix(f.ID, "watch") {
			t.Errorf("%+v", f)
		}
	}
	// No subscription could connect here, so its entry is made by hand.
	conn, err := w.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	exec := func(query string) {
		t.Helper()
		if _, err := conn.ExecContext(context.WithoutCancel(t.Context()), query); err != nil {
			t.Fatal(err)
		}
	}
	name := "sub_" + w.opts.Schema
	exec("CREATE SUBSCRIPTION " + name + " CONNECTION 'host=nowhere.invalid' PUBLICATION p WITH (connect = false)")
	defer func() {
		exec("ALTER SUBSCRIPTION " + name + " SET (slot_name = NONE)")
		exec("DROP SUBSCRIPTION " + name)
	}()
	exec("SET allow_system_table_mods = on")
	exec("INSERT INTO pg_catalog.pg_subscription_rel (srsubid, srrelid, srsubstate) SELECT s.oid, '" + w.name("users") + "'::regclass, 'r' FROM pg_catalog.pg_subscription s WHERE s.subname = '" + name + "'")
	exec("RESET allow_system_table_mods")
	finds(t, w.c, "watch-replicated", "users", "row by row")
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

package pgcache_test

import (
	"context"
	"database/sql"
	"log/slog"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// cluster makes nodes that share one cache, in a schema of the test's own. Its methods fail the test where something goes wrong.
type cluster struct {
	t    *testing.T
	opts pgcache.Options // of each node, unless it is changed
	db   *sql.DB         // beside the nodes, for looking at rows
}

// newCluster returns a cluster without nodes, whose tables do not exist yet: node and on migrate.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	cl := &cluster{t: t, db: testdb.DB(t)}
	cl.opts = pgcache.Options{Schema: testdb.Schema(t), Prefix: "t_", Logger: slog.New(slog.DiscardHandler)}
	return cl
}

// node returns a ready node with a pool and a listener of its own. change may be nil.
func (cl *cluster) node(change func(db *sql.DB, o *pgcache.Options)) *pgcache.Cache {
	cl.t.Helper()
	c := cl.start(change)
	if err := c.Migrate(cl.t.Context()); err != nil {
		cl.t.Fatal(err)
	}
	cl.ready(c)
	return c
}

// start returns a node with a pool and a listener of its own, without waiting for anything and without tables. change may be nil.
func (cl *cluster) start(change func(db *sql.DB, o *pgcache.Options)) *pgcache.Cache {
	cl.t.Helper()
	db := testdb.DB(cl.t)
	return cl.new(db, func(o *pgcache.Options) {
		o.Listener = pgxdriver.Listener(db)
		if change != nil {
			change(db, o)
		}
	})
}

// on returns a ready node on db, with no listener unless change sets one. change may be nil.
func (cl *cluster) on(db *sql.DB, change func(o *pgcache.Options)) *pgcache.Cache {
	cl.t.Helper()
	c := cl.new(db, change)
	if err := c.Migrate(cl.t.Context()); err != nil {
		cl.t.Fatal(err)
	}
	cl.ready(c)
	return c
}

// new is on without waiting for anything and without tables.
func (cl *cluster) new(db *sql.DB, change func(o *pgcache.Options)) *pgcache.Cache {
	cl.t.Helper()
	o := cl.opts
	if change != nil {
		change(&o)
	}
	c, err := pgcache.New(db, o)
	if err != nil {
		cl.t.Fatal(err)
	}
	cl.t.Cleanup(func() { c.Close() })
	return c
}

// wired returns a ready node whose statements can be counted and held up, with a listener of its own. A statement that is held up may wait
// for a minute, unless change sets a Timeout: on a busy machine it takes seconds until a test lets it go.
func (cl *cluster) wired(change func(o *pgcache.Options)) (*pgcache.Cache, *wire) {
	cl.t.Helper()
	db, w := openWire(cl.t, "pgx", testdb.DSN(cl.t))
	return cl.on(db, func(o *pgcache.Options) {
		o.Listener, o.Timeout = pgxdriver.Listener(db), time.Minute
		if change != nil {
			change(o)
		}
	}), w
}

// ready waits until c is.
func (cl *cluster) ready(c *pgcache.Cache) {
	cl.t.Helper()
	ctx, cancel := context.WithTimeout(cl.t.Context(), time.Minute)
	defer cancel()
	if err := c.Ready(ctx); err != nil {
		cl.t.Fatal(err)
	}
}

// table is the full name of the table of entries.
func (cl *cluster) table() string { return cl.object("cache_entries") }

// object is the full name, quoted, of one of the cluster's tables or functions: cl.object("cache_state").
func (cl *cluster) object(name string) string {
	return cl.opts.Schema + `."` + cl.opts.Prefix + name + `"`
}

// names are the options that name the cluster's tables, as a node resolves them.
func (cl *cluster) names() store.Names {
	cl.t.Helper()
	n, err := store.Names{Schema: cl.opts.Schema, Prefix: cl.opts.Prefix, Channel: cl.opts.Channel}.Resolve()
	if err != nil {
		cl.t.Fatal(err)
	}
	return n
}

func (cl *cluster) exec(query string, args ...any) {
	cl.t.Helper()
	if _, err := cl.db.ExecContext(cl.t.Context(), query, args...); err != nil {
		cl.t.Fatal(err)
	}
}

func (cl *cluster) count(query string, args ...any) (n int) {
	cl.t.Helper()
	if err := cl.db.QueryRowContext(cl.t.Context(), query, args...).Scan(&n); err != nil {
		cl.t.Fatal(err)
	}
	return n
}

// expire makes the rows that where selects look as if they had been written and had expired long ago. Nothing is published.
func (cl *cluster) expire(where string) {
	cl.t.Helper()
	cl.exec("UPDATE " + cl.table() + ` SET version = version + 1, stamp = version + 1, expires_at = clock_timestamp() - interval '1 hour',
		written_at = clock_timestamp() - interval '2 hours' WHERE ` + where)
	cl.ended()
}

// ended makes the transactions of before look as if they had ended long ago.
func (cl *cluster) ended() {
	cl.t.Helper()
	cl.exec("UPDATE " + cl.object("cache_state") + " SET ended_before = pg_snapshot_xmax(pg_current_snapshot())")
}

// follow puts a mark that a writes and b keeps in memory. caughtUp waits until b has received everything that was
// committed before the call. w is b's wire, or nil: what it holds up does not hold up this.
func (cl *cluster) follow(a, b *pgcache.Cache, w *wire) (caughtUp func()) {
	cl.t.Helper()
	if w == nil {
		w = &wire{}
	}
	n := 0
	write := func() {
		cl.t.Helper()
		n++
		// What waits in the log may be overtaken by a mark that is published at once.
		eventually(cl.t, "the log is flushed", func() bool {
			return cl.count("SELECT count(*) FROM "+cl.object("cache_changes")) == 0
		})
		set(cl.t, a, "mark", n)
		_ = w.unstopped(func() error { warm(cl.t, b, "mark", n); return nil })
	}
	write()
	return write
}

// keyLocks selects what, such as count(*), from the advisory locks held on keys of this cluster.
func (cl *cluster) keyLocks(what string) int {
	cl.t.Helper()
	n := cl.names()
	return cl.count("SELECT "+what+` FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid = $1::bigint::oid
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
		int64(uint32(n.KeyClass())))
}

// locks is how many advisory locks are held on keys of this cluster.
func (cl *cluster) locks() int {
	cl.t.Helper()
	return cl.keyLocks("count(*)")
}

// noLocks waits until neither a lock nor a lease is held on a key of this cluster.
func (cl *cluster) noLocks() {
	cl.t.Helper()
	eventually(cl.t, "the advisory locks are released", func() bool { return cl.locks() == 0 })
	eventually(cl.t, "the leases are released", func() bool { return cl.leases() == 0 })
}

// leases is how many leases there are on keys of this cluster; 0 without tables.
func (cl *cluster) leases() int {
	cl.t.Helper()
	if cl.count("SELECT count(to_regclass($1))", cl.object("cache_leases")) == 0 {
		return 0
	}
	return cl.count("SELECT count(*) FROM " + cl.object("cache_leases"))
}

package pgcache_test

import (
	"database/sql"
	"sync"
	"testing"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// Concurrent migrations failed with 23505 (pg_type_typname_nsp_index) or XX000 (tuple concurrently updated).
func TestConcurrentMigrate(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	cl.opts.Schema += "_new" // Migrate makes the schema too
	defer cl.exec("DROP SCHEMA " + cl.opts.Schema + " CASCADE")
	var pools []*sql.DB
	for i := range 50 {
		db := testdb.Open(t, []string{"pgx", "postgres"}[i%2], testdb.DSN(t))
		db.SetMaxOpenConns(1)
		pools = append(pools, db)
	}
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i, db := range pools {
		c := cl.new(db, func(o *pgcache.Options) {
			o.Guard = pgcache.NoGuard()
			o.Prefix = []string{"x_", "x_", "x_", "x_", "y_"}[i%5] // a second cache in the same schema
		})
		wg.Go(func() {
			<-start
			if err := c.Migrate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	close(start)
	wg.Wait()
	if n := cl.count("SELECT count(*) FROM "+cl.opts.Schema+".x_cache_state") + cl.count("SELECT count(*) FROM "+cl.opts.Schema+".y_cache_state"); n != 2 {
		t.Errorf("%d rows of state", n)
	}
}

// The table of a cache was logged: every write waited for the disk.
func TestUnlogged(t *testing.T) {
	t.Parallel()
	for durable, persistence := range map[bool]string{false: "u", true: "p"} {
		cl := newCluster(t)
		cl.opts.Durable = durable
		c := cl.node(nil)
		set(t, c, "k", 1)
		for table, want := range map[string]string{"cache_entries": persistence, "cache_state": "p"} {
			if n := cl.count("SELECT count(*) FROM pg_class WHERE oid = to_regclass($1) AND relpersistence = $2::text::\"char\"", cl.opts.Schema+"."+cl.opts.Prefix+table, want); n != 1 {
				t.Errorf("Durable %v: %s is not %q", durable, table, want)
			}
		}
	}
}

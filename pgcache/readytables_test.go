package pgcache_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/pgcache"
)

// The library's mark, which keeps its own DELETEs from the guards, ends with the function that sets it: what the transaction
// does after that is noticed.
func TestUpkeepEndsWithItsFunction(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	for i, call := range []string{
		"cache_clear('-infinity', 10)", "cache_clear_waiting('-infinity')", "cache_clear_waiting('infinity')", "cache_expire(0, 64, '-infinity', 10, true)", "cache_truncate()",
	} {
		set(t, c, "first", i)
		tx, err := cl.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, query := range []string{
			"SELECT " + cl.object(call[:strings.Index(call, "(")]) + call[strings.Index(call, "("):],
			"INSERT INTO " + cl.table() + " (key, value) VALUES ('k', '1') ON CONFLICT (key) DO UPDATE SET value = '1'",
			"DELETE FROM " + cl.table() + " WHERE key = 'k'",
		} {
			if _, err := tx.ExecContext(t.Context(), query); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if n := cl.count("SELECT count(*) FROM " + cl.table() + " WHERE key = 'k' AND value IS NULL"); n != 1 {
			t.Errorf("after %s a DELETE by hand leaves no tombstone", call)
		}
		cl.exec("TRUNCATE " + cl.table())
	}
}

// Ready does not say that all is well with a table of another persistence, nor with one that is missing.
func TestReadyLooksAtTables(t *testing.T) {
	t.Parallel()
	for _, durable := range []bool{false, true} {
		cl := newCluster(t)
		cl.opts.Durable = durable
		cl.node(nil)
		cl.opts.Durable = !durable
		began := time.Now()
		err := cl.new(cl.db, nil).Ready(t.Context())
		if err == nil || !strings.Contains(err.Error(), "ALTER TABLE") || time.Since(began) > 5*time.Second {
			t.Fatalf("Durable %v: %v", durable, err)
		}
		cl.exec(err.Error()[strings.Index(err.Error(), "ALTER TABLE"):strings.Index(err.Error(), ", which")])
		cl.ready(cl.new(cl.db, nil))
	}
	for _, drop := range []string{"TABLE %s.t_cache_incarnation", "FUNCTION %s.t_cache_writers()", "TABLE %s.t_cache_notices", "FUNCTION %s.t_cache_look(int, int, int[], text[], int, boolean)"} {
		cl := newCluster(t)
		cl.node(nil)
		cl.exec("DROP " + strings.Replace(drop, "%s", cl.opts.Schema, 1))
		c := cl.new(cl.db, nil)
		wantErr(t, c.Ready(t.Context()), pgcache.ErrNotMigrated)
		if err := c.Migrate(t.Context()); err != nil { // makes it again
			t.Error(err)
		}
		cl.ready(c)
		for call, err := range everything(t.Context(), c) {
			if err != nil {
				t.Errorf("after DROP %s, %s: %v", drop, call, err)
			}
		}
	}
}

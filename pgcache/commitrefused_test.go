package pgcache_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// TestCommitRefused: the server may refuse a statement after it has sent its rows and the word that it is complete, when it commits: as
// where the queue of notifications is full. Every write is then an error, with the server's SQLSTATE, and nothing of it is done: not
// in the table, and not in memory.
func TestCommitRefused(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		for _, prepare := range []bool{false, true} {
			t.Run(fmt.Sprintf("prepare=%v", prepare), func(t *testing.T) {
				t.Parallel()
				forWindows(t, func(t *testing.T, cl *cluster) { commitRefused(t, cl, driver, prepare) })
			})
		}
	})
}

func commitRefused(t *testing.T, cl *cluster, driver string, prepare bool) {
	t.Helper()
	dsn := testdb.DSN(t)
	db := testdb.Open(t, driver, dsn)
	c := cl.on(db, func(o *pgcache.Options) { o.Listener, o.PrepareStatements = listenerOf(driver, db, dsn), prepare })
	cl.exec(fmt.Sprintf(`CREATE FUNCTION %[1]s.refuse() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN RAISE 'too many notifications in the NOTIFY queue' USING ERRCODE = '54000'; END $$;
		CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE OR DELETE ON %[2]s DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW EXECUTE FUNCTION %[1]s.refuse();
		ALTER TABLE %[2]s DISABLE TRIGGER refuse`, cl.opts.Schema, cl.table()))
	ctx, n := t.Context(), pgcache.For[int](c)
	for name, write := range map[string]func() error{
		"Set":         func() error { return c.Set(ctx, "k", 2) },
		"Set, tagged": func() error { return c.Set(ctx, "k", 2, pgcache.Tags("t")) },
		"SetMany":     func() error { return n.SetMany(ctx, map[string]int{"k": 2, "l": 2}) },
		"Delete":      func() error { return c.Delete(ctx, "k") },
		"Delete two":  func() error { return c.Delete(ctx, "k", "l") },
		"Increment":   func() error { _, err := c.Increment(ctx, "k", 1); return err },
		"SetIfAbsent": func() error { _, err := c.SetIfAbsent(ctx, "m", 2); return err },
		"Touch":       func() error { _, err := c.Touch(ctx, "k", time.Hour); return err },
		"Update": func() error {
			_, err := n.Update(ctx, "k", func(int, bool) (int, error) { return 2, nil })
			return err
		},
	} {
		set(t, c, "k", 1)
		set(t, c, "l", 1)
		warm(t, c, "k", 1)
		before := cl.count("SELECT sum(hashtext(version::text || expires_at::text))::bigint FROM " + cl.table())
		cl.exec("ALTER TABLE " + cl.table() + " ENABLE TRIGGER refuse")
		err := write()
		cl.exec("ALTER TABLE " + cl.table() + " DISABLE TRIGGER refuse")
		if sqlerr.State(err) != "54000" {
			t.Errorf("%s: %v", name, err)
		}
		want(t, c, "k", 1)
		want(t, c, "l", 1)
		wantNone(t, c, "m")
		if after := cl.count("SELECT sum(hashtext(version::text || expires_at::text))::bigint FROM " + cl.table()); after != before {
			t.Errorf("%s has changed rows", name)
		}
	}
}

package pgcache_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// A load that began before somebody else changed or removed the row must not store over it, whichever way it was changed.
func TestP6_ForeignChanges(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		before bool // there is a row that does not decode, when the load begins
		change string
		want   string // what is stored; "" nothing
	}{
		"INSERT":                              {false, "INSERT INTO %s (key, value) VALUES ('k', '2')", "2"},
		"UPDATE":                              {true, "UPDATE %s SET value = '2' WHERE key = 'k'", "2"},
		"UPSERT":                              {true, "INSERT INTO %s (key, value) VALUES ('k', '2') ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value", "2"},
		"UPSERT with version":                 {true, "INSERT INTO %s (key, value, version) VALUES ('k', '2', 9) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, version = EXCLUDED.version", "2"},
		"DELETE":                              {true, "DELETE FROM %s WHERE key = 'k'", ""},
		"DELETE in a session that replicates": {true, "SET session_replication_role = replica; DELETE FROM %s; SET session_replication_role = origin", ""},
		"DELETE of the tombstone":             {false, "SELECT %[2]s('k'); DELETE FROM %[1]s", ""},
		"UPDATE of the key":                   {true, "UPDATE %s SET key = 'other'", ""},
		"TRUNCATE":                            {true, "TRUNCATE %s", ""},
		"TRUNCATE of nothing":                 {false, "TRUNCATE %s", ""},
		"cache_set":                           {true, "SELECT %[3]s('k', '2')", "2"},
		"cache_delete":                        {false, "SELECT %[2]s('k')", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			c := cl.node(nil)
			if test.before {
				set(t, c, "k", "not a number")
			}
			l := newLoader(1)
			loaded := async(t, func() error { return c.GetOrSet(t.Context(), "k", new(int), l.load) })
			l.wait(t)
			for _, stmt := range strings.Split(fmt.Sprintf(test.change+"%[4]s", cl.table(), cl.object("cache_delete"), cl.object("cache_set"), ""), ";") {
				cl.exec(stmt)
			}
			l.release()
			if err := loaded(); err != nil {
				t.Fatal(err)
			}
			var got string
			if err := cl.db.QueryRowContext(t.Context(), "SELECT coalesce(max(convert_from(value, 'UTF8')), '') FROM "+cl.table()+" WHERE key = 'k'").Scan(&got); err != nil {
				t.Fatal(err)
			}
			if got != test.want {
				t.Errorf("%q is stored, want %q", got, test.want)
			}
		})
	}
}

// Until a transaction that removes a row has ended, a load waits with its store, and then gives way.
func TestP6_DeleteInATransaction(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]string{"": "COMMIT", "1": "ROLLBACK"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			c := cl.node(nil)
			set(t, c, "k", "not a number")
			l := newLoader(1)
			loaded := async(t, func() error { return c.GetOrSet(t.Context(), "k", new(int), l.load) })
			l.wait(t)
			conn, err := cl.db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for _, q := range []string{"BEGIN", "DELETE FROM " + cl.table() + " WHERE key = 'k'"} {
				if _, err := conn.ExecContext(t.Context(), q); err != nil {
					t.Fatal(err)
				}
			}
			l.release()
			time.Sleep(50 * time.Millisecond)
			if _, err := conn.ExecContext(t.Context(), end); err != nil {
				t.Fatal(err)
			}
			if err := loaded(); err != nil {
				t.Fatal(err)
			}
			var got string
			if err := cl.db.QueryRowContext(t.Context(), "SELECT coalesce(max(convert_from(value, 'UTF8')), '') FROM "+cl.table()+" WHERE key = 'k'").Scan(&got); err != nil {
				t.Fatal(err)
			}
			if got != name {
				t.Errorf("%q is stored, want %q", got, name)
			}
		})
	}
}

// Every row has a version of its own, whoever wrote it: two values of one version can't be distinguished.
func TestForeignVersions(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	versions := map[int64]string{}
	for _, change := range []string{
		"INSERT INTO %s (key, value) VALUES ('k', '1')",
		"UPDATE %s SET value = '2'",
		"UPDATE %s SET value = '3', version = 0",
		"UPDATE %s SET value = '4', version = 7",
		"UPDATE %s SET value = '5', version = 7",
		"INSERT INTO %s (key, value, version) VALUES ('k', '6', 1) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, version = EXCLUDED.version",
		// As programs do that write all columns they know of: those that they do not mean are NULL or 0.
		"INSERT INTO %s (key, value, version, stamp) VALUES ('k', '7', 0, NULL) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, version = EXCLUDED.version, stamp = EXCLUDED.stamp",
		"INSERT INTO %s (key, value, version, stamp) VALUES ('k', '8', 0, 0) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, version = EXCLUDED.version, stamp = EXCLUDED.stamp",
		"UPDATE %s SET value = '9', version = 0, stamp = 0",
		"UPDATE %s SET value = '10', version = 0, stamp = 0",
	} {
		before, _ := get[int](t, c, "k")
		cl.exec(fmt.Sprintf(change, cl.table()))
		var version, stamp int64
		if err := cl.db.QueryRowContext(t.Context(), "SELECT version, coalesce(stamp, version) FROM "+cl.table()).Scan(&version, &stamp); err != nil {
			t.Fatal(err)
		}
		if other, ok := versions[version]; ok || version == 0 || version != stamp {
			t.Errorf("version %d, stamp %d, after %s; the same as after %s", version, stamp, change, other)
		}
		versions[version] = change
		warm(t, c, "k", before+1) // and it was noticed
	}
}

// A session whose default isolation is changed while nodes run does not make a load store what is from before a Clear.
func TestP6_IsolationChanged(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"repeatable read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			db := testdb.DB(t)
			c, other := cl.on(db, nil), cl.node(nil)
			set(t, c, "warm", 1) // it has seen sessions that are READ COMMITTED
			conns := db.Stats().Idle
			for range 5 {
				l := newLoader("old")
				var v string
				loaded := async(t, func() error { return c.GetOrSet(t.Context(), "k", &v, l.load) })
				l.wait(t)
				for range conns + 5 {
					if _, err := db.ExecContext(t.Context(), "SET default_transaction_isolation = '"+level+"'"); err != nil {
						t.Fatal(err)
					}
				}
				tx, err := cl.db.BeginTx(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				// The store waits for this lock with its snapshot taken; the Clear is over before it gets it.
				if _, err := tx.Exec("LOCK TABLE " + cl.table() + " IN SHARE ROW EXCLUSIVE MODE"); err != nil {
					t.Fatal(err)
				}
				l.release()
				time.Sleep(30 * time.Millisecond)
				if _, err := tx.Exec("UPDATE " + cl.object("cache_incarnation") + " SET id = id + 1"); err != nil {
					t.Fatal(err)
				}
				if err := tx.Commit(); err != nil {
					t.Fatal(err)
				}
				if err := loaded(); err != nil {
					t.Fatal(err)
				}
				if n := cl.count("SELECT count(*) FROM " + cl.table() + " WHERE key = 'k'"); n != 0 {
					t.Error("what was loaded before is stored")
				}
			}
			// And it goes on working.
			if v, err := loaded(c, "l", 3); v != 3 || err != nil {
				t.Error(v, err)
			}
			want(t, other, "l", 3)
		})
	}
}

// What nodes could not read, nobody writes by hand.
func TestForeignRowsAreChecked(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	set(t, c, "k", 1)
	for name, change := range map[string]string{
		"tags in two dimensions": "UPDATE %s SET tags = '{{a,b},{c,d}}'",
		"a long codec":           "UPDATE %s SET codec = repeat('c', 33)",
		"no end":                 "UPDATE %s SET expires_at = 'infinity'",
		"stale without end":      "UPDATE %s SET stale_until = 'infinity'",
		"a new row of version 0": "INSERT INTO %s (key, value, version, stamp, codec) VALUES ('new', '1', 0, 0, repeat('c', 33))",
		"a new row":              "INSERT INTO %s (key, value, codec) VALUES ('new', '1', repeat('c', 33))",
	} {
		_, err := cl.db.ExecContext(t.Context(), fmt.Sprintf(change, cl.table()))
		if sqlerr.State(err) != "23514" {
			t.Errorf("%s: %v", name, err)
		}
	}
	cl.exec("UPDATE " + cl.table() + " SET tags = '{a,b}', codec = repeat('c', 32), expires_at = NULL")
	cl.exec("UPDATE " + cl.table() + " SET tags = NULL, codec = 'json'")
	want(t, c, "k", 1)
}

// The functions for other services: what they write is read here, and known at once.
func TestFunctions(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	cl.opts.InvalidationWindow = pgcache.Immediate
	c := cl.node(nil)
	role := cl.opts.Schema + "_service"
	cl.exec(fmt.Sprintf("CREATE ROLE %[1]s; GRANT USAGE ON SCHEMA %[2]s TO %[1]s; GRANT EXECUTE ON FUNCTION %[3]s(text, bytea, interval, text, text[]), %[4]s(text) TO %[1]s",
		role, cl.opts.Schema, cl.object("cache_set"), cl.object("cache_delete")))
	defer cl.exec("DROP OWNED BY " + role + "; DROP ROLE " + role)
	db := testdb.Open(t, "pgx", testdb.WithParam(testdb.DSN(t), "role", role))
	call := func(query string, args ...any) error {
		_, err := db.ExecContext(t.Context(), query, args...)
		return err
	}
	put, del := cl.object("cache_set"), cl.object("cache_delete")
	for i := range 3 {
		if err := call("SELECT "+put+"($1, convert_to($2, 'UTF8'), '1 minute')", "k", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		warm(t, c, "k", i)
	}
	if left := cl.count("SELECT extract(epoch FROM expires_at - clock_timestamp())::int FROM " + cl.table()); left < 50 || left > 60 {
		t.Errorf("expires in %d s", left)
	}
	if err := call("SELECT "+del+"($1)", "k"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is gone", func() bool { _, found := get[int](t, c, "k"); return !found })
	for _, bad := range []string{
		put + "('', '1')", put + "(NULL, '1')", put + "(repeat('x', 1025), '1')", put + "('k', NULL)", put + "('k', '1', '0')", put + "('k', '1', '-1 s')", put + "('k', '1', NULL, NULL)",
		del + "('')", del + "(NULL)", del + "(repeat('x', 1025))",
	} {
		if err := call("SELECT " + bad); err == nil || !strings.Contains(err.Error(), "22023") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	// In a transaction: nothing before the commit, nothing after a rollback.
	set(t, c, "k", 1)
	warm(t, c, "k", 1)
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("SELECT " + put + "('k', '2')"); err != nil {
		t.Fatal(err)
	}
	want(t, c, "k", 1)
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	want(t, c, "k", 1)
	if d := cmp.Diff(1, cl.count("SELECT count(*) FROM "+cl.table()+" WHERE value = '1'")); d != "" {
		t.Error(d)
	}
}

// A caller's temporary tables do not stand in for the cache's where a function runs with its owner's rights.
func TestFunctionsAndTemporaryTables(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	// With no Schema in the options names are found by search_path, which begins with the caller's temporary tables.
	prefix := cl.opts.Prefix
	db := testdb.Open(t, "pgx", testdb.WithParam(testdb.DSN(t), "search_path", cl.opts.Schema+"_path"))
	cl.exec("CREATE SCHEMA " + cl.opts.Schema + "_path")
	defer cl.exec("DROP SCHEMA " + cl.opts.Schema + "_path CASCADE")
	bare := cl.new(db, func(o *pgcache.Options) { o.Schema, o.Channel, o.Listener = "", cl.opts.Schema+"_path", nil })
	if err := bare.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, q := range []string{
		`CREATE TEMPORARY TABLE "` + prefix + `cache_entries" (key text CONSTRAINT "` + prefix + `cache_entries_pkey" PRIMARY KEY, value bytea, version bigint, stamp bigint, expires_at timestamptz, codec text, written_at timestamptz)`,
		`SELECT "` + prefix + `cache_set"('k', '1')`,
		`DROP TABLE pg_temp."` + prefix + `cache_entries"`,
	} {
		if _, err := conn.ExecContext(t.Context(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	want(t, bare, "k", 1)
}

// TestP6_LongTransaction: the tombstone of a transaction that stays open for longer than the tombstone lives is kept until no
// load can have begun before the commit.
func TestP6_LongTransaction(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.on(cl.db, func(o *pgcache.Options) { o.CleanupInterval = 20 * time.Millisecond })
	tx, err := cl.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // it is committed below
	if _, err := tx.Exec("SELECT " + cl.object("cache_delete") + "('k')"); err != nil {
		t.Fatal(err)
	}
	// As if it had been open for an hour.
	if _, err := tx.Exec("UPDATE " + cl.table() + " SET version = version + 1, stamp = version + 1, expires_at = clock_timestamp() - interval '1 hour'"); err != nil {
		t.Fatal(err)
	}
	loads, committed := make(chan struct{}), make(chan struct{})
	loaded := async(t, func() error {
		return c.GetOrSet(t.Context(), "k", new(string), func(context.Context) (any, error) {
			close(loads)
			<-committed
			return "from before the commit", nil
		})
	})
	<-loads
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	sweeps := func(n int) {
		t.Helper()
		for range n {
			cl.exec("UPDATE " + cl.object("cache_state") + " SET swept_at = '-infinity'")
			eventually(t, "the janitor has been there", func() bool {
				return cl.count("SELECT count(*) FROM "+cl.object("cache_state")+" WHERE swept_at > '-infinity'") == 1
			})
		}
	}
	sweeps(3) // the third begins after the first has ended
	close(committed)
	if err := loaded(); err != nil {
		t.Fatal(err)
	}
	if n := cl.count("SELECT count(*) FROM " + cl.table() + " WHERE value IS NOT NULL"); n != 0 {
		t.Error("what was loaded before the commit is stored")
	}
	cl.expire("true") // which also ends what was open
	eventually(t, "the tombstone is removed", func() bool { return cl.count("SELECT count(*) FROM "+cl.table()) == 0 })
}

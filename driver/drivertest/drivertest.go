// Package drivertest is what the library must do over every database/sql driver, in every configuration of it that people
// use: the same cases, run against a real server.
package drivertest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// A Factory makes what one configuration of a driver brings. The DSN that it is given names the sessions by their
// application_name, and all that it opens must bear that name.
type Factory struct {
	Name string
	// Open returns a pool, which is closed when the test ends.
	Open func(tb testing.TB, dsn string) *sql.DB
	// Listener returns the driver's Listener beside db, which Open returned for dsn.
	Listener func(tb testing.TB, db *sql.DB, dsn string) pgcache.Listener
	// Options, if not nil, changes those of every node.
	Options func(*pgcache.Options)
	// Migrated, if not nil, migrates the cache of each case, for nodes whose role may not. Cases about missing tables are left
	// out.
	Migrated func(tb testing.TB, look *sql.DB, schema, prefix string)
	// Pooled says that a pooler is between: the server's sessions are the pooler's. Cases that are about them, or need a
	// cancel request to arrive, are left out.
	Pooled bool
}

// Exercise runs all cases, in parallel, on the server that dsn names. Each has a schema and a channel of its own.
func Exercise(t *testing.T, dsn string, f Factory) {
	t.Run(f.Name, func(t *testing.T) {
		t.Parallel()
		type testCase struct {
			name string
			run  func(*testing.T, *bundle)
		}
		cases := []testCase{
			{"keys", keys},
			{"keys in bulk", keysInBulk},
			{"keys published", keysPublished},
			{"keys published at once", atOnce(keysPublished)},
			{"colons", colons},
			{"bad keys", badKeys},
			{"values", values},
			{"codecs", codecs},
			{"nil values", nilValues},
			{"short TTL", shortTTL},
			{"long TTLs", longTTLs},
			{"bad TTLs", badTTLs},
			{"tombstones", tombstones},
			{"several statements", severalStatements},
			{"some of many", someOfMany},
			{"fenced loads", fencedLoads},
			{"fenced loads of many", fencedLoadsOfMany},
			{"counters", counters},
			{"conditional writes", conditionalWrites},
			{"keys and entries", keysAndEntries},
			{"nodes", nodes},
			{"nodes, published at once", atOnce(nodes)},
			{"published at commit", publishedAtCommit},
			{"clear", clearAll},
			{"groups", groups},
			{"groups, published at once", atOnce(groups)},
			{"cleanup", cleanup},
			{"contexts", contexts},
			{"mixed use", mixedUse},
			{"mixed use, published at once", atOnce(mixedUse)},
		}
		if !f.Pooled {
			cases = append(cases, []testCase{
				{"one load", oneLoad},
				{"loads that fail", failingLoads},
				{"locks", locks},
				{"no answer", noAnswer},
				{"sessions lost", sessionsLost},
				{"close", closed},
			}...)
		}
		if f.Migrated == nil {
			cases = append(cases, []testCase{
				{"migrate", migrateTwice},
				{"tables dropped", tablesDropped},
			}...)
		}
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				c.run(t, newBundle(t, dsn, f))
			})
		}
	})
}

// bundle is one test's cache: a schema and any number of nodes.
type bundle struct {
	t       *testing.T
	factory Factory
	dsn     string
	name    string  // of the schema, and what the names of all sessions begin with
	look    *sql.DB // beside the nodes
	nodes   int
	window  time.Duration // of all nodes
}

// atOnce runs a case with nodes that publish each change in the statement that makes it.
func atOnce(run func(*testing.T, *bundle)) func(*testing.T, *bundle) {
	return func(t *testing.T, b *bundle) {
		b.window = pgcache.Immediate
		run(t, b)
	}
}

const prefix = "drv_"

func newBundle(t *testing.T, dsn string, f Factory) *bundle {
	b := &bundle{t: t, factory: f, dsn: dsn, name: "x_" + strings.ToLower(rand.Text()[:16])}
	b.look = f.Open(t, b.dsnFor("look"))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := b.drop(ctx); err != nil {
			t.Errorf("drop the schema: %v", err)
		}
	})
	if f.Migrated != nil {
		f.Migrated(t, b.look, b.name, prefix)
	}
	return b
}

// drop removes all tables. It may deadlock with a statement of a node that is in use, or of a caller that has gone.
func (b *bundle) drop(ctx context.Context) (err error) {
	for range 3 {
		if _, err = b.look.ExecContext(ctx, "DROP SCHEMA IF EXISTS "+b.name+" CASCADE"); err == nil {
			return nil
		}
	}
	return err
}

func (b *bundle) dsnFor(node string) string {
	return testdb.WithParam(b.dsn, "application_name", b.name+"_"+node)
}

// table is the table of entries.
func (b *bundle) table() string { return b.name + "." + prefix + "cache_entries" }

func (b *bundle) exec(query string, args ...any) {
	b.t.Helper()
	_, err := b.look.ExecContext(b.t.Context(), query, args...)
	must(b.t, err)
}

func (b *bundle) count(query string, args ...any) (n int) {
	b.t.Helper()
	must(b.t, b.look.QueryRowContext(b.t.Context(), query, args...).Scan(&n))
	return n
}

// sessions counts those whose names begin with name.
func (b *bundle) sessions(name string) int {
	b.t.Helper()
	return b.count("SELECT count(*) FROM pg_stat_activity WHERE starts_with(application_name, $1::text)", name)
}

// patience is how long a test waits for what must come soon.
const patience = time.Minute

// eventually waits for what has no signal of its own.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

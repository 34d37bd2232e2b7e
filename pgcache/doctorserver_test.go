package pgcache_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// shadowed is a pool whose sessions find functions in the cluster's schema before those of the server: a test says what the
// server answers.
func (cl *cluster) shadowed(functions ...string) string {
	cl.t.Helper()
	for _, f := range functions {
		cl.exec("CREATE OR REPLACE FUNCTION " + cl.opts.Schema + "." + f)
	}
	return testdb.WithParam(testdb.DSN(cl.t), "search_path", cl.opts.Schema+",pg_catalog")
}

// findsNot waits until Doctor has no finding of this id any more.
func findsNot(t *testing.T, c *pgcache.Cache, id string) {
	t.Helper()
	eventually(t, "no finding "+id, func() bool {
		found, err := c.Doctor(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			if f.ID == id {
				return false
			}
		}
		return true
	})
}

// What the server says of itself becomes a finding that says what to do, and is none when it has passed.
func TestDoctor_Server(t *testing.T) {
	t.Parallel()
	const setting = "current_setting(name text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT CASE name WHEN 'server_version_num' THEN VERSION ELSE pg_catalog.current_setting(name) END $$"
	for id, test := range map[string]struct {
		bad, good string
		severity  pgcache.Severity
		what, do  string
	}{
		"queue": {
			"pg_notification_queue_usage() RETURNS float8 LANGUAGE sql AS 'SELECT 0.42::float8'",
			"pg_notification_queue_usage() RETURNS float8 LANGUAGE sql AS 'SELECT 0.05::float8'",
			pgcache.Fault, "42% full", "session that listens",
		},
		"clock": {
			"clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT pg_catalog.clock_timestamp() - interval '1 hour' $$",
			"clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT pg_catalog.clock_timestamp() $$",
			pgcache.Note, "clock is -", "NTP",
		},
		"version": {
			strings.Replace(setting, "VERSION", "'130022'", 1), strings.Replace(setting, "VERSION", "'180001'", 1),
			pgcache.Warning, "PostgreSQL 13", "14 to 18",
		},
	} {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			cl.on(testdb.DB(t), nil)
			dsn := cl.shadowed(test.bad)
			c := cl.new(testdb.Open(t, "pgx", dsn), func(o *pgcache.Options) { o.CleanupInterval, o.Timeout = -1, time.Minute })
			if f := finds(t, c, id, test.what); f.Severity != test.severity || !strings.Contains(f.Remedy, test.do) {
				t.Errorf("%+v", f)
			}
			cl.shadowed(test.good)
			findsNot(t, c, id)
		})
	}
}

package pgcache_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// oddSettings change how SQL and values are read and written, which a role or a database may have set for all its sessions.
var oddSettings = []string{
	"standard_conforming_strings=off", "escape_string_warning=off", "backslash_quote=off", "array_nulls=off", "transform_null_equals=on",
	"bytea_output=escape", "DateStyle=SQL,DMY", "IntervalStyle=sql_standard", "TimeZone=Asia/Kathmandu", "extra_float_digits=-15",
	"quote_all_identifiers=on", "session_replication_role=replica", "search_path=pg_temp",
}

// TestSessionSettings: what a node with odd settings writes another reads, and what one removes is gone on the other.
func TestSessionSettings(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl, ctx := newCluster(t), t.Context()
		dsn := testdb.WithParam(testdb.DSN(t), "options", "-c "+strings.Join(oddSettings, " -c "))
		node := func(dsn string) (*sql.DB, *pgcache.Cache) {
			db := testdb.Open(t, driver, dsn)
			return db, cl.on(db, func(o *pgcache.Options) { o.Listener = listenerOf(driver, db, dsn) })
		}
		_, plain := node(testdb.DSN(t))
		db, odd := node(dsn)
		for name, err := range everything(ctx, odd) {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, pair := range [][2]*pgcache.Cache{{plain, odd}, {odd, plain}} {
			a, b := pair[0], pair[1]
			from, to := pgcache.For[string](a), pgcache.For[string](b)
			for _, s := range []string{`a\b`, `'`, `"`, "NULL", `{,}`, "\x01\x7f", "é\u0301€😀", " ", `\x41`, "$1", `\\'`} {
				set(t, a, s, s, pgcache.Tags("tag "+s, s))
				if err := from.SetMany(ctx, map[string]string{s + "1": s, s + "2": s}, pgcache.Tags(s)); err != nil {
					t.Fatal(err)
				}
				if _, err := from.GetOrSet(ctx, s+"3", func(context.Context) (string, error) { return s, nil }, pgcache.StaleFor(time.Minute)); err != nil {
					t.Fatal(err)
				}
				for _, key := range []string{"", "1", "2", "3"} {
					want(t, b, s+key, s)
				}
				deleteTags(t, b, s)
				del(t, b, s+"3")
				for _, c := range pair {
					eventually(t, s+" is gone", func() bool {
						got, err := pgcache.For[string](c).GetMany(ctx, []string{s, s + "1", s + "2", s + "3"})
						return err == nil && len(got) == 0
					})
				}
				if e, found, err := to.GetEntry(ctx, s); found || err != nil {
					t.Errorf("%q: %+v %v", s, e, err)
				}
			}
		}
		tx := begin(t, db, sql.LevelDefault)
		if err := odd.WithTx(tx).Set(ctx, "tx", "1", pgcache.Tags("t")); err != nil {
			t.Fatal(err)
		}
		commit(t, tx)
		want(t, plain, "tx", "1")
		if _, err := odd.Doctor(ctx); err != nil {
			t.Error(err)
		}
	})
}

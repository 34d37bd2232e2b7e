package pgcache_test

import (
	"context"
	"database/sql"
	"fmt"
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

// plannerSettings are groups of settings under which statements have other plans. Without jit = off a plan that is said to cost so much
// would be compiled each time.
var plannerSettings = map[string][]string{
	"no index":      {"jit=off", "enable_indexscan=off", "enable_indexonlyscan=off", "enable_bitmapscan=off", "enable_tidscan=off"},
	"bitmaps":       {"jit=off", "enable_indexscan=off", "enable_seqscan=off"},
	"merge joins":   {"jit=off", "enable_hashjoin=off", "enable_nestloop=off"},
	"hash joins":    {"jit=off", "enable_mergejoin=off", "enable_nestloop=off"},
	"no sort":       {"jit=off", "enable_sort=off", "enable_hashagg=off", "enable_material=off"},
	"custom plans":  {"plan_cache_mode=force_custom_plan", "work_mem=64kB"},
	"generic plans": {"plan_cache_mode=force_generic_plan", "from_collapse_limit=1", "join_collapse_limit=1"},
	"strict":        {"default_transaction_isolation=serializable", "default_transaction_deferrable=on", "synchronous_commit=off"},
}

// TestPlannerSettings: whatever plans the server makes, the answers are the same.
func TestPlannerSettings(t *testing.T) {
	t.Parallel()
	for name, settings := range plannerSettings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			withSettings(t, "pgx", settings)
		})
	}
}

// TestSessionSettings: what a node with odd settings writes another reads, and what one removes is gone on the other.
func TestSessionSettings(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) { withSettings(t, driver, oddSettings) })
}

// withSettings has a node with these settings and one without work on the same entries.
func withSettings(t *testing.T, driver string, settings []string) {
	t.Helper()
	cl, ctx := newCluster(t), t.Context()
	dsn := testdb.WithParam(testdb.DSN(t), "options", "-c "+strings.Join(settings, " -c "))
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
	for _, n := range []int{3, 20} { // with a lock for each key, and with one for all
		loadsMany(t, cl, odd, plain, n)
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
}

// loadsMany has a load n keys, where groups of them have been removed before, and looks that all are stored and b has them.
func loadsMany(t *testing.T, cl *cluster, a, b *pgcache.Cache, n int) {
	t.Helper()
	deleteTags(t, a, "many")
	var keys []string
	for i := range n {
		keys = append(keys, fmt.Sprintf("m%02d", i))
	}
	loads := 0
	load := func(_ context.Context, missing []string) (map[string]string, error) {
		m := map[string]string{}
		for _, key := range missing {
			m[key] = "loaded"
		}
		loads += len(missing)
		return m, nil
	}
	for _, c := range []*pgcache.Cache{a, b} {
		view := pgcache.For[string](c, pgcache.Namespace(fmt.Sprint("many", n)))
		got, err := view.GetOrSetMany(t.Context(), keys, load, pgcache.Tags("many"))
		if err != nil || len(got) != n || got["m00"] != "loaded" {
			t.Errorf("%d: %v %v", n, got, err)
		}
		if stored := cl.count("SELECT count(*) FROM "+cl.table()+" WHERE value IS NOT NULL AND starts_with(key, $1)", fmt.Sprintf("many%d:", n)); stored != n {
			t.Errorf("%d of %d are stored", stored, n)
		}
	}
	if loads != n {
		t.Errorf("%d keys are loaded, want %d", loads, n)
	}
}

package pgcache_test

import (
	"database/sql"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/pgcache"
)

func TestZZCost(t *testing.T) {
	if os.Getenv("ZZ") == "" {
		t.Skip()
	}
	cl := newCluster(t)
	c := cl.node(nil)
	plan := func(what, q string) {
		t.Helper()
		var out []string
		for range 3 {
			rows, err := cl.db.Query("EXPLAIN (ANALYZE, BUFFERS) " + q)
			if err != nil {
				t.Fatal(err)
			}
			out = nil
			for rows.Next() {
				var s string
				rows.Scan(&s)
				if strings.Contains(s, "Buffers") && len(out) == 0 || strings.Contains(s, "Execution") || os.Getenv("ZZ") == "2" {
					out = append(out, strings.TrimSpace(s))
				}
			}
			rows.Close()
		}
		t.Log(what, out)
	}
	report := func(what string) {
		t.Helper()
		b := time.Now()
		set(t, c, "tagged", 1, pgcache.Tags("g"))
		set(t, c, "tagged2", 1, pgcache.Tags("h"))
		set(t, c, "plain", 1)
		t.Log(what, time.Since(b), cl.count("SELECT pg_relation_size('"+cl.object("cache_groups")+"')")/1024, "kB heap", cl.count("SELECT pg_indexes_size('"+cl.object("cache_groups")+"')")/1024, "kB index", cl.count("SELECT count(*) FROM "+cl.object("cache_groups")), "records")
		plan("  exists", "SELECT EXISTS (SELECT FROM "+cl.object("cache_groups")+")")
		plan("  seen g", "SELECT "+cl.object("cache_seen")+"('tagged', '{g}')")
		plan("  seen h", "SELECT "+cl.object("cache_seen")+"('tagged', '{h}')")
		plan("  seen plain", "SELECT "+cl.object("cache_seen")+"('tagged', NULL)")
	}
	hot := func(n int) {
		b := time.Now()
		if _, err := cl.db.Exec("SELECT 1; DO $$ BEGIN FOR i IN 1..1 LOOP NULL; END LOOP; END $$"); err != nil {
			t.Fatal(err)
		}
		if _, err := cl.db.Exec("DO $$ BEGIN FOR i IN 1.." + itoa(n) + " LOOP PERFORM " + cl.object("cache_remove") + "('t', '{g}'); COMMIT; END LOOP; END $$"); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d removals of one tag: %v", n, time.Since(b))
	}
	report("none")
	hot(3000)
	report("3k hot, no snapshot held")
	tx := begin(t, cl.db, sql.LevelRepeatableRead)
	if _, err := tx.Exec("SELECT 1 FROM " + cl.table()); err != nil {
		t.Fatal(err)
	}
	hot(3000)
	report("20k hot under held snapshot")
	b := time.Now()
	for range 100 {
		cl.exec("SELECT " + cl.object("cache_remove") + "('t', array(SELECT 'org:' || gen_random_uuid() FROM generate_series(1, 1000)))")
	}
	t.Logf("100k tags %v", time.Since(b))
	report("100k distinct tags")
	cl.exec("DELETE FROM " + cl.object("cache_groups"))
	report("all retired, snapshot held")
	tx.Rollback()
	report("all retired, snapshot let go")
	cl.exec("VACUUM " + cl.object("cache_groups"))
	report("vacuumed")
}

func itoa(n int) string { return strings.TrimSpace(strings.Repeat(" ", 0) + fmtInt(n)) }
func fmtInt(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return fmtInt(n/10) + string(rune('0'+n%10))
}

package store_test

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"github.com/pgcache/go/internal/store"
)

// TestNoRecordNoWork: while no group has been removed, a read calls none of the functions of groups.
func TestNoRecordNoWork(t *testing.T) {
	forDrivers(t, func(t *testing.T, s *table) {
		s.put(row("k", "v", 1))
		calls := func() (n int) {
			tx, err := s.db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback() //nolint:errcheck // nothing is written
			if _, err := tx.Exec("SET LOCAL track_functions = 'all'"); err != nil {
				t.Fatal(err)
			}
			if _, err := s.GetTx(t.Context(), tx, "k"); err != nil {
				t.Fatal(err)
			}
			if err := tx.QueryRow("SELECT coalesce(sum(calls), 0) FROM pg_stat_xact_user_functions WHERE funcname LIKE '%cache_%' AND schemaname = $1", s.Names.Schema).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		if n := calls(); n != 0 {
			t.Errorf("%d calls", n)
		}
		if _, err := s.Remove(t.Context(), store.Tag, []string{"g"}); err != nil {
			t.Fatal(err)
		}
		if calls() == 0 {
			t.Error("calls are not counted")
		}
	})
}

// TestRemovePrefixes: prefixes are found among many others, and a name is no pattern.
func TestRemovePrefixes(t *testing.T) {
	forDrivers(t, func(t *testing.T, s *table) {
		keys := []string{"a", "ab", "abc", "abd", "a%", "a_b", `a\b`, "é1", "é2", "b"}
		var names []string
		for i := range 300 {
			names = append(names, fmt.Sprintf("ab%03dx", i), fmt.Sprintf("z%d", i))
		}
		remove := func(kind store.GroupKind, names ...string) {
			t.Helper()
			if r, err := s.Remove(t.Context(), kind, names); err != nil || len(r.IDs) != len(names) || r.Server == 0 {
				t.Fatal(r, err)
			}
		}
		remove(store.Prefix, names...)
		for prefix, gone := range map[string]string{
			"ab": "ab abc abd", "a%": "a%", "a_": "a_b", `a\`: `a\b`, "é": "é1 é2", "abc": "abc", "abcd": "", "b": "b", "a": `a ab abc abd a% a_b a\b`, "é2": "é2",
		} {
			for i, k := range keys {
				s.put(row(k, "v", int64(i+1)))
			}
			remove(store.Prefix, prefix)
			var dead []string
			for _, k := range keys {
				if !s.get(k).Live() {
					dead = append(dead, k)
				}
			}
			if got := strings.Join(dead, " "); got != gone {
				t.Errorf("%q removed %q, not %q", prefix, got, gone)
			}
		}
		// Tags, and what the row says of them.
		tagged := row("t", "v", 99)
		tagged.Tags = []string{`o"r\g`, "é{},", "x"}
		s.put(tagged)
		if r := s.get("t"); strings.Join(r.Tags, "|") != strings.Join(tagged.Tags, "|") {
			t.Errorf("%q", r.Tags)
		}
		remove(store.Tag, "é")
		if !s.get("t").Live() {
			t.Error("a tag that it has not")
		}
		remove(store.Tag, "none", "é{},")
		if r := s.get("t"); r.Live() || r.Version != 99 {
			t.Errorf("%+v", r)
		}
	})
}

// TestRecordsAreNotScanned: whether there is any record is not found out by reading records. Deleted ones that VACUUM can't remove yet
// would be read by every statement.
func TestRecordsAreNotScanned(t *testing.T) {
	forDrivers(t, func(t *testing.T, s *table) {
		s.put(row("k", "v", 1))
		for i := range 5 {
			names := make([]string, 1000)
			for j := range names {
				names[j] = fmt.Sprint("tag:", i, j)
			}
			if _, err := s.Remove(t.Context(), store.Tag, names); err != nil {
				t.Fatal(err)
			}
		}
		groups := strings.Replace(s.Names.Table(), "cache_entries", "cache_groups", 1)
		s.exec("ANALYZE " + groups)
		tx, err := s.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()                   //nolint:errcheck // nothing is to stay
		count := func() (scans, probes int) { // with what this session did before, and has not reported yet
			t.Helper()
			if err := tx.QueryRow("SELECT seq_scan, idx_scan FROM pg_stat_xact_user_tables WHERE relid = $1::regclass", groups).Scan(&scans, &probes); err != nil {
				t.Fatal(err)
			}
			return scans, probes
		}
		scans, probes := count()
		tagged := row("l", "v", 1)
		tagged.Tags = []string{"tag:1"}
		_, err = s.GetTx(t.Context(), tx, "k")
		if _, errPut := s.PutTx(t.Context(), tx, []store.Write{tagged}, true); err != nil || errPut != nil {
			t.Fatal(err, errPut)
		}
		if scansAfter, probesAfter := count(); scansAfter != scans || probesAfter == probes {
			t.Errorf("%d scans of the table, %d of its index", scansAfter-scans, probesAfter-probes)
		}
	})
}

// Beyond 64 MiB of records the removal of a group that has one is as ever; of another it removes everything.
func TestManyRecords(t *testing.T) {
	t.Parallel()
	w := watch(t)
	for _, query := range []string{
		"ALTER TABLE %s ALTER name SET STORAGE PLAIN", // it is not compressed
		"INSERT INTO %s (kind, name) SELECT 't', i || repeat('x', 2000) FROM generate_series(1, 35000) i",
	} {
		if _, err := w.db.ExecContext(t.Context(), fmt.Sprintf(query, w.Names.Groups())); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(tag string) {
		t.Helper()
		if _, err := w.Remove(t.Context(), store.Tag, []string{tag}); err != nil {
			t.Fatal(err)
		}
	}
	live := func() bool {
		t.Helper()
		r, err := w.Get(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		return r.Live()
	}
	known := "1" + strings.Repeat("x", 2000)
	if _, err := w.Put(t.Context(), []store.Write{row("k", "v", 1)}, false); err != nil {
		t.Fatal(err)
	}
	remove(known)
	if !live() {
		t.Error("the removal of a group that has a record has removed another entry")
	}
	remove("new")
	if live() {
		t.Error("the table grows further")
	}
}

// TestHotPrefix: how often a prefix was removed does not matter to entries that it is not about, although an old snapshot keeps VACUUM
// from its records.
func TestHotPrefix(t *testing.T) {
	t.Parallel()
	w := watch(t)
	old, err := w.db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Rollback() //nolint:errcheck // it only holds
	if _, err := old.Exec("SELECT 1"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.db.ExecContext(t.Context(), fmt.Sprintf(`DO $$ BEGIN
		FOR i IN 1..500 LOOP PERFORM %s.s_cache_remove('p', '{hot:}', false); COMMIT; END LOOP;
	END $$`, w.Names.Schema)); err != nil {
		t.Fatal(err)
	}
	tx, err := w.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing is to stay
	read := func() (n int) {
		t.Helper()
		if err := tx.QueryRow("SELECT pg_stat_get_xact_tuples_returned($1::text::regclass)", w.Names.Schema+".s_cache_groups_pkey").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := read()
	if _, err := w.PutTx(t.Context(), tx, []store.Write{row("other", "v", 1)}, false); err != nil {
		t.Fatal(err)
	}
	if r, err := w.GetTx(t.Context(), tx, "other"); err != nil || !r.Live() {
		t.Fatal(r, err)
	}
	if n := read() - before; n == 0 || n > 30 {
		t.Errorf("%d entries of the index were read", n)
	}
}

// TestRecordsThatHaveGone: where an old snapshot keeps VACUUM from them, the statistics say that the table has few rows and many pages.
// Entries of other tags, or of none, do not read all of it, nor does the removal of another tag.
func TestRecordsThatHaveGone(t *testing.T) {
	t.Parallel()
	w := watch(t)
	old, err := w.db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Rollback() //nolint:errcheck // it only holds
	if _, err := old.Exec("SELECT count(*) FROM " + w.Names.Groups()); err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{
		"INSERT INTO %s (kind, name) SELECT 't', 'hot' FROM generate_series(1, 20000)", "DELETE FROM %s",
		"INSERT INTO %s (kind, name) VALUES ('t', 'hot'), ('t', 'other')", "VACUUM (ANALYZE) %s",
	} {
		if _, err := w.db.ExecContext(t.Context(), fmt.Sprintf(query, w.Names.Groups())); err != nil {
			t.Fatal(err)
		}
	}
	tx, err := w.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()                    //nolint:errcheck // nothing is to stay
	count := func() (scans, entries int) { // of the table; of the index
		t.Helper()
		if err := tx.QueryRow("SELECT pg_stat_get_xact_numscans($1::text::regclass), pg_stat_get_xact_tuples_returned($2::text::regclass)",
			w.Names.Groups(), w.Names.Schema+".s_cache_groups_pkey").Scan(&scans, &entries); err != nil {
			t.Fatal(err)
		}
		return scans, entries
	}
	scans, entries := count()
	tagged := row("tagged", "v", 1)
	tagged.Tags = []string{"other", "none"}
	const times = 10 // more than those for which the server makes a plan each
	for range times {
		if _, err := w.PutTx(t.Context(), tx, []store.Write{row("plain", "v", 1), tagged}, false); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"plain", "tagged"} {
			if r, err := w.GetTx(t.Context(), tx, key); err != nil || !r.Live() {
				t.Fatal(r, err)
			}
		}
		if _, err := tx.Exec("SELECT " + w.Names.Schema + ".s_cache_remove('t', '{another}', false)"); err != nil {
			t.Fatal(err)
		}
	}
	if scansAfter, entriesAfter := count(); scansAfter != scans || entriesAfter == entries || entriesAfter-entries > 100*times {
		t.Errorf("%d scans of the table, %d entries of its index", scansAfter-scans, entriesAfter-entries)
	}
}

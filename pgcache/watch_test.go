package pgcache_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// watched is a cluster with a table of the business.
type watched struct {
	*cluster
	c *pgcache.Cache
}

func newWatched(t *testing.T) *watched {
	t.Helper()
	cl := newCluster(t)
	w := &watched{cl, cl.on(testdb.DB(t), nil)}
	w.exec("CREATE TABLE " + w.name("users") +
		` (id int PRIMARY KEY, org_id int, name text, "Größe, ('x" text, "keys" text, day date, made text GENERATED ALWAYS AS ('m' || (id * 2)::text) STORED, seen timestamptz DEFAULT now())`)
	return w
}

func (w *watched) name(table string) string { return w.opts.Schema + "." + table }

func (w *watched) watch(tw pgcache.TableWatch) {
	w.t.Helper()
	if tw.Table == "" {
		tw.Table = w.name("users")
	}
	if err := w.c.WatchTable(w.t.Context(), tw); err != nil {
		w.t.Fatal(err)
	}
	w.removed()
}

// removed returns what was removed since the last call, and forgets it.
func (w *watched) removed() (names []string) {
	w.t.Helper()
	rows, err := w.db.QueryContext(w.t.Context(), "DELETE FROM "+w.object("cache_groups")+" RETURNING concat(kind, ' ', name)")
	if err != nil {
		w.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			w.t.Fatal(err)
		}
		names = append(names, name)
	}
	if err := rows.Err(); err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(names)
	return slices.Compact(names) // a transaction that changes a row twice has two records
}

// does runs a statement and says what must have been removed by it.
func (w *watched) does(statement string, want ...string) {
	w.t.Helper()
	statement = strings.ReplaceAll(statement, "USERS", w.name("users"))
	w.exec(statement)
	slices.Sort(want)
	if diff := cmp.Diff(want, w.removed()); diff != "" {
		w.t.Errorf("%.200s: %s", statement, diff)
	}
}

// Whatever writes the table removes what its rows name, before and after.
func TestWatch_Names(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	w.watch(pgcache.TableWatch{Keys: []string{"user:{id}", "n'{{{name}}}\\:{org_id}"}, Tags: []string{"org:{org_id}"}})
	w.does("INSERT INTO USERS (id, org_id, name) VALUES (1, 7, 'a')", "k user:1", `k n'{a}\:7`, "t org:7")
	w.does("INSERT INTO USERS (id, org_id, name) VALUES (2, NULL, 'a'), (3, 7, '')", "k user:2", "k user:3", `k n'{}\:7`, "t org:7")
	w.does("UPDATE USERS SET org_id = 8 WHERE id = 1", "k user:1", `k n'{a}\:7`, `k n'{a}\:8`, "t org:7", "t org:8")
	w.does("UPDATE USERS SET id = 4 WHERE id = 2", "k user:2", "k user:4")
	w.does("UPDATE USERS SET id = 4 WHERE false")
	w.does("INSERT INTO USERS (id, name) VALUES (4, 'b') ON CONFLICT (id) DO UPDATE SET name = 'c'", "k user:4")
	w.does("INSERT INTO USERS (id, name) VALUES (4, 'b') ON CONFLICT DO NOTHING")
	w.does("WITH a AS (UPDATE USERS SET name = 'z' WHERE id = 4 RETURNING 1), b AS (DELETE FROM USERS WHERE id = 3) SELECT FROM a", "k user:4", "k user:3", `k n'{}\:7`, "t org:7")
	w.does("DELETE FROM USERS WHERE id < 4", "k user:1", `k n'{a}\:8`, "t org:8")
	w.does("BEGIN; DELETE FROM USERS; ROLLBACK")
	w.does("TRUNCATE USERS", "p ")
	// Business data that is long or strange never fails a statement.
	w.does("INSERT INTO USERS (id, org_id, name) VALUES (5, 1, repeat('x', 5000))", "p n'{", "p user:", "t org:1")
	// A watch of another kind takes its place.
	w.watch(pgcache.TableWatch{Keys: []string{"{Größe, ('x}:"}, Tags: []string{"{made}", "keys-{keys}", "day {day}"}})
	w.does("UPDATE USERS SET keys = 'it''s', day = '2026-11-28'", "t m10", "t keys-it's", "t day 2026-11-28")
	w.does("INSERT INTO USERS (id, keys, day) VALUES (6, repeat('x', 300), 'infinity')", "p ")
	w.does("SET datestyle = 'German'; DELETE FROM USERS WHERE id = 5; RESET datestyle", "t m10", "t keys-it's", "t day 2026-11-28")
}

// What is refused says why.
func TestWatch_Refused(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	w.exec("CREATE VIEW " + w.name("v") + " AS SELECT 1 AS id")
	w.exec("CREATE TABLE " + w.name("parted") + " (id int) PARTITION BY RANGE (id)")
	w.exec("CREATE TABLE " + w.name("part") + " PARTITION OF " + w.name("parted") + " DEFAULT")
	users := w.name("users")
	for want, tw := range map[string]pgcache.TableWatch{
		"there is no table":                {Table: w.name("none"), Keys: []string{"{id}"}},
		"is a view":                        {Table: w.name("v"), Keys: []string{"{id}"}},
		"is the cache's own":               {Table: w.object("cache_entries"), Keys: []string{"{key}"}},
		"leases is the cache's own":        {Table: w.object("cache_leases"), Keys: []string{"{id}"}},
		"watch that one":                   {Table: w.name("part"), Keys: []string{"{id}"}},
		"a temporary or a system table":    {Table: "pg_catalog.pg_class", Keys: []string{"{relname}"}},
		"has no column nope":               {Table: users, Keys: []string{"{nope}"}},
		"has no column ctid":               {Table: users, Keys: []string{"{ctid}"}},
		"names no column":                  {Table: users, Keys: []string{"{{id}}"}},
		"must be doubled":                  {Table: users, Keys: []string{"{id"}},
		"whose text is not fixed":          {Table: users, Keys: []string{"{seen}"}},
		"needs Keys or Tags":               {Table: users},
		"MaxKeys is -1":                    {Table: users, Keys: []string{"{id}"}, MaxKeys: -1},
		"without NUL":                      {Table: users, Keys: []string{"{id}\x00"}},
		"longer than a key can be":         {Table: users, Keys: []string{strings.Repeat("x", 1025) + "{id}"}},
		`there is no table "x; DROP TABLE`: {Table: `"x; DROP TABLE users"`, Keys: []string{"{id}"}},
	} {
		err := w.c.WatchTable(t.Context(), tw)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if n := w.count("SELECT count(*) FROM " + w.object("cache_watches")); n != 0 {
		t.Error(n)
	}
}

// Beyond MaxKeys in one transaction the prefixes go, once; what the transaction writes into the cache after that too.
func TestWatch_Bulk(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	w.watch(pgcache.TableWatch{Keys: []string{"user:{id}", "user:n:{id}", "u{id}"}, Tags: []string{"org:{org_id}"}, MaxKeys: 10})
	w.does("INSERT INTO USERS (id, org_id) SELECT i, i % 2 FROM generate_series(1, 20) i", "p u", "t org:0", "t org:1")
	w.does("UPDATE USERS SET org_id = id WHERE id <= 3", "k u1", "k u2", "k u3", "k user:1", "k user:2", "k user:3", "k user:n:1", "k user:n:2", "k user:n:3",
		"t org:0", "t org:1", "t org:2", "t org:3")
	w.does("UPDATE USERS SET org_id = id", "p ", "p u")
	w.does("BEGIN; "+strings.Repeat("UPDATE USERS SET name = 'x' WHERE id = 1; ", 3)+"UPDATE USERS SET name = 'x' WHERE id = 5; COMMIT",
		"k u1", "k user:1", "k user:n:1", "p u", "t org:1", "t org:5")
	tx, err := w.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // after a Commit it does nothing
	made := func() (n int) {
		t.Helper()
		if err := tx.QueryRow("SELECT pg_stat_get_xact_tuples_inserted($1::text::regclass)", w.object("cache_groups")).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for i, step := range []struct {
		statement string
		records   int
	}{
		{"UPDATE USERS SET name = 'x' WHERE id < 9", 9}, // a prefix and 8 tags
		{"UPDATE USERS SET name = 'y' WHERE id < 9", 1}, // everything
		{"UPDATE USERS SET name = 'y' WHERE id < 9", 0},
		{"DELETE FROM USERS WHERE id = 3", 0},
		{"SELECT " + w.object("cache_set") + "('user:1', '1')", 0},
		{"UPDATE USERS SET name = 'z' WHERE id = 1", 2}, // what was set is removed again
		{"SAVEPOINT a", 0},
		{"SELECT " + w.object("cache_set") + "('user:1', '1')", 0},
		{"UPDATE USERS SET name = 'z' WHERE id = 1", 2},
		{"ROLLBACK TO a", 0},
		{"UPDATE USERS SET name = 'z' WHERE id = 1", 2},
		{"UPDATE USERS SET name = 'z' WHERE id = 1", 0},
	} {
		before := made()
		if _, err := tx.Exec(strings.ReplaceAll(step.statement, "USERS", w.name("users"))); err != nil {
			t.Fatal(err)
		}
		if n := made() - before; n != step.records {
			t.Errorf("%d, %s: %d records, want %d", i, step.statement, n, step.records)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	w.removed()
	w.does("TRUNCATE USERS", "p ")
	w.watch(pgcache.TableWatch{Keys: []string{"user:{id}"}})
	w.does("TRUNCATE USERS", "p user:")
}

// A watch leaves nothing behind, and installing it again changes nothing.
func TestWatch_Again(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	objects := func() int {
		return w.count(`SELECT (SELECT count(*) FROM pg_proc WHERE pronamespace = $1::text::regnamespace)
			+ (SELECT count(*) FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid WHERE c.relnamespace = $1::text::regnamespace)`, w.opts.Schema)
	}
	before := objects()
	tw := pgcache.TableWatch{Table: w.name("users"), Keys: []string{"user:{id}"}}
	w.watch(tw)
	if got := objects(); got != before+6 {
		t.Error(got, before)
	}
	made := func() int64 {
		return int64(w.count("SELECT (extract(epoch FROM max(watched_at)) * 1000000)::bigint FROM " + w.object("cache_watches")))
	}
	first := made()
	done := async(t, func() error { return w.c.WatchTable(t.Context(), tw) })
	if err := done(); err != nil || made() != first || len(w.removed()) != 0 {
		t.Error(err, made(), first)
	}
	// It asks for no lock where nothing is to be done.
	tx, err := w.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("INSERT INTO " + w.name("users") + " (id) VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	if err := w.c.WatchTable(t.Context(), tw); err != nil {
		t.Error(err)
	}
	// Else it waits for the writer, and other writers don't wait behind it for long.
	tw.Keys = []string{"users:{id}"}
	changed := async(t, func() error { return w.c.WatchTable(t.Context(), tw) })
	for i := range 20 {
		began := time.Now()
		w.exec(fmt.Sprintf("INSERT INTO %s (id) VALUES (%d)", w.name("users"), 10+i))
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("a writer waited for %v", d)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := changed(); err != nil {
		t.Fatal(err)
	}
	w.removed()
	w.does("UPDATE USERS SET name = 'x' WHERE id = 1", "k users:1")
	// Disabled by hand, and healed.
	w.exec("ALTER TABLE " + w.name("users") + " DISABLE TRIGGER ALL")
	w.watch(tw)
	w.does("UPDATE USERS SET name = 'y' WHERE id = 1", "k users:1")
	// A table that was renamed keeps its watch, and a new one of its old name has none.
	w.exec("ALTER TABLE " + w.name("users") + " RENAME TO people")
	w.exec("CREATE TABLE " + w.name("users") + " (id int)")
	w.watch(tw)
	w.does("INSERT INTO USERS VALUES (3)", "k users:3")
	w.does("UPDATE "+w.name("people")+" SET name = 'z' WHERE id = 1", "k users:1")
	for range 2 {
		for _, table := range []string{"people", "users"} {
			if err := w.c.UnwatchTable(t.Context(), w.name(table)); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.does("INSERT INTO USERS VALUES (4)")
	// A table that is dropped leaves a function, which goes with the next watch of its name, or with UnwatchTable.
	w.watch(tw)
	w.exec("DROP TABLE " + w.name("users"))
	w.exec("CREATE TABLE " + w.name("users") + " (id int)")
	w.watch(tw)
	w.exec("DROP TABLE " + w.name("users"))
	if err := w.c.UnwatchTable(t.Context(), w.name("users")); err != nil {
		t.Fatal(err)
	}
	if got := objects(); got != before || w.count("SELECT count(*) FROM "+w.object("cache_watches")) != 0 {
		t.Error(got, before)
	}
}

// The business goes on whatever became of the columns and of the cache.
func TestWatch_NeverFails(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	w.watch(pgcache.TableWatch{Keys: []string{"user:{id}:{name}"}})
	w.does("INSERT INTO USERS (id, name) VALUES (1, 'a')", "k user:1:a")
	w.exec("ALTER TABLE " + w.name("users") + " RENAME COLUMN name TO title")
	w.does("UPDATE USERS SET title = 'b'", "p ")
	w.exec("ALTER TABLE " + w.name("users") + " DROP COLUMN title")
	w.does("INSERT INTO USERS (id) VALUES (2)", "p ")
	w.does("SET session_replication_role = replica; INSERT INTO USERS (id) VALUES (3); RESET session_replication_role", "p ")
	w.exec("CREATE TABLE " + w.name("kept") + " AS SELECT * FROM " + w.object("cache_state"))
	w.exec("TRUNCATE " + w.object("cache_state"))
	w.does("INSERT INTO USERS (id) VALUES (4)", "p ")
	w.exec("INSERT INTO " + w.object("cache_state") + " SELECT * FROM " + w.name("kept"))
	w.exec("ALTER TABLE " + w.name("users") + " ADD COLUMN name text")
	w.does("INSERT INTO USERS (id, name) VALUES (5, 'x')", "k user:5:x")
	w.exec("DROP TABLE " + w.object("cache_entries") + ", " + w.object("cache_groups"))
	w.exec("INSERT INTO " + w.name("users") + " (id, name) VALUES (6, 'x')")
	w.exec("TRUNCATE " + w.name("users"))
	w.exec("DROP TABLE " + w.object("cache_state"))
	w.exec("INSERT INTO " + w.name("users") + " (id, name) VALUES (6, 'x')")
	w.exec("ALTER TABLE " + w.name("users") + " DROP COLUMN name")
	w.exec("INSERT INTO " + w.name("users") + " (id) VALUES (7)")
}

// Writers of a watched table never wait for each other because of it, under no isolation level.
func TestWatch_NobodyWaits(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	w.watch(pgcache.TableWatch{Keys: []string{"all{{}}:{org_id}"}, Tags: []string{"org:{org_id}"}})
	w.exec("INSERT INTO " + w.name("users") + " (id, org_id) SELECT i, 7 FROM generate_series(1, 100) i")
	for _, level := range []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		var txs []*sql.Tx
		for range 4 {
			tx, err := w.db.BeginTx(ctx, &sql.TxOptions{Isolation: level})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.ExecContext(ctx, "SELECT count(*) FROM "+w.object("cache_state")); err != nil { // its snapshot is taken
				t.Fatal(err)
			}
			txs = append(txs, tx)
		}
		w.exec("UPDATE "+w.name("users")+" SET name = 'x' WHERE id = $1", 50)
		for round := range 3 {
			for i, tx := range txs {
				if _, err := tx.ExecContext(ctx, fmt.Sprintf("UPDATE %s SET name = 'x' WHERE id = %d", w.name("users"), 10*i+round)); err != nil {
					t.Errorf("%v: %v", level, err)
				}
			}
		}
		for _, tx := range txs {
			if err := tx.Commit(); err != nil {
				t.Errorf("%v: %v", level, err)
			}
		}
		cancel()
	}
}

// Partitions, inheritance, and what a replication writes.
func TestWatch_Trees(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	p := w.name("parted")
	w.exec("CREATE TABLE " + p + " (id int, org_id int) PARTITION BY LIST (org_id)")
	w.exec("CREATE TABLE " + p + "1 (org_id int, x text, id int)")
	w.exec("ALTER TABLE " + p + "1 DROP COLUMN x")
	w.exec("ALTER TABLE " + p + " ATTACH PARTITION " + p + "1 FOR VALUES IN (1)")
	w.exec("CREATE TABLE " + p + "2 PARTITION OF " + p + " FOR VALUES IN (2, 3) PARTITION BY LIST (org_id)")
	w.exec("CREATE TABLE " + p + "22 PARTITION OF " + p + "2 DEFAULT")
	tw := pgcache.TableWatch{Table: p, Keys: []string{"p:{id}:{org_id}"}}
	w.watch(tw)
	replica := func(s string) string {
		return "SET session_replication_role = replica; " + s + "; RESET session_replication_role"
	}
	for _, by := range []func(string) string{func(s string) string { return s }, replica} {
		w.does(by("INSERT INTO "+p+" VALUES (1, 1), (2, 2)"), "k p:1:1", "k p:2:2")
		w.does(by("INSERT INTO "+p+"1 (id, org_id) VALUES (3, 1)"), "k p:3:1")
		w.does(by("UPDATE "+p+" SET org_id = 3 WHERE id = 1"), "k p:1:1", "k p:1:3")
		w.does(by("UPDATE "+p+"22 SET id = 9 WHERE id = 1"), "k p:1:3", "k p:9:3")
		w.does(by("UPDATE "+p+"2 SET id = 8 WHERE id = 9"), "k p:9:3", "k p:8:3")
		w.does(by("DELETE FROM "+p), "k p:2:2", "k p:3:1", "k p:8:3")
		w.does(by("INSERT INTO "+p+" VALUES (1, 1)"), "k p:1:1")
		names := by("TRUNCATE " + p + "1")
		w.does(names, "p p:")
	}
	// A partition that came later has its triggers with the next call; one that has left may be watched by itself.
	w.exec("CREATE TABLE " + p + "4 PARTITION OF " + p + " FOR VALUES IN (4)")
	w.does("INSERT INTO " + p + "4 VALUES (1, 4)")
	w.watch(tw)
	w.does("INSERT INTO "+p+"4 VALUES (2, 4)", "k p:2:4")
	w.exec("ALTER TABLE " + p + " DETACH PARTITION " + p + "4")
	w.does("INSERT INTO "+p+"4 VALUES (3, 4)", "k p:3:4")
	w.watch(pgcache.TableWatch{Table: p + "4", Keys: []string{"own:{id}"}})
	w.does("INSERT INTO "+p+"4 VALUES (4, 4)", "k own:4")
	w.does("INSERT INTO "+p+" VALUES (4, 1)", "k p:4:1")

	h := w.name("parent")
	w.exec("CREATE TABLE " + h + " (id int)")
	w.exec("CREATE TABLE " + h + "_child (x int) INHERITS (" + h + ")")
	w.watch(pgcache.TableWatch{Table: h, Keys: []string{"h:{id}"}})
	for _, by := range []func(string) string{func(s string) string { return s }, replica} {
		w.does(by("INSERT INTO "+h+"_child VALUES (1)"), "k h:1")
		w.does(by("INSERT INTO "+h+" VALUES (2)"), "k h:2")
		w.does(by("UPDATE "+h+" SET id = id + 2"), "k h:1", "k h:2", "k h:3", "k h:4")
		w.does(by("DELETE FROM "+h), "k h:3", "k h:4")
	}
	for _, table := range []string{p, p + "4", h} {
		if err := w.c.UnwatchTable(t.Context(), table); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.count(`SELECT count(*) FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid WHERE c.relnamespace = $1::text::regnamespace AND tgname LIKE '%watch%'`, w.opts.Schema); n != 0 {
		t.Error(n, "triggers")
	}
}

// The printed statement does the same.
func TestWatchSQL(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	text, err := pgcache.WatchSQL(w.opts, pgcache.TableWatch{Table: w.name("users"), Keys: []string{`a\"'{{,{id}`}, Tags: []string{"b{org_id}"}})
	if err != nil {
		t.Fatal(err)
	}
	w.exec(text)
	w.removed()
	w.does("INSERT INTO USERS (id, org_id) VALUES (1, 2)", `k a\"'{,1`, "t b2")
	if _, err := pgcache.WatchSQL(w.opts, pgcache.TableWatch{Table: "x"}); err == nil {
		t.Error("a watch of nothing")
	}
}

// A role that may only write the table does so.
func TestWatch_BusinessRole(t *testing.T) {
	t.Parallel()
	w := newRights(t, "own", "P1_")
	owner := w.migrated()
	w.exec("CREATE TABLE public.users (id int)")
	w.exec("CREATE ROLE clerk" + w.suffix + " LOGIN")
	defer w.exec("DROP ROLE clerk" + w.suffix)
	w.exec("GRANT INSERT ON public.users TO clerk" + w.suffix)
	defer w.exec("DROP TABLE public.users")
	if err := owner.WatchTable(t.Context(), pgcache.TableWatch{Table: "public.users", Keys: []string{"user:{id}"}}); err == nil || !strings.Contains(err.Error(), "must be its owner") {
		t.Error(err)
	}
	w.exec("ALTER TABLE public.users OWNER TO migrator" + w.suffix)
	if err := owner.WatchTable(t.Context(), pgcache.TableWatch{Table: "public.users", Keys: []string{"user:{id}"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.as("pgx", "clerk").ExecContext(t.Context(), "INSERT INTO public.users VALUES (1)"); err != nil {
		t.Error(err)
	}
	if n := w.count("SELECT count(*) FROM " + w.object("cache_groups") + " WHERE name = 'user:1'"); n != 1 {
		t.Error(n)
	}
	app := w.on(w.as("pgx", "app"), func(o *pgcache.Options) { o.CleanupInterval = -1 })
	if err := app.WatchTable(t.Context(), pgcache.TableWatch{Table: "public.users", Keys: []string{"user:{id}"}}); err == nil || !strings.Contains(err.Error(), "docs/watch.md") {
		t.Error(err)
	}
	// An administrator's watch runs with the rights of the cache's owner, not with his.
	w.exec("CREATE TABLE public.other (id int)")
	if err := w.on(w.db, nil).WatchTable(t.Context(), pgcache.TableWatch{Table: "public.other", Keys: []string{"other:{id}"}}); err != nil {
		t.Fatal(err)
	}
	if n := w.count("SELECT count(*) FROM pg_proc WHERE proname ~ 'cache_watch_[0-9a-f]{8}$' AND pg_get_userbyid(proowner) = $1", "migrator"+w.suffix); n != 2 {
		t.Error(n)
	}
	w.exec("INSERT INTO public.other VALUES (1)")
}

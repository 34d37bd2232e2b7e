package pgcache_test

import (
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// No transaction that writes a watched table notifies, whatever it does: it could not be prepared, and would keep all others that
// notify waiting. So it can be prepared, and what it named goes with COMMIT PREPARED.
func TestWatch_Prepared(t *testing.T) {
	t.Parallel()
	s, err := pgserver.StartWith(t.Context(), pgserver.Config{Settings: map[string]string{"max_prepared_transactions": "5"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	db := testdb.Open(t, "pgx", s.DSN)
	c, err := pgcache.New(db, pgcache.Options{CleanupInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec := func(query string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	exec("CREATE TABLE users (id int, org_id int)")
	if err := c.WatchTable(t.Context(), pgcache.TableWatch{Table: "users", Keys: []string{"user:{id}"}, Tags: []string{"org:{org_id}"}, MaxKeys: 3}); err != nil {
		t.Fatal(err)
	}
	for i, change := range []string{
		"INSERT INTO users VALUES (1, 7)",
		"INSERT INTO users SELECT i, i FROM generate_series(1, 9) i", // prefixes, and everything
		"TRUNCATE users",
		"INSERT INTO users VALUES (1, 7); SAVEPOINT a; UPDATE users SET org_id = 8; ROLLBACK TO a",
	} {
		set(t, c, "user:1", i)
		exec("BEGIN; " + change + "; PREPARE TRANSACTION 'one'")
		want(t, c, "user:1", i)
		exec("COMMIT PREPARED 'one'")
		wantNone(t, c, "user:1")
		set(t, c, "user:1", i)
		exec("BEGIN; " + change + "; PREPARE TRANSACTION 'two'")
		exec("ROLLBACK PREPARED 'two'")
		want(t, c, "user:1", i)
	}
}

// Pollers forget what was removed, and nothing else.
func TestWatch_Pollers(t *testing.T) {
	t.Parallel()
	w := newWatchedRows(t)
	a := w.node(func(_ *sql.DB, o *pgcache.Options) { o.Listener = listener.Poll(20 * time.Millisecond) })
	for _, remove := range []func(){
		func() { w.exec("UPDATE " + w.name("users") + " SET name = 'new' WHERE id = 1") },
		func() { deletePrefix(t, w.c, "user:1") },
		func() { deleteTags(t, w.c, "t") },
	} {
		inTime(t, func() error { // where a busy machine keeps a pulse waiting nothing is answered from memory
			set(t, a, "user:1", 1, pgcache.Tags("t"))
			set(t, a, "other", 2)
			warm(t, a, "user:1", 1)
			warm(t, a, "other", 2)
			remove()
			eventually(t, "it is gone", func() bool { _, found := get[int](t, a, "user:1"); return !found })
			before := a.Stats().LocalHits
			want(t, a, "other", 2)
			if a.Stats().LocalHits != before+1 {
				return errors.New("what was not removed has left the memory of a node that polls")
			}
			return nil
		})
	}
	if n := w.count("SELECT count(*) FROM " + w.object("cache_notices") + " WHERE payload LIKE '%*'"); n != 0 {
		t.Error(n, "messages of everything")
	}
}

// Of the records of a key those remain that no newer one has seen; a row that was stored between two removals of
// transactions that ran at one time stays dead.
func TestWatch_Compact(t *testing.T) {
	t.Parallel()
	w := newWatchedRows(t)
	flush := func() {
		t.Helper()
		w.exec("SELECT " + w.object("cache_flush") + "('0000000000000000', 1, 1, false)")
	}
	records := func() int {
		t.Helper()
		return w.count("SELECT count(*) FROM " + w.object("cache_groups") + " WHERE name = 'user:1'")
	}
	for range 20 {
		w.exec("UPDATE " + w.name("users") + " SET name = 'x' WHERE id = 1")
	}
	flush()
	if n := records(); n != 1 {
		t.Errorf("%d records after 20 changes one after the other", n)
	}
	// Two tables' rows of one name: the transactions don't wait for each other.
	w.exec("CREATE TABLE " + w.name("second") + " (id int)")
	w.watch(pgcache.TableWatch{Table: w.name("second"), Keys: []string{"user:{id}"}})
	early, err := w.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer early.Rollback() //nolint:errcheck // after a Commit it does nothing
	if _, err := early.Exec("INSERT INTO " + w.name("second") + " VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	w.exec("UPDATE " + w.name("users") + " SET name = 'y' WHERE id = 1")
	set(t, w.c, "user:1", "between")
	want(t, w.c, "user:1", "between")
	if err := early.Commit(); err != nil {
		t.Fatal(err)
	}
	flush()
	wantNone(t, w.c, "user:1")
	// A transaction that has its id when others still commit has that id in its snapshots: its record is not older than itself.
	set(t, w.c, "user:1", "again")
	late, err := w.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Rollback() //nolint:errcheck // after a Commit it does nothing
	for _, query := range []string{"SELECT pg_current_xact_id()", "", "UPDATE " + w.name("users") + " SET name = 'b' WHERE id = 1"} {
		if query == "" {
			w.exec("UPDATE " + w.name("users") + " SET name = 'a' WHERE id = 2")
		} else if _, err := late.Exec(query); err != nil {
			t.Fatal(err)
		}
	}
	if err := late.Commit(); err != nil {
		t.Fatal(err)
	}
	flush()
	wantNone(t, w.c, "user:1")
}

// The log and the records have a bound, also where nobody flushes.
func TestWatch_Room(t *testing.T) {
	t.Parallel()
	w := newWatchedRows(t)
	w.exec("INSERT INTO " + w.object("cache_changes") + " (key, version) SELECT repeat('x', 1000) || i, 1 FROM generate_series(1, 17000) i")
	w.exec("INSERT INTO " + w.object("cache_groups") + " (kind, name) SELECT 'k', 'none:' || i || repeat('x', 900) FROM generate_series(1, 68000) i")
	sizes := func() (changes, records int) {
		t.Helper()
		return w.count("SELECT count(*) FROM " + w.object("cache_changes")), w.count("SELECT count(*) FROM " + w.object("cache_groups"))
	}
	changes, records := sizes()
	set(t, w.c, "user:1", 1)
	set(t, w.c, "other", 1)
	full := func() int {
		return w.count("SELECT count(*) FROM " + w.object("cache_groups") + " WHERE kind = 'p' AND name = ''")
	}
	for tries := 0; full() == 0; tries++ {
		if tries == 2000 {
			t.Fatal("nobody has found that there is no room")
		}
		w.exec("UPDATE " + w.name("users") + " SET name = 'x' WHERE id = 1")
	}
	wantNone(t, w.c, "user:1")
	wantNone(t, w.c, "other")
	// One write in fifty looks for room.
	for tries := 0; ; tries++ {
		if c, r := sizes(); c < changes && r < records {
			break
		} else if tries == 3000 {
			t.Fatalf("%d changes and %d records, were %d and %d", c, r, changes, records)
		}
		w.exec("UPDATE " + w.name("users") + " SET name = 'x' WHERE id = 1")
	}
	if n := full(); n != 1 {
		t.Errorf("%d records of everything", n)
	}
}

// What the writer has set, or put in the way, changes nothing: neither does its statement fail, nor does an entry stay.
func TestWatch_HostileWriter(t *testing.T) {
	t.Parallel()
	w := newWatchedRows(t)
	w.exec("CREATE SCHEMA evil_" + w.opts.Schema)
	defer w.exec("DROP SCHEMA evil_" + w.opts.Schema + " CASCADE")
	w.exec("CREATE FUNCTION evil_" + w.opts.Schema + ".octet_length(text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE 'mine'; END $$")
	id := ""
	if err := w.db.QueryRow("SELECT id FROM " + w.object("cache_watches")).Scan(&id); err != nil {
		t.Fatal(err)
	}
	gone := func(what, before string) {
		t.Helper()
		set(t, w.c, "user:1", 1)
		conn, err := w.db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.ExecContext(t.Context(), before+"; UPDATE "+w.name("users")+" SET name = 'x' WHERE id = 1; DISCARD TEMP; RESET ALL"); err != nil &&
			!strings.Contains(err.Error(), "DISCARD") {
			t.Errorf("%s: %v", what, err)
		}
		wantNone(t, w.c, "user:1")
	}
	gone("functions before ours", "SET search_path = evil_"+w.opts.Schema+", pg_catalog")
	gone("a counter that is none", "SET pgcache.watch_"+id+"k = 'x'")
	gone("a counter below zero", "SET pgcache.watch_"+id+"k = '-5'")
	gone("it has removed everything, it says", "SET pgcache.watch_"+id+"k = 'all 0'")
	gone("tables of our names", "CREATE TEMP TABLE new_rows (id int); CREATE TEMP TABLE old_rows (id int); CREATE TEMP TABLE cache_groups (id int)")
	gone("another plan", "SET enable_hashagg = off; SET enable_sort = off; SET plan_cache_mode = force_custom_plan; SET default_transaction_isolation = serializable")
}

// Rows that go or change by a foreign key fire their own table's triggers.
func TestWatch_Cascade(t *testing.T) {
	t.Parallel()
	w := newWatchedRows(t)
	w.exec("CREATE TABLE " + w.name("posts") + " (id int, author int REFERENCES " + w.name("users") + " ON DELETE CASCADE ON UPDATE CASCADE)")
	w.watch(pgcache.TableWatch{Table: w.name("posts"), Keys: []string{"post:{id}", "of:{author}"}})
	w.exec("INSERT INTO " + w.name("posts") + " VALUES (5, 1), (6, 2)")
	w.removed()
	w.does("UPDATE USERS SET id = 11 WHERE id = 1", "p user:", "k of:1", "k of:11", "k post:5") // MaxKeys of users is 1
	w.does("DELETE FROM USERS WHERE id = 2", "k user:2", "k post:6", "k of:2")
}

// A watched table's triggers can't note a change while the table of records is gone: no node serves what it has in memory.
func TestWatch_RecordsGone(t *testing.T) {
	t.Parallel()
	w := newWatchedRows(t)
	c := w.node(nil)
	set(t, c, "user:1", "old")
	warm(t, c, "user:1", "old")
	w.exec("ALTER TABLE " + w.object("cache_groups") + " RENAME TO gone")
	w.exec(w.sql("UPDATE USERS SET name = 'new' WHERE id = 1"))
	eventually(t, "the database is asked", func() bool {
		_, err := c.Get(t.Context(), "user:1", new(string))
		return errors.Is(err, pgcache.ErrNotMigrated)
	})
}

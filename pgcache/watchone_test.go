package pgcache_test

import (
	"strings"
	"testing"

	"github.com/pgcache/go/pgcache"
)

// A statement that changes one row, and nothing that the templates name, ends early in the trigger. It counts as others do.
func TestWatch_OneRow(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	w.exec("INSERT INTO " + w.name("users") + " (id, org_id) SELECT i, 7 FROM generate_series(1, 3) i")
	change := func(where ...string) string {
		return "BEGIN; UPDATE USERS SET name = 'x' WHERE " + strings.Join(where, "; UPDATE USERS SET name = 'x' WHERE ") + "; COMMIT"
	}
	w.watch(pgcache.TableWatch{Keys: []string{"user:{id}"}, MaxKeys: 3})
	w.does(change("id = 1", "id = 2", "id = 3"), "k user:1", "k user:2", "k user:3")
	w.does(change("id = 1", "id = 2", "id = 3", "id = 1"), "k user:1", "k user:2", "k user:3", "p user:")
	w.does(change("id = 1", "id > 1", "id = 1"), "k user:1", "k user:2", "k user:3", "p user:")
	w.does(change("id > 1", "id = 1", "id = 2"), "k user:1", "k user:2", "k user:3", "p user:")
	w.does(change("false", "id = 1; SAVEPOINT a", "id = 2; ROLLBACK TO a", "id = 2", "id = 3", "false"), "k user:1", "k user:2", "k user:3")
	w.watch(pgcache.TableWatch{Keys: []string{"user:{id}", "of:{org_id}"}, Tags: []string{"t{id}"}, MaxKeys: 1})
	w.does(change("id = 1"), "p of:", "p user:", "t t1")
	w.does(change("id = 1", "id = 2"), "p ", "p of:", "p user:", "t t1")
	w.watch(pgcache.TableWatch{Tags: []string{"org:{org_id}"}})
	w.does("INSERT INTO USERS (id, org_id) VALUES (4, 7)", "t org:7")
	w.does("INSERT INTO USERS (id, org_id) VALUES (5, 7), (6, 7)", "t org:7")
	w.does("INSERT INTO USERS (id, org_id) VALUES (7, 8), (8, 9)", "t org:8", "t org:9")
	w.does("INSERT INTO USERS (id, org_id) VALUES (9, 7), (10, 7), (11, 8)", "t org:7", "t org:8")
	w.does("DELETE FROM USERS WHERE id = 4", "t org:7")
	w.does("UPDATE USERS SET org_id = NULL WHERE id = 1", "t org:7")
	w.does("UPDATE USERS SET name = 'y' WHERE id = 1")
}

// A session that has changed the table before finds that the cache's tables are gone, also within one transaction.
func TestWatch_TablesGo(t *testing.T) {
	t.Parallel()
	w := newWatchedRows(t)
	conn, err := w.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	update := "UPDATE " + w.name("users") + " SET name = 'x' WHERE id = 1"
	for _, query := range []string{
		update, "BEGIN", "DROP TABLE " + w.object("cache_changes"), update, "ROLLBACK", update,
		"BEGIN", "DROP TABLE " + w.object("cache_groups"), update, "COMMIT", update,
	} {
		if _, err := conn.ExecContext(t.Context(), query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
}

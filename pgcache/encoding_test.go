package pgcache_test

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// A session whose texts are not taken for UTF-8 has other keys than its program means: it is refused, and Doctor says why.
func TestClientEncoding(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	cl.on(testdb.DB(t), nil)
	for _, encoding := range []string{"LATIN1", "WIN1252", "EUC_JP"} {
		db := testdb.Open(t, "pgx", testdb.WithParam(testdb.DSN(t), "client_encoding", encoding))
		c := cl.new(db, func(o *pgcache.Options) { o.Listener = pgxdriver.Listener(db) })
		for name, err := range everything(t.Context(), c) {
			switch name {
			case "Delete of none", "SetMany of none", "GetMany of none", "GetOrSetMany of none", "MigrationState":
			default:
				if err == nil || !strings.Contains(err.Error(), "client_encoding "+encoding) {
					t.Errorf("%s, %s: %v", encoding, name, err)
				}
			}
		}
		found, err := c.Doctor(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(found) != 1 || found[0].ID != "encoding" || found[0].Severity != pgcache.Fault {
			t.Errorf("%s: %+v", encoding, found)
		}
	}
	cl.on(testdb.Open(t, "pgx", testdb.WithParam(testdb.DSN(t), "client_encoding", "SQL_ASCII")), nil) // bytes pass as they are
}

// In a database of another encoding nodes understand what is published of keys that are not ASCII.
func TestServerEncoding(t *testing.T) {
	t.Parallel()
	for _, encoding := range []string{"LATIN1", "SQL_ASCII", "EUC_JP"} {
		cl := newCluster(t)
		name := cl.opts.Schema + strings.ToLower(encoding)
		cl.exec("CREATE DATABASE " + name + " TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING '" + encoding + "'")
		t.Cleanup(func() {
			db := testdb.DB(t)
			if _, err := db.Exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
				t.Error(err)
			}
		})
		dsn := testdb.WithParam(testdb.WithParam(testdb.DSN(t), "dbname", name), "client_encoding", "UTF8")
		cl.db = testdb.Open(t, "pgx", dsn)
		cl.exec("CREATE SCHEMA " + cl.opts.Schema)
		node := func(driver string) (*sql.DB, *pgcache.Cache) {
			db := testdb.Open(t, driver, dsn)
			return db, cl.on(db, func(o *pgcache.Options) { o.Listener = listenerOf(driver, db, dsn) })
		}
		_, a := node("pgx")
		_, b := node("postgres")
		for _, key := range []string{"e", "é", "é:é"} {
			if encoding == "EUC_JP" {
				key = strings.ReplaceAll(key, "é", "語")
			}
			for i, tag := range []string{"t", key} {
				set(t, a, key, i, pgcache.Tags(tag))
				warm(t, b, key, i)
				set(t, a, key, i+10, pgcache.Tags(tag))
				warm(t, b, key, i+10)
				deleteTags(t, a, tag)
				eventually(t, "the tag is removed", func() bool { _, found := get[int](t, b, key); return !found })
			}
			set(t, a, key, 5)
			warm(t, b, key, 5)
			deletePrefix(t, a, key)
			eventually(t, "the prefix is removed", func() bool { _, found := get[int](t, b, key); return !found })
		}
		if n := b.Stats().UnknownMessages + a.Stats().UnknownMessages; n > 0 {
			t.Errorf("%s: %d messages were not understood", encoding, n)
		}
	}
}

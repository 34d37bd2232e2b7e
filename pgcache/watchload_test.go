package pgcache_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/pgcache"
)

// changes are what others do to a watched table that has the rows 1 and 2.
var changes = map[string]string{
	"UPDATE":   "UPDATE USERS SET name = 'new' WHERE id = 1",
	"bulk":     "UPDATE USERS SET name = 'new'",
	"TRUNCATE": "TRUNCATE USERS; INSERT INTO USERS (id, name) VALUES (1, 'new')",
	"MERGE":    "MERGE INTO USERS u USING (VALUES (1)) v (id) ON u.id = v.id WHEN MATCHED THEN UPDATE SET name = 'new'",
}

func newWatchedRows(t *testing.T) *watched {
	t.Helper()
	w := newWatched(t)
	w.watch(pgcache.TableWatch{Keys: []string{"user:{id}"}, MaxKeys: 1})
	w.exec("INSERT INTO " + w.name("users") + " (id, name) VALUES (1, 'old'), (2, 'old')")
	return w
}

// knows skips the test of a change that the server has no statement for.
func (w *watched) knows(change string) {
	w.t.Helper()
	if strings.HasPrefix(change, "MERGE") && w.count("SELECT current_setting('server_version_num')::int") < 150000 {
		w.t.Skip("PostgreSQL 14 has no MERGE")
	}
}

// nameOf loads a user's name. read is closed when it has been read, and it is returned when resume is closed.
func (w *watched) nameOf(read, resume chan struct{}) func(ctx context.Context) (any, error) {
	return func(ctx context.Context) (any, error) {
		var name string
		err := w.db.QueryRowContext(ctx, "SELECT name FROM "+w.name("users")+" WHERE id = 1").Scan(&name)
		if read != nil {
			close(read)
			<-resume
		}
		return name, err
	}
}

// A load that read the table before a change was committed is not what anybody gets after it:
//
//	load                     another writer                another order
//	                                                       UPDATE
//	SELECT name: old                                       SELECT name: old
//	                         UPDATE, COMMIT
//	StoreLoaded: refused                                   StoreLoaded: stored
//	                                                       COMMIT: the row is dead
func TestWatch_LoadOvertaken(t *testing.T) {
	t.Parallel()
	for what, change := range changes {
		for _, order := range []string{"commit before the load is stored", "commit after the load was stored", "change before the load, commit before it is stored"} {
			if what == "TRUNCATE" && order != "commit before the load is stored" {
				continue // a transaction that truncates lets nobody read
			}
			t.Run(what+"/"+order, func(t *testing.T) {
				t.Parallel()
				w := newWatchedRows(t)
				w.knows(change)
				a, b := w.node(nil), w.node(nil)
				caughtUp := w.follow(b, a, nil)
				w.removed()
				tx, err := w.db.BeginTx(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer tx.Rollback() //nolint:errcheck // after a Commit it does nothing
				update := func() {
					t.Helper()
					if _, err := tx.ExecContext(t.Context(), w.sql(change)); err != nil {
						t.Fatal(err)
					}
				}
				commit := func() {
					t.Helper()
					if err := tx.Commit(); err != nil {
						t.Fatal(err)
					}
				}
				read, resume := make(chan struct{}), make(chan struct{})
				if order != "commit before the load is stored" {
					update()
				}
				var got string
				loaded := async(t, func() error { return a.GetOrSet(t.Context(), "user:1", &got, w.nameOf(read, resume)) })
				<-read
				switch order {
				case "commit before the load is stored":
					update()
					commit()
				case "change before the load, commit before it is stored":
					commit()
				}
				close(resume)
				if err := loaded(); err != nil || got != "old" {
					t.Fatal(got, err)
				}
				if order == "commit after the load was stored" {
					want(t, b, "user:1", "old")
					commit()
				}
				caughtUp()
				for _, c := range []*pgcache.Cache{b, a} {
					wantNone(t, c, "user:1")
				}
				if err := a.GetOrSet(t.Context(), "user:1", &got, w.nameOf(nil, nil)); err != nil || got != "new" {
					t.Error(got, err)
				}
				want(t, b, "user:1", "new") // a load that began after the removal is stored
			})
		}
	}
}

func (w *watched) sql(text string) string {
	return strings.ReplaceAll(text, "USERS", w.name("users"))
}

// What the nodes hold in memory goes within the window.
func TestWatch_Memory(t *testing.T) {
	t.Parallel()
	for what, change := range changes {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWatchedRows(t)
			w.knows(change)
			a, b := w.node(nil), w.node(nil)
			slow := 0 // on a machine that stalls some are
			for round := range 5 {
				value := fmt.Sprint("old", round)
				set(t, a, "user:1", value)
				warm(t, a, "user:1", value)
				warm(t, b, "user:1", value)
				w.exec(w.sql(change))
				for _, c := range []*pgcache.Cache{a, b} {
					began := time.Now()
					eventually(t, "it is gone", func() bool { _, found := get[string](t, c, "user:1"); return !found })
					if time.Since(began) > time.Second {
						slow++
					}
				}
			}
			if slow > 2 {
				t.Errorf("%d of 10 changes were seen after more than a second", slow)
			}
		})
	}
}

// In one transaction: what is set after the change stays, what was set before goes; and a rollback removes nothing.
func TestWatch_OneTransaction(t *testing.T) {
	t.Parallel()
	w := newWatchedRows(t)
	in := func(f func(tx *sql.Tx)) *sql.Tx {
		t.Helper()
		tx, err := w.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = tx.Rollback() })
		f(tx)
		return tx
	}
	update := func(tx *sql.Tx, name string) {
		t.Helper()
		if _, err := tx.ExecContext(t.Context(), "UPDATE "+w.name("users")+" SET name = $1 WHERE id = 1", name); err != nil {
			t.Fatal(err)
		}
	}
	put := func(tx *sql.Tx, name string) {
		t.Helper()
		if err := w.c.WithTx(tx).Set(t.Context(), "user:1", name); err != nil {
			t.Fatal(err)
		}
	}
	commit := func(tx *sql.Tx) {
		t.Helper()
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	commit(in(func(tx *sql.Tx) { update(tx, "a"); put(tx, "a") }))
	want(t, w.c, "user:1", "a")
	if err := in(func(tx *sql.Tx) { update(tx, "b") }).Rollback(); err != nil {
		t.Fatal(err)
	}
	want(t, w.c, "user:1", "a")
	commit(in(func(tx *sql.Tx) { put(tx, "c"); update(tx, "d") }))
	wantNone(t, w.c, "user:1")
}

// Entries that carry a tag go with the rows that name it, from memory too; others stay.
func TestWatch_Tags(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	w.watch(pgcache.TableWatch{Tags: []string{"org:{org_id}"}})
	a, b := w.node(nil), w.node(nil)
	w.exec("INSERT INTO " + w.name("users") + " (id, org_id) VALUES (1, 7), (2, 8)")
	put := func() {
		t.Helper()
		set(t, a, "seven", 7, pgcache.Tags("org:7"))
		set(t, a, "eight", 8, pgcache.Tags("org:8", "x"))
		for _, c := range []*pgcache.Cache{a, b} {
			warm(t, c, "seven", 7)
			warm(t, c, "eight", 8)
		}
	}
	gone := func(key string) {
		t.Helper()
		for _, c := range []*pgcache.Cache{a, b} {
			eventually(t, key+" is gone", func() bool { _, found := get[int](t, c, key); return !found })
		}
	}
	put()
	w.exec("UPDATE " + w.name("users") + " SET name = 'x' WHERE id = 1")
	gone("seven")
	want(t, b, "eight", 8)
	put()
	w.exec("UPDATE " + w.name("users") + " SET org_id = 8 WHERE id = 1") // where it was, and where it is
	gone("seven")
	gone("eight")
	put()
	w.exec("TRUNCATE " + w.name("users"))
	gone("seven")
	gone("eight")
}

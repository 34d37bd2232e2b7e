package store_test

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/pgcache/go/internal/store"
)

func (w *table) marked() (marked bool) {
	w.t.Helper()
	w.scan(w.db.QueryRow(w.Names.Render("SELECT /* TEMPLATE: any_removal */true")), &marked)
	return marked
}

func (w *table) scan(row *sql.Row, into ...any) {
	w.t.Helper()
	if err := row.Scan(into...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *table) mark() {
	w.t.Helper()
	if err := w.MarkGroups(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// TestMarkGroups: statements look for records from the moment that one may be seen by anybody, until nobody can see any.
func TestMarkGroups(t *testing.T) {
	forDrivers(t, func(t *testing.T, s *table) {
		forget := func() { s.exec(fmt.Sprintf("DELETE FROM %s", s.Names.Groups())) }
		if s.marked() {
			t.Fatal("marked from the beginning")
		}
		s.put(row("k", "v", 1))

		// Of a transaction that is open nobody sees the record yet: it is marked all the same, and stays it.
		tx, err := s.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
		if _, err := s.RemoveTx(t.Context(), tx, store.Prefix, []string{"k"}, false); err != nil {
			t.Fatal(err)
		}
		s.mark()
		if !s.marked() {
			t.Fatal("not marked, and a transaction is about to remove a group")
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if s.get("k").Live() {
			t.Error("live, and its group was removed")
		}

		// A snapshot from before the records went shows them: whoever has it looks for them.
		old, err := s.db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
		if err != nil {
			t.Fatal(err)
		}
		defer old.Rollback() //nolint:errcheck // nothing is written
		if r, err := s.GetTx(t.Context(), old, "k"); err != nil || r.Live() {
			t.Fatal(r, err)
		}
		forget()
		s.mark()
		if r, err := s.GetTx(t.Context(), old, "k"); err != nil || r.Live() {
			t.Errorf("live under a snapshot that shows the record: %+v, %v", r, err)
		}
		if !s.marked() {
			t.Error("not marked, and a snapshot shows a record")
		}
		if err := old.Rollback(); err != nil {
			t.Fatal(err)
		}
		for s.marked() { // other tests of this server have snapshots too
			s.mark()
		}

		// What a dump set back.
		if _, err := s.Remove(t.Context(), store.Prefix, []string{"k"}); err != nil {
			t.Fatal(err)
		}
		s.exec(s.Names.Render("SELECT setval('/* TEMPLATE: prefix */cache_groups_mark', 1)"))
		if s.mark(); !s.marked() {
			t.Error("not marked beside a record")
		}
	})
}

// TestMarkGroupsLocks: who is about to insert a record has marked the table, and has no page of it yet.
//
//	Remove: marks                        MarkGroups: the table has no page
//	Remove: inserts the record           1: nobody would look for the record
func TestMarkGroupsLocks(t *testing.T) {
	forDrivers(t, func(t *testing.T, s *table) {
		s.exec(fmt.Sprintf(`CREATE FUNCTION %[1]s.wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(hashtext('%[1]s')); RETURN NEW; END $$`, s.Names.Schema))
		s.exec(fmt.Sprintf("CREATE TRIGGER wait BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION %s.wait()", s.Names.Groups(), s.Names.Schema))
		holder, err := s.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer holder.Rollback() //nolint:errcheck // nothing is written
		if _, err := holder.Exec("SELECT pg_advisory_xact_lock(hashtext($1))", s.Names.Schema); err != nil {
			t.Fatal(err)
		}
		removed := make(chan error, 1)
		go func() {
			_, err := s.Remove(t.Context(), store.Prefix, []string{"k"})
			removed <- err
		}()
		waiting := false
		for !waiting && t.Context().Err() == nil {
			s.scan(s.db.QueryRow("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = hashtext($1)::bigint & 4294967295)", s.Names.Schema), &waiting)
		}
		s.mark()
		if !s.marked() {
			t.Error("not marked, and a record is about to come")
		}
		if err := holder.Rollback(); err != nil {
			t.Fatal(err)
		}
		if err := <-removed; err != nil {
			t.Fatal(err)
		}
	})
}

// TestNothingIsCompiled: what the planner is told not to scan costs so much on paper that the server compiles the statement, which takes
// hundreds of milliseconds, unless the function says no. Where a function reads nothing but by an index it need not.
func TestNothingIsCompiled(t *testing.T) {
	forDrivers(t, func(t *testing.T, s *table) {
		var compiled string
		s.scan(s.db.QueryRow(`SELECT coalesce(string_agg(p.proname, ' '), '') FROM pg_proc p
			WHERE p.pronamespace = $1::regnamespace AND 'enable_seqscan=off' = ANY (p.proconfig) AND NOT 'jit=off' = ANY (p.proconfig) AND p.prosrc LIKE '%cache_state"%'`, s.Names.Schema), &compiled)
		if compiled != "" {
			t.Error(compiled)
		}
	})
}

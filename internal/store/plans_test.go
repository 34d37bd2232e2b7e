package store_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/store"
)

// TestPlansAreKept: from the sixth time on no statement that a program's calls, pulses or flushes send is planned anew. Postgres plans a
// prepared statement each time if it believes that to be cheaper, and for a list of few keys whose length it sees, it did.
func TestPlansAreKept(t *testing.T) {
	forDrivers(t, func(t *testing.T, s *table) {
		if strings.HasSuffix(t.Name(), "postgres/prepare=false") {
			t.Skip("lib/pq prepares nothing by itself")
		}
		// What a probe of the index costs decides, and in an empty table it costs nothing.
		var rows []store.Write
		for i := range 1000 {
			rows = append(rows, row(fmt.Sprint("row ", i), strings.Repeat("v", 200), 1))
		}
		s.put(rows...)
		s.exec("ANALYZE " + s.Names.Table())
		s.db.SetMaxOpenConns(1)                         // what is prepared is the session's
		if _, err := s.State(t.Context()); err != nil { // and it is READ COMMITTED: no transaction is needed
			t.Fatal(err)
		}
		check := func(_ any, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		for version := range int64(12) {
			k := fmt.Sprint("k", version)
			check(s.Get(t.Context(), k))
			check(s.GetMany(t.Context(), []string{k, "l", "m"}))
			for _, inline := range []bool{false, true} {
				check(s.Put(t.Context(), []store.Write{row("k", "v", version+1)}, inline))
				check(s.Put(t.Context(), []store.Write{row(k, "v", version+1), row("l", "v", version+1)}, inline))
			}
			incarnation, looked, err := s.Incarnation(t.Context())
			check(incarnation, err)
			load := row("loaded"+k, "v", version+1)
			load.Incarnation, load.Looked = incarnation, looked
			check(s.PutLoaded(t.Context(), []store.Write{load}, false))
			check(s.Flush(t.Context(), notify.Sender(1, window)))
			for _, inline := range []bool{false, true} {
				check(s.PutAbsent(t.Context(), row("absent"+k, "v", version+1), inline))
				check(s.Touch(t.Context(), row("k", "", version+1), inline))
				check(s.Increment(t.Context(), store.Increment{Write: row("n", "", version+1), Delta: 1}, inline))
				check(s.Remove(t.Context(), store.Tag, []string{"tag"}))
			}
			check(s.LeaseAndLook(t.Context(), store.LeaseAsk{Keys: []string{k}, Leases: []store.Lease{{ID: 1, Owner: version + 1}}, Of: []int{1}}))
			check(s.Look(t.Context(), []string{k, "l"}, false))
			check(s.Pending(t.Context(), s.db))
			check(s.Oldest(t.Context()))
			check(s.Pulse(t.Context(), s.db))
			tx, err := s.db.BeginTx(t.Context(), nil)
			check(tx, err)
			check(s.PutTx(t.Context(), tx, []store.Write{row("n"+k, "v", version+1)}, false))
			check(s.PutTx(t.Context(), tx, []store.Write{row("k", "v", version+1), row("m"+k, "v", version+1)}, false))
			check(s.GetTx(t.Context(), tx, k))
			check(nil, tx.Commit())
		}
		plans, err := s.db.QueryContext(t.Context(), "SELECT substring(statement FROM 'name: (\\w+)'), generic_plans, custom_plans FROM pg_prepared_statements")
		check(plans, err)
		defer plans.Close()
		kept := map[string]bool{}
		for plans.Next() {
			var name *string
			var generic, custom int
			check(nil, plans.Scan(&name, &generic, &custom))
			if name == nil {
				continue
			}
			// It may be there twice: the first rows went in a transaction, which the driver prepares for itself.
			if kept[*name] = kept[*name] || generic > 0; generic == 0 && custom > 5 {
				t.Errorf("%s was planned %d times", *name, custom)
			}
		}
		check(nil, plans.Err())
		for _, name := range []string{"GetEntry", "GetEntries", "PutEntry", "PutEntries", "PutEntryAndPublish", "PutEntriesAndPublish", "StoreLoaded"} {
			if !kept[name] {
				t.Errorf("%s has no plan that is kept", name)
			}
		}
	})
}

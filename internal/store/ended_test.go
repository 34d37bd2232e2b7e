package store_test

import (
	"slices"
	"testing"
)

// A transaction that the server has not begun, as after a failover, has ended, and says nothing of others that are asked for with it.
func TestEndedTransactions(t *testing.T) {
	forDrivers(t, func(t *testing.T, s *table) {
		tx, err := s.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback() //nolint:errcheck // it has written nothing
		var open, ended string
		if err := s.db.QueryRowContext(t.Context(), "SELECT pg_current_xact_id()::text").Scan(&ended); err != nil {
			t.Fatal(err)
		}
		if err := tx.QueryRowContext(t.Context(), "SELECT pg_current_xact_id()::text").Scan(&open); err != nil {
			t.Fatal(err)
		}
		const lost = "9000000000000000"
		for _, xids := range [][]string{{open, lost, ended}, {lost, ended, open}, {ended, open}, {open, ended, lost, lost, open}} {
			got, err := s.EndedTransactions(t.Context(), xids)
			want := slices.DeleteFunc(slices.Clone(xids), func(xid string) bool { return xid == open })
			slices.Sort(got)
			slices.Sort(want)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("of %v there are said to have ended %v, %v; want %v", xids, got, err, want)
			}
		}
	})
}

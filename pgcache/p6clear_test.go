package pgcache_test

import (
	"slices"
	"testing"
	"time"
)

// P6: a transaction that is open, or prepared, while Clear removes rows one by one: a load that has not seen what it wrote does not
// store over it.
func TestP6_ClearBesideTransaction(t *testing.T) {
	t.Parallel()
	const prepare, commit = "PREPARE TRANSACTION 'p'", "COMMIT PREPARED 'p'"
	for name, steps := range map[string]struct{ before, meanwhile, end string }{
		"open":               {"", "", "COMMIT"},
		"prepared":           {prepare, "", commit},
		"prepared meanwhile": {"", prepare, commit},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newPrepared(t, false)
			loads := w.node()
			db, wire := openWire(t, "pgx", w.server.DSN)
			o := w.opts
			o.Timeout = time.Minute
			clears := (&cluster{t: t, opts: o}).new(db, nil)
			conn, err := w.db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			run := func(query string) {
				t.Helper()
				if _, err := conn.ExecContext(t.Context(), query); err != nil {
					t.Fatalf("%s: %v", query, err)
				}
			}
			// Clear sees the tombstone and waits for it; without it, it would not find the row.
			set(t, loads, "user:1", "older")
			if err := loads.Delete(t.Context(), "user:1"); err != nil {
				t.Fatal(err)
			}
			run("BEGIN; UPDATE users SET name = 'new'")
			if err := loads.WithTx(conn).Set(t.Context(), "user:1", "new"); err != nil {
				t.Fatal(err)
			}
			run(steps.before)
			cleared := async(t, func() error { return clears.Clear(t.Context()) })
			waits := func() {
				t.Helper()
				looks := wire.count(named("Writers"))
				eventually(t, "Clear waits for the transaction", func() bool {
					return wire.count(named("Writers")) > looks+2 || slices.Contains(wire.statements(), "ClearEntryWaiting")
				})
			}
			waits()
			run(steps.meanwhile)
			waits()
			slow := newLoader("old")
			var v string
			loaded := async(t, func() error { return loads.GetOrSet(t.Context(), "user:1", &v, slow.load) })
			slow.wait(t)
			run(steps.end)
			if err := cleared(); err != nil {
				t.Fatal(err)
			}
			slow.release()
			if err := loaded(); err != nil {
				t.Fatal(err)
			}
			if v, found := get[string](t, loads, "user:1"); found && v == "old" {
				t.Error("what was loaded before the commit was stored")
			}
			if sent := wire.statements(); !slices.Contains(sent, "ClearEntries") {
				t.Errorf("Clear was done by %q", sent)
			}
		})
	}
}

// What a load from before a Clear stores while that waits for a transaction goes with the rest.
//
//	load looks at k             Clear waits for a transaction
//	StoreLoaded: k is there     Clear removes what was written before it began: not k
func TestP6_LoadBesideWaitingClear(t *testing.T) {
	t.Parallel()
	w := newPrepared(t, false)
	loads := w.node()
	db, wire := openWire(t, "pgx", w.server.DSN)
	o := w.opts
	o.Timeout = time.Minute
	clears := (&cluster{t: t, opts: o}).new(db, nil)
	tx, err := w.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	if err := loads.WithTx(tx).Set(t.Context(), "user:1", "new"); err != nil {
		t.Fatal(err)
	}
	slow := newLoader("old")
	var v string
	loaded := async(t, func() error { return loads.GetOrSet(t.Context(), "user:2", &v, slow.load) })
	slow.wait(t)
	cleared := async(t, func() error { return clears.Clear(t.Context()) })
	eventually(t, "Clear waits for the transaction", func() bool { return wire.count(named("Writers")) > 2 })
	slow.release()
	if err := loaded(); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := cleared(); err != nil {
		t.Fatal(err)
	}
	if v, found := get[string](t, clears, "user:2"); found {
		t.Errorf("%q, loaded before the Clear, is there after it", v)
	}
}

package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/pgcache/go/internal/migrate"
	"github.com/pgcache/go/internal/store"
)

// TestRecovered: while a transaction from before a crash is prepared there is no incarnation, whoever asks for one.
func TestRecovered(t *testing.T) {
	t.Parallel()
	server, db, s := ownServer(t, map[string]string{"max_prepared_transactions": "5"})
	ctx := t.Context()
	exec := func(query string) {
		t.Helper()
		if _, err := db.ExecContext(ctx, query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	restart := func(mode string) {
		t.Helper()
		if err := server.Restart(ctx, mode); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the server answers", func() bool { return db.PingContext(ctx) == nil })
	}
	incarnation := func() int64 {
		t.Helper()
		id, _, err := s.Incarnation(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	load := func() (stored bool) {
		t.Helper()
		look, err := s.Look(ctx, []string{"k"}, false)
		if err != nil {
			t.Fatal(err)
		}
		w, err := s.PutLoaded(ctx, []store.Write{{
			Key: "k", Value: []byte("v"), Version: 7, TTL: time.Minute, Codec: "raw",
			Fence: look.Rows[0].Version, Incarnation: look.Incarnation, Looked: look.At, Snapshot: look.Snapshot,
		}}, false)
		if err != nil {
			t.Fatal(err)
		}
		return w.Stored[0]
	}
	// Each has changed one of the tables; one has read only.
	for gid, statement := range map[string]string{
		"log":     "INSERT INTO s_cache_changes (key, version) VALUES ('k', 1)",
		"groups":  "INSERT INTO s_cache_groups (kind, name) VALUES ('k', 'k')",
		"entries": "INSERT INTO s_cache_entries (key, value) VALUES ('e', 'v')",
		"reads":   "SELECT FROM s_cache_entries, s_cache_changes, s_cache_groups",
	} {
		exec(fmt.Sprintf("BEGIN; %s; PREPARE TRANSACTION '%s'", statement, gid))
	}
	before := incarnation()
	if !load() {
		t.Error("beside prepared transactions a load is not stored, though nothing has crashed")
	}
	restart("fast") // the log has everything still
	if incarnation() != before {
		t.Error("an orderly restart has changed the incarnation")
	}
	restart("immediate")
	for _, gid := range []string{"log", "groups", "entries"} { // those that write entries or groups are the last
		for name, try := range map[string]func() error{
			"the pulse":         func() error { return nil },
			"a load":            func() error { load(); return nil },
			"Clear, or a fence": func() error { return s.FenceLoads(ctx) },
			"a removal by hand": func() error {
				short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
				defer cancel()
				_, _ = db.ExecContext(short, "TRUNCATE s_cache_entries") // it waits for those that write entries
				return nil
			},
			"the first migration again": func() error { exec(migrate.All(s.Names)[0].SQL); return nil },
		} {
			if err := try(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if id := incarnation(); id != 0 || load() {
				t.Fatalf("beside %q, after %s: incarnation %d", gid, name, id)
			}
		}
		if fenced, err := s.Fence(ctx); err != nil || fenced {
			t.Errorf("beside %q: fenced %v, %v", gid, fenced, err)
		}
		gids, err := s.Recovered(ctx)
		if err != nil || len(gids) == 0 {
			t.Errorf("beside %q: %q, %v", gid, gids, err)
		}
		// Either way it has ended, and what was stored meanwhile goes.
		exec(map[string]string{"log": "COMMIT", "groups": "ROLLBACK", "entries": "COMMIT"}[gid] + " PREPARED '" + gid + "'")
	}
	if _, err := s.Put(ctx, []store.Write{{Key: "meanwhile", Value: []byte("v"), Version: 9, TTL: time.Minute, Codec: "raw"}}, false); err != nil {
		t.Fatal(err)
	}
	if id := incarnation(); id == 0 || id == before {
		t.Errorf("when all have ended: incarnation %d, was %d", id, before)
	}
	if !load() {
		t.Error("when all have ended a load is not stored")
	}
	if r, err := s.Get(ctx, "meanwhile"); err != nil || r.Live() {
		t.Errorf("what was stored meanwhile is there still: %v", err)
	}
	// What one that was prepared since has changed is in the log.
	exec("BEGIN; INSERT INTO s_cache_changes (key, version) VALUES ('k', 1); PREPARE TRANSACTION 'since'")
	exec("DELETE FROM s_cache_incarnation")
	if incarnation() == 0 {
		t.Error("one that was prepared since counts")
	}
	exec("ROLLBACK PREPARED 'since'")
	exec("ROLLBACK PREPARED 'reads'")
}

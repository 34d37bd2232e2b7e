package store_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
)

func versionSet(h published) map[int64]bool {
	set := map[int64]bool{}
	for _, versions := range h.versions {
		for _, v := range versions {
			set[v] = true
		}
	}
	return set
}

// ownServer starts a server of the test's own, which it may crash, with the tables of a cache.
func ownServer(t *testing.T, settings map[string]string) (*pgserver.Server, *sql.DB, *store.Store) {
	t.Helper()
	server, err := pgserver.StartWith(t.Context(), pgserver.Config{Own: true, Logf: t.Logf, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	db := testdb.Open(t, "pgx", server.DSN)
	n, err := store.Names{Prefix: "s_"}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	migrateOn(t, db, n)
	s := store.New(db, n, 5*time.Second, false)
	t.Cleanup(s.Close)
	return server, db, s
}

// TestCrash: a crash empties the log and the notices. It forgets the identity of the notices
// with them, but not that somebody polls.
func TestCrash(t *testing.T) {
	t.Parallel()
	server, db, s := ownServer(t, nil)
	ctx := t.Context()
	put := func(version int64) {
		t.Helper()
		waitFor(t, "a write gets through", func() bool { // of the pool's connections some may be dead
			_, err := s.Put(ctx, []store.Write{{Key: "k", Version: version, TTL: time.Minute, PublishNew: true}}, false)
			return err == nil
		})
	}
	count := func(table string) (rows int) {
		t.Helper()
		if err := db.QueryRowContext(ctx, "SELECT count(*) FROM "+table).Scan(&rows); err != nil {
			t.Fatal(err)
		}
		return rows
	}
	began, err := s.BeginPolling(ctx, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	put(1)
	put(2)
	if _, err := s.Flush(ctx, notify.Sender(1, window)); err != nil {
		t.Fatal(err)
	}
	put(3)
	if count("s_cache_changes") != 1 || count("s_cache_notices") != 1 {
		t.Fatal("the log is not as it should be")
	}
	for _, mode := range []string{"fast", "immediate"} {
		if err := server.Restart(ctx, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(ctx, "k"); err != nil {
			t.Fatal(err)
		}
		polled, err := s.Poll(ctx, db, began)
		if err != nil {
			t.Fatal(err)
		}
		notices := polled.Payloads
		if polled.At.Server == began.Server {
			t.Error("a server that was restarted passes for that of before")
		}
		found, _, err := s.Incarnation(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if mode == "fast" {
			if found != began.Incarnation || len(notices) != 1 || count("s_cache_changes") != 1 {
				t.Errorf("after an orderly restart: incarnation %d, %d notices, %d changes", found, len(notices), count("s_cache_changes"))
			}
			continue
		}
		if found == began.Incarnation || count("s_cache_changes") != 0 || count("s_cache_notices") != 0 || count("s_cache_entries") != 0 {
			t.Errorf("after a crash: incarnation %d, %d changes, %d notices, %d entries", found, count("s_cache_changes"), count("s_cache_notices"), count("s_cache_entries"))
		}
	}
	put(4)
	if count("s_cache_changes") != 1 {
		t.Error("after a crash writers have forgotten that somebody polls")
	}
	again, err := s.BeginPolling(ctx, time.Hour)
	if again.Incarnation == 0 || again.Incarnation == began.Incarnation || again.Server == began.Server || err != nil {
		t.Errorf("%+v after %+v, %v", again, began, err)
	}
}

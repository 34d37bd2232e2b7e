package pgcache_test

import (
	"context"
	"database/sql"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// TestOpenTransaction: what has to wait for the transactions that write to the cache, and may not for ever, says for whom it waited. The
// others go on.
func TestOpenTransaction(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	writer := cl.node(nil)
	a := cl.new(cl.db, func(o *pgcache.Options) { o.Timeout = time.Second })
	ctx := t.Context()
	tx, err := cl.db.BeginTx(ctx, nil)
	ok(t, err)
	defer tx.Rollback() //nolint:errcheck // it is rolled back below
	ok(t, writer.WithTx(tx).Set(ctx, "k", 1))
	var id string
	ok(t, tx.QueryRowContext(ctx, "SELECT virtualtransaction FROM pg_locks WHERE pid = pg_backend_pid() LIMIT 1").Scan(&id))
	names := func(err error) bool { return err != nil && strings.Contains(err.Error(), id+" in pg_locks") }

	eventually(t, "Clear says what it waits for", func() bool { return names(a.Clear(ctx)) })
	poller := cl.new(cl.db, func(o *pgcache.Options) { o.Timeout, o.Listener = time.Second, listener.Poll(time.Millisecond) })
	eventually(t, "a node that begins to poll says what it waits for", func() bool {
		ready, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		return names(poller.Ready(ready))
	})
	eventually(t, "Cleanup and the removal of a prefix wait for nobody", func() bool {
		_, err := a.Cleanup(ctx)
		return err == nil && a.DeletePrefix(ctx, "k") == nil
	})

	ok(t, tx.Rollback())
	eventually(t, "Clear", func() bool { return a.Clear(ctx) == nil })
	cl.ready(poller)
}

// TestShards_MoveBesideOpenTransaction: keys do not move to a server where a transaction is open that has written there. Move waits for it, and
// the log says for which.
func TestShards_MoveBesideOpenTransaction(t *testing.T) {
	t.Parallel()
	w := newShardWorld(t, "a", "b")
	var log logBuffer
	s, _ := w.faulty(func(o *pgcache.Options) {
		o.Timeout, o.Logger = time.Second, slog.New(slog.NewTextHandler(&log, nil))
	}, "a", "b")
	eventually(t, "it is migrated", func() bool { return s.Migrate(t.Context()) == nil })
	w.ready(s)
	eventually(t, "all keys are on a", func() bool { return s.Move(t.Context(), "a") == nil })
	tx := begin(t, w.on["b"].db, sql.LevelDefault)
	if _, err := tx.ExecContext(t.Context(), "SELECT "+w.on["b"].object("cache_set")+"('k', 'v')"); err != nil {
		t.Fatal(err)
	}
	var id string
	ok(t, tx.QueryRowContext(t.Context(), "SELECT virtualtransaction FROM pg_locks WHERE pid = pg_backend_pid() LIMIT 1").Scan(&id))
	moved := async(t, func() error { return s.Move(t.Context(), "a", "b") })
	eventually(t, "it says for whom it waits", func() bool { return strings.Contains(log.String(), "virtualtransaction=["+id+"]") })
	ok(t, tx.Rollback())
	if err := moved(); err != nil {
		eventually(t, "it goes on", func() bool { return s.Move(t.Context(), "a", "b") == nil })
	}
}

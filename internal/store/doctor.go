package store

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/pgcache/go/internal/dbsqlc"
)

// What Doctor reads; the fields are as the statements name them.
type (
	// ServerHealth has settings and counts of the server.
	ServerHealth = dbsqlc.ServerHealthRow
	// TableHealth has the statistics of one of the cache's tables.
	TableHealth = dbsqlc.TableHealthRow
	// GuardFault is a guard, a trigger of the table of entries, that is gone or does not fire where it should.
	GuardFault = dbsqlc.GuardFaultsRow
	// OldSnapshot is a transaction that keeps VACUUM from removing rows, or says how many sessions the role can't see.
	OldSnapshot = dbsqlc.OldSnapshotsRow
	// WatchFault is a watched table, with what is wrong with it if anything is.
	WatchFault = dbsqlc.WatchFaultsRow
)

// ServerHealth reads settings and counts of the server.
func (s *Store) ServerHealth(ctx context.Context) (ServerHealth, error) {
	return retry(ctx, lost, func() (ServerHealth, error) { return s.q.ServerHealth(ctx) })
}

// TableHealth reads the statistics of the cache's tables.
func (s *Store) TableHealth(ctx context.Context) ([]TableHealth, error) {
	return retry(ctx, lost, func() ([]TableHealth, error) { return s.q.TableHealth(ctx) })
}

// GuardFaults reads which guards are gone or disabled.
func (s *Store) GuardFaults(ctx context.Context) ([]GuardFault, error) {
	return retry(ctx, lost, func() ([]GuardFault, error) { return s.q.GuardFaults(ctx) })
}

// GuardsGone says whether a cache that has its tables lacks a guard. db need not be of a Store.
func GuardsGone(ctx context.Context, db DB, n Names) (bool, error) {
	faults, err := dbsqlc.New(&rendering{DB: db, names: n, texts: new(sync.Map)}).GuardFaults(ctx)
	return slices.ContainsFunc(faults, func(f GuardFault) bool { return f.Gone }), err
}

// Subscribed are the cache's own tables that a subscription fills.
func (s *Store) Subscribed(ctx context.Context) ([]string, error) {
	return retry(ctx, lost, func() ([]string, error) { return s.q.SubscribedTables(ctx) })
}

// OldSnapshots reads which transactions are older than longer.
func (s *Store) OldSnapshots(ctx context.Context, longer time.Duration) ([]OldSnapshot, error) {
	return retry(ctx, lost, func() ([]OldSnapshot, error) { return s.q.OldSnapshots(ctx, longer.Seconds()) })
}

// Recovered are the prepared transactions, by their gid, that keep an incarnation from being made after a crash.
func (s *Store) Recovered(ctx context.Context) ([]string, error) {
	return retry(ctx, lost, func() ([]string, error) { return s.q.RecoveredTransactions(ctx) })
}

// WatchFaults reads what is wrong with the watched tables.
func (s *Store) WatchFaults(ctx context.Context) ([]WatchFault, error) {
	return retry(ctx, lost, func() ([]WatchFault, error) { return s.q.WatchFaults(ctx) })
}

// Pooled says that there is a pooler before the server. It opens a transaction beside a connection: behind a pooler, the transaction may
// get the server process that answered the connection before.
func (s *Store) Pooled(ctx context.Context) (bool, error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	before, err := s.with(conn).Backend(ctx)
	if err != nil {
		return false, err
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer tx.Rollback() //nolint:errcheck // it has written nothing
	q := s.with(tx)
	if err := q.SetLocal(ctx, dbsqlc.SetLocalParams{Name: "idle_in_transaction_session_timeout", Setting: idleLimit}); err != nil {
		return false, err
	}
	other, err := q.Backend(ctx)
	if err != nil {
		return false, err
	}
	after, err := s.with(conn).Backend(ctx)
	return before.Pid == other.Pid || before.Pid != after.Pid, err
}

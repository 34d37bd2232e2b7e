package pgcache

import (
	"context"
	"database/sql"

	"github.com/pgcache/go/internal/lock"
)

// A Guard lets one process of the fleet load a key while the others wait for its value. It saves work and nothing else: what may be
// stored is decided by a fence in the storing statement. A guard that fails, panics or locks too little costs a second load; one that
// locks too much costs others up to LockTimeout, after which they load by themselves.
type Guard interface {
	// Open is called once by New. space distinguishes the cache's keys from those of other caches in the same database: it is
	// Schema, a dot, Prefix, and "cache". It must not touch the network.
	Open(db *sql.DB, space string) Locks
}

// Locks are one process's locks on keys. All methods are safe for concurrent use.
type Locks interface {
	// TryLock tries to lock each of keys, without waiting for another holder, and says which it got. After an error none
	// is held.
	TryLock(ctx context.Context, keys []string) (got []bool, err error)
	// Unlock gives back keys that TryLock got. It must work when the caller's context has ended.
	Unlock(keys []string)
	// Close gives back everything.
	Close() error
}

// AdvisoryLock is a Guard on Postgres' advisory locks. One connection of the pool, the session, holds all locks of this process, so a
// loader never holds one. Flushes and pulses use the session too: with a Listener it stays open until Close, else until half a minute
// after its last use. The locks are in the two-number key space, apart from the single numbers that applications use. A process
// that dies gives its locks back.
func AdvisoryLock() Guard { return advisoryLock{} }

type advisoryLock struct{}

func (advisoryLock) Open(db *sql.DB, space string) Locks { return lock.Open(db, space) }

// Lease is a Guard on rows of a table, cache_leases, for pools whose sessions are not their own, as behind PgBouncer in
// transaction mode, and for those that have no connection to spare for AdvisoryLock's session. The statement that looks at the
// row before a load takes the lease, and the one that stores ends it, so it takes no statement of its own. A lease lasts for
// 10 seconds and is renewed while the loader runs: a process that dies or is frozen keeps a key from the others for no longer.
func Lease() Guard { return leaseGuard{} }

type leaseGuard struct{}

func (leaseGuard) Open(db *sql.DB, space string) Locks { return lock.OpenLeases(db, space) }

// NoGuard is no Guard: each process loads for itself, once however many callers it has.
func NoGuard() Guard { return noGuard{} }

type noGuard struct{}

func (noGuard) Open(*sql.DB, string) Locks { return noLocks{} }

type noLocks struct{}

func (noLocks) TryLock(_ context.Context, keys []string) ([]bool, error) {
	got := make([]bool, len(keys))
	for i := range got {
		got[i] = true
	}
	return got, nil
}
func (noLocks) Unlock([]string) {}
func (noLocks) Close() error    { return nil }

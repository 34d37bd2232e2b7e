// Package store has every statement that the library sends: reads and writes of entries, the change log, leases and upkeep. It
// works over whatever database/sql driver the caller's pool has. It knows rows, not values, and nothing of local caches.
package store

import (
	"context"
	"database/sql"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgcache/go/internal/batch"
	"github.com/pgcache/go/internal/dbsqlc"
	"github.com/pgcache/go/internal/sqlerr"
)

// DB is what the store needs of a pool, a connection or a transaction.
type DB interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Never is the TTL of a row that does not expire.
const Never time.Duration = -1

// Row is one row as the database had it.
type Row struct {
	Key       string
	Value     []byte // nil: expired, a tombstone, or of a group that was removed; never nil otherwise
	Version   int64  // 0: there is no row
	Codec     string
	Remaining time.Duration // until it expires, by the database's clock; centuries if never
	Server    int64         // identity of the server that answered: when it started, in microseconds since 1970; 0 where Get finds no row
	Tags      []string      // the groups it belongs to
}

// Live says whether the row has a value to hand out. Where a Look asked for stale values this one may have expired: see Stale.
func (r Row) Live() bool { return r.Value != nil }

// Stale says whether the value has expired and may be handed out only where a load fails or is slow, and for how much longer. Only a
// Look that asks for stale values returns such a row.
func (r Row) Stale() (left time.Duration, ok bool) {
	return -r.Remaining, r.Value != nil && r.Remaining <= 0
}

// TooLarge says that the row has a value which is larger than Store.Largest, and was left where it is.
func (r Row) TooLarge() bool { return r.Value == nil && r.Codec == tooLarge }

const tooLarge = "too large" // as the queries say it; no codec is called so

// Write is one row to be written.
type Write struct {
	Key        string
	Value      []byte // nil: a tombstone
	Version    int64
	TTL        time.Duration // Never, or at least 0
	Codec      string
	PublishNew bool // of loads: publish it even if there was no row, because other nodes wait for the value

	Tags  []string      // the groups it belongs to
	Stale time.Duration // how much longer than its TTL it may be handed out where a load fails or is slow

	// Of loads, and of Replace: the version of the row that was seen before, 0 if there was no row.
	Fence int64

	// Of loads only: what the load saw before it began.
	Incarnation int64
	Looked      time.Duration // when, by the database's clock
	Snapshot    string        // which removals of groups were visible, "" if there was none
	LeftTags    []string      // the tags of the row that the load saw, without those in Tags
	Lease       Lease         // ends with the statement, whether the row is stored or not
}

// Store runs the statements of one cache. It is safe for concurrent use.
type Store struct {
	Names   Names
	Largest int64 // the size up to which a value is read, in bytes; to be set before use

	db  *sql.DB
	sql *rendering // on db
	q   *dbsqlc.Queries

	// plainWrites says that the pool's sessions are READ COMMITTED by default, so a write needs no transaction: see readCommitted.
	// strict says that a statement has found a session that is not; plainWrites then stays false.
	plainWrites, strict atomic.Bool

	incarnated atomic.Pointer[time.Time] // when an incarnation was last asked for and could not be made: see incarnate

	reads       batch.Queue[read, []Row]
	writes      batch.Queue[write, Written]
	heavyWrites batch.Queue[write, Written] // of large values, each in a statement of its own
	loads       batch.Queue[write, Written]
	heavyLoads  batch.Queue[write, Written]
	conditional batch.Queue[conditional, Written]
	increments  batch.Queue[increment, Incremented]
	leases      batch.Queue[LeaseAsk, Leased]
	observe     observer // nil: nobody observes
}

// observer is called before a statement: see Observe.
type observer func(ctx context.Context, name string, callers []context.Context) (context.Context, func(err error))

// lockWaits is how many statements of a queue may wait for locked rows at a time: a handful of the pool's connections, and
// more than one so that rows of different transactions don't wait for each other.
const lockWaits = 4

// New returns the store of the cache that n names, whose shared statements take at most timeout. n comes from
// Names.Resolve. prepare has every statement prepared, once on each connection.
func New(db *sql.DB, n Names, timeout time.Duration, prepare bool) *Store {
	s := &Store{Names: n, Largest: math.MaxInt32, db: db, sql: &rendering{DB: db, names: n, texts: new(sync.Map), conns: &conns{db: db}}}
	s.q = dbsqlc.New(s.sql)
	if prepare {
		s.sql.prepared = new(sync.Map)
	}
	patience := min(timeout/40, 125*time.Millisecond)
	s.reads = batch.Queue[read, []Row]{
		Slots: readSlots, Timeout: timeout, Patience: patience, LockWaits: lockWaits, MaxWeight: maxRows, Weight: read.weight,
		Apart: mayConcernOne, Late: s.sql.conns.late, One: s.readOne, Many: s.readMany,
	}
	// One writing statement at a time: it carries whatever came while the last was under way, and two would only wait
	// for each other's rows. Large values have a queue and a statement of their own, so that the others don't wait for them.
	s.writes.MaxWeight, s.loads.MaxWeight = maxBytes, maxBytes
	for _, q := range []*batch.Queue[write, Written]{&s.writes, &s.heavyWrites} {
		q.Apart, q.Locked, q.One, q.Many, q.Try = mayConcernOne, sqlerr.Locked, s.putOne, s.putMany, s.putTry
	}
	// What a load brings waits for a locked row no longer by itself than in a shared statement, so there is no Try.
	for _, q := range []*batch.Queue[write, Written]{&s.loads, &s.heavyLoads} {
		q.Apart, q.One, q.Many = sqlerr.Locked, s.loadOne, s.loadMany
	}
	for _, q := range []*batch.Queue[write, Written]{&s.writes, &s.heavyWrites, &s.loads, &s.heavyLoads} {
		q.Slots, q.Timeout, q.Patience, q.LockWaits = 1, timeout, patience, lockWaits
		q.Overlap, q.Weight, q.Late = write.overlaps, write.weight, s.sql.conns.late
	}
	s.conditional, s.increments = s.conditionals(timeout, patience), s.counters(timeout, patience)
	s.leases = s.leaseQueue(timeout, patience)
	return s
}

// Close gives the connections back and closes the prepared statements.
func (s *Store) Close() {
	s.sql.conns.close()
	if s.sql.prepared != nil {
		s.sql.prepared.Range(func(_, v any) bool {
			v.(*sql.Stmt).Close()
			return true
		})
	}
}

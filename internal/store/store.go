// Package store is the table: reads, writes, fenced stores and upkeep, one statement each, over whatever database/sql
// driver the caller's pool has. It knows rows, not values, and nothing of local caches.
package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgcache/go/internal/batch"
	"github.com/pgcache/go/internal/dbsqlc"
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
	Server    int64         // identity of the server that answered, also where there is no row
	Tags      []string      // the groups it belongs to
}

// Live says whether the row has a value to hand out.
func (r Row) Live() bool { return r.Value != nil }

// Stale says that the value has expired and may be handed out only where a load fails or is slow, and for how long. Only a Look that
// asks for it returns one.
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
	PublishNew bool // publish it even if the row is new

	Tags  []string      // the groups it belongs to
	Stale time.Duration // how much longer than its TTL it may be handed out where a load fails or is slow

	// Of loads only: what the load saw before it began.
	Fence       int64 // the row's version, 0 if there was no row
	Incarnation int64
	Looked      time.Duration // when, by the database's clock
	Snapshot    string        // which removals of groups were visible, "" if there was none
	Lease       Lease         // ends with the statement, whether the row is stored or not
}

// Store runs the statements of one cache. It is safe for concurrent use.
type Store struct {
	Names   Names
	Largest int64 // value that is read, in bytes; to be set before use
	db      *sql.DB
	sql     *rendered

	// plainWrites: sessions are READ COMMITTED by themselves. Else every write needs a transaction that says so: under a
	// stricter level a statement judges rows by a snapshot from before it waited. A session's level may change while we
	// run, so every writing statement looks for itself and writes nothing under another; strict says that one did.
	plainWrites, strict atomic.Bool

	q           *dbsqlc.Queries
	reads       batch.Queue[read, []Row]
	writes      batch.Queue[write, Written]
	heavyWrites batch.Queue[write, Written] // of large values, each in a statement of its own
	loads       batch.Queue[write, Written]
	heavyLoads  batch.Queue[write, Written]
	observe     func(ctx context.Context, name string, callers []context.Context) (context.Context, func(err error)) // nil: nobody does
	leases      batch.Queue[LeaseAsk, Leased]
	atomic      batch.Queue[conditional, Written]
	increments  batch.Queue[increment, Incremented]
}

// waiting is how many statements of a kind may wait for locked rows at a time: a handful of the pool's connections, and
// more than one so that rows of different transactions don't wait for each other.
const waiting = 4

// New returns the store of the cache that n names, whose shared statements take at most timeout. n must have been
// resolved. prepare prepares every statement once a connection.
func New(db *sql.DB, n Names, timeout time.Duration, prepare bool) *Store {
	s := &Store{Names: n, Largest: math.MaxInt32, db: db, sql: &rendered{DB: db, names: n, texts: new(sync.Map), conns: &conns{db: db}}}
	s.q = dbsqlc.New(s.sql)
	if prepare {
		s.sql.prepared = new(sync.Map)
	}
	patience := min(timeout/40, 125*time.Millisecond)
	s.reads = batch.Queue[read, []Row]{
		Slots: readSlots, Timeout: timeout, Patience: patience, Waiting: waiting, MaxWeight: maxRows, Weight: read.weight,
		Alone: mayBeOne, Late: s.sql.conns.late, One: s.readOne, Many: s.readMany,
	}
	// One writing statement at a time: it carries whatever came while the last was under way, and two would only wait
	// for each other's rows. Beside it there is one of a large value.
	s.writes.MaxWeight, s.loads.MaxWeight = maxBytes, maxBytes
	for _, q := range []*batch.Queue[write, Written]{&s.writes, &s.heavyWrites} {
		q.Alone, q.Locked, q.One, q.Many, q.Try = mayBeOne, locked, s.putOne, s.putMany, s.putTry
	}
	for _, q := range []*batch.Queue[write, Written]{&s.loads, &s.heavyLoads} {
		q.Alone, q.One, q.Many = locked, s.loadOne, s.loadMany
	}
	for _, q := range []*batch.Queue[write, Written]{&s.writes, &s.heavyWrites, &s.loads, &s.heavyLoads} {
		q.Slots, q.Timeout, q.Patience, q.Waiting = 1, timeout, patience, waiting
		q.Overlap, q.Weight, q.Late = write.overlaps, write.weight, s.sql.conns.late
	}
	s.atomic, s.increments = s.conditionals(timeout, patience), s.counters(timeout, patience)
	s.leases = s.leaseQueue(timeout, patience)
	return s
}

// rendered fills the templates into every statement on its way out, once a statement.
type rendered struct {
	DB
	names    Names
	texts    *sync.Map // generated text -> text for this cache
	prepared *sync.Map // generated text -> *sql.Stmt; nil: leave it to the driver
	conns    *conns    // of the pool; nil: DB is a connection or a transaction
}

// stmt returns the prepared statement of a generated text, or nil.
func (r *rendered) stmt(ctx context.Context, query string) *sql.Stmt {
	if r.prepared == nil {
		return nil
	}
	if s, ok := r.prepared.Load(query); ok {
		return s.(*sql.Stmt)
	}
	s, err := r.PrepareContext(ctx, r.text(query))
	if err != nil {
		return nil // sent unprepared, it returns the error to its caller
	}
	first, loaded := r.prepared.LoadOrStore(query, s)
	if loaded {
		s.Close()
	}
	return first.(*sql.Stmt)
}

func (r *rendered) text(sql string) string {
	if t, ok := r.texts.Load(sql); ok {
		return t.(string)
	}
	t := r.names.Render(sql)
	r.texts.Store(sql, t)
	return t
}

func (r *rendered) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if s := r.stmt(ctx, query); s != nil {
		return s.ExecContext(ctx, args...)
	}
	return r.DB.ExecContext(ctx, r.text(query), args...)
}

func (r *rendered) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if s := r.stmt(ctx, query); s != nil {
		return s.QueryContext(ctx, args...)
	}
	return r.DB.QueryContext(ctx, r.text(query), args...)
}

func (r *rendered) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if s := r.stmt(ctx, query); s != nil {
		return s.QueryRowContext(ctx, args...)
	}
	return r.DB.QueryRowContext(ctx, r.text(query), args...)
}

// with returns the queries on another connection or a transaction.
func (s *Store) with(db DB) *dbsqlc.Queries {
	return dbsqlc.New(&rendered{DB: db, names: s.Names, texts: s.sql.texts})
}

// committed runs f, one statement, as READ COMMITTED.
func committed[T any](ctx context.Context, s *Store, f func(q *dbsqlc.Queries) (T, error)) (v T, err error) {
	err = s.readCommitted(ctx, func(r *rendered) error {
		v, err = f(dbsqlc.New(r))
		return err
	})
	return v, err
}

// writing sends one statement that answers at least a row, unless its session is not READ COMMITTED.
func (s *Store) writing(ctx context.Context, query string, row func(v []driver.Value) error, args []any) error {
	return s.readCommitted(ctx, func(r *rendered) error {
		answered := false
		err := r.query(ctx, query, func(v []driver.Value) error {
			answered = true
			return row(v)
		}, args...)
		if err == nil && !answered {
			err = errStrict
		}
		return err
	})
}

// errStrict is for statements that wrote nothing because their session is not READ COMMITTED.
var errStrict = errors.New("the session is not READ COMMITTED")

// idleLimit ends a transaction whose process has been stopped, or cut off from the database.
const idleLimit = "5s"

// readCommitted calls f, which sends one statement, on a READ COMMITTED session. Where f says errStrict it is called
// again in a transaction, as it is from then on.
func (s *Store) readCommitted(ctx context.Context, f func(r *rendered) error) error {
	if s.plainWrites.Load() {
		err := f(s.sql)
		if !errors.Is(err, errStrict) {
			return err
		}
		s.strict.Store(true)
		s.plainWrites.Store(false)
	}
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a Commit it does nothing, before one the first error counts
	r := &rendered{DB: tx, names: s.Names, texts: s.sql.texts}
	err = dbsqlc.New(r).SetLocal(ctx, dbsqlc.SetLocalParams{Name: "idle_in_transaction_session_timeout", Setting: idleLimit})
	if err != nil {
		return err
	}
	if err := f(r); err != nil {
		return err
	}
	return tx.Commit()
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

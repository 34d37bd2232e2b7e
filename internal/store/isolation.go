package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"

	"github.com/pgcache/go/internal/dbsqlc"
	"github.com/pgcache/go/internal/sqlerr"
)

// Every statement that writes entries is READ COMMITTED: under a stricter level it would judge rows by a snapshot from before it
// waited for them. Where the sessions of the pool are, by themselves, it is sent as it is; else in a transaction that says so, for
// two round trips more. The level of a session may change while we run, so each of these statements looks for itself, and does
// nothing under another: it answers no row, or cache_committed fails it.

// errStrict is the error of a statement that did nothing because its session is not READ COMMITTED, and answered no row.
var errStrict = errors.New("the session is not READ COMMITTED")

// needsReadCommitted is the SQLSTATE of cache_committed.
const needsReadCommitted = "PC001"

// strict says that a statement has done nothing because its session is not READ COMMITTED.
func strict(err error) bool {
	return errors.Is(err, errStrict) || sqlerr.State(err) == needsReadCommitted
}

// The server ends a transaction that waits for its process for so long, which has been suspended, or cut off from the database. A
// flush has a lock that others want.
const (
	idleLimit      = "5s"
	idleFlushLimit = "2s"
)

// readCommitted calls f, which sends one statement, on a READ COMMITTED session. Where the session was not, f is called again in a
// transaction, as it is from then on.
func (s *Store) readCommitted(ctx context.Context, f func(r *rendering) error) error {
	if s.plainWrites.Load() {
		err := f(s.sql)
		if !strict(err) {
			return err
		}
		s.strict.Store(true)
		s.plainWrites.Store(false)
	}
	return s.transaction(ctx, s.db, idleLimit, f)
}

// transaction calls f in a READ COMMITTED transaction of its own, on a pool or one of its connections.
func (s *Store) transaction(ctx context.Context, db beginner, idleLimit string, f func(r *rendering) error) error {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a Commit it does nothing, before one the first error counts
	r := s.on(tx)
	err = dbsqlc.New(r).SetLocal(ctx, dbsqlc.SetLocalParams{Name: "idle_in_transaction_session_timeout", Setting: idleLimit})
	if err != nil {
		return err
	}
	if err := f(r); err != nil {
		return err
	}
	return tx.Commit()
}

// beginner is a pool or one of its connections.
type beginner interface {
	DB
	BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
}

// committedQuery is readCommitted for a generated query.
func committedQuery[T any](ctx context.Context, s *Store, f func(q *dbsqlc.Queries) (T, error)) (v T, err error) {
	err = s.readCommitted(ctx, func(r *rendering) error {
		v, err = f(dbsqlc.New(r))
		return err
	})
	return v, err
}

// committedRows is readCommitted for a statement that answers at least one row where it did anything.
func (s *Store) committedRows(ctx context.Context, query string, row func(v []driver.Value) error, args []any) error {
	return s.readCommitted(ctx, func(r *rendering) error {
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

package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"

	"github.com/pgcache/go/internal/dbsqlc"
	"github.com/pgcache/go/internal/sqlerr"
)

// Every statement that writes entries runs under READ COMMITTED: under a stricter level it would judge rows by a snapshot from before
// it waited for them. Where that is the default of the pool's sessions the statement is sent as it is, else in a transaction of that
// level, which costs at least three more round trips. A session's level may change at any time, so each of these statements checks
// it, and does nothing under another level: it answers no row, or cache_committed fails it.

// errStrict is the error of a statement that did nothing because its session is not READ COMMITTED, and answered no row.
var errStrict = errors.New("the session is not READ COMMITTED")

// needsReadCommitted is the SQLSTATE with which cache_committed fails.
const needsReadCommitted = "PC001"

// strict says that a statement has done nothing because its session is not READ COMMITTED.
func strict(err error) bool {
	return errors.Is(err, errStrict) || sqlerr.State(err) == needsReadCommitted
}

// The idle_in_transaction_session_timeout of these transactions: the server ends one whose process is suspended or cut off. It is
// shorter for a flush, which holds the lock that other flushes need.
const (
	idleLimit      = "5s"
	idleFlushLimit = "2s"
)

// readCommitted calls f, which sends one statement, under READ COMMITTED. Where the session has another level f is called again in a
// transaction, and from then on always in one.
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

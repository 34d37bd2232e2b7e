package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"

	"github.com/pgcache/go/internal/dbsqlc"
	"github.com/pgcache/go/internal/panics"
	"github.com/pgcache/go/internal/sqlerr"
)

// Querier is a transaction of the caller's.
type Querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// unprepared makes a DB of a Querier.
type unprepared struct{ Querier }

func (unprepared) PrepareContext(context.Context, string) (*sql.Stmt, error) {
	return nil, errors.New("nothing is prepared in a transaction of the caller's")
}

// TxWritten is what came of a write in a transaction.
type TxWritten struct {
	XID    string // the transaction's
	Server int64
}

// PutTx writes rows of different keys in tx. With its commit the changes are in the log, or with inline it notifies of them. It
// waits for rows that others have locked for as long as ctx and the session's lock_timeout allow.
func (s *Store) PutTx(ctx context.Context, tx Querier, rows []Write, inline bool) (out TxWritten, err error) {
	for len(rows) > 0 && err == nil {
		n := fitting(rows)
		part := make([]*Write, n)
		for i := range part {
			part[i] = &rows[i]
		}
		rows = rows[n:]
		if n == 1 && !inline && part[0].alone() {
			out, err = s.putOneTx(ctx, tx, part[0])
			continue
		}
		p := pack(part)
		err = s.on(unprepared{tx}).query(ctx, dbsqlc.PutEntriesTx, func(v []driver.Value) error {
			out = TxWritten{XID: asString(v[0]), Server: asInt(v[1])}
			return nil
		}, p.values, p.keys, p.versions, p.ttls, p.codecs, p.los, p.sizes, p.tags, p.stales, inline)
	}
	return out, err
}

// putOneTx writes one row of PutTx. It costs the server half as much as the statement for many rows.
func (s *Store) putOneTx(ctx context.Context, tx Querier, row *Write) (out TxWritten, err error) {
	err = s.on(unprepared{tx}).query(ctx, dbsqlc.PutEntryTx, func(v []driver.Value) error {
		out = TxWritten{XID: asString(v[0]), Server: asInt(v[1])}
		return nil
	}, row.Key, row.Value, row.Version, row.ttl(), row.Codec)
	return out, err
}

// GetTx reads one row in tx.
func (s *Store) GetTx(ctx context.Context, tx Querier, key string) (row Row, err error) {
	row.Key = key
	err = s.on(unprepared{tx}).query(ctx, dbsqlc.GetEntry, func(v []driver.Value) error {
		row = newRow(key, v)
		return nil
	}, s.Largest, key)
	return row, err
}

// invalidParameter is the SQLSTATE of, among others, a transaction id that the server has not given yet.
const invalidParameter = "22023"

// EndedTransactions returns which of xids have committed or rolled back. An id that the server has not given yet is of a transaction that
// a failover has lost: it has ended. Such an id fails the statement, so each half of xids is then asked for by itself: other ids may be
// of transactions that began after the failover and are still open.
func (s *Store) EndedTransactions(ctx context.Context, xids []string) (ended []string, err error) {
	defer panics.Recover(&err)
	ended, err = s.q.EndedTransactions(ctx, "{"+strings.Join(xids, ",")+"}")
	if sqlerr.State(err) != invalidParameter {
		return ended, err
	}
	if len(xids) == 1 {
		return xids, nil
	}
	half := len(xids) / 2
	ended, err = s.EndedTransactions(ctx, xids[:half])
	if err != nil {
		return nil, err
	}
	more, err := s.EndedTransactions(ctx, xids[half:])
	return append(ended, more...), err
}

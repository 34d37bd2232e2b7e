package store

import (
	"bytes"
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/pgcache/go/internal/sqlerr"
)

// query sends one of the statements that Gets and Sets are made of, and calls row for each row of the answer. Where it
// can it asks the pool's connection itself: sql.Rows costs a goroutine for every statement whose context can end, and
// reflection for every value. The values are row's only until it returns.
func (r *rendering) query(ctx context.Context, query string, row func(v []driver.Value) error, args ...any) error {
	if r.conns != nil && r.prepared == nil {
		if err := r.direct(ctx, query, row, args); !errors.Is(err, errIndirect) && !errors.Is(err, driver.ErrBadConn) {
			return err
		}
		// Nothing was sent; database/sql knows what to do, and to look for a connection that is not dead.
	}
	rows, err := r.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	v, scanned, dest := make([]driver.Value, len(columns)), make([]any, len(columns)), make([]any, len(columns))
	for i := range v {
		dest[i] = &scanned[i]
	}
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return err
		}
		for i := range v {
			v[i] = scanned[i]
		}
		if err := row(v); err != nil {
			return err
		}
	}
	return rows.Err()
}

// errIndirect says that the driver can't be asked directly.
var errIndirect = errors.New("the driver has no QueryerContext")

// direct sends a statement on the driver's own connection. After errIndirect and driver.ErrBadConn nothing was sent.
func (r *rendering) direct(ctx context.Context, query string, row func(v []driver.Value) error, args []any) (err error) {
	conn, err := r.conns.take(ctx)
	if err != nil {
		return err
	}
	ok := false
	defer func() { r.conns.done(conn, ok) }() // also if the driver panics
	err = conn.Raw(func(dc any) error {
		q, ok := dc.(driver.QueryerContext)
		if !ok {
			return errIndirect
		}
		named := make([]driver.NamedValue, len(args))
		for i, a := range args {
			named[i] = driver.NamedValue{Ordinal: i + 1, Value: a}
		}
		rows, err := q.QueryContext(ctx, r.text(query), named)
		if errors.Is(err, driver.ErrSkip) {
			return errIndirect
		} else if err != nil {
			return err
		}
		v := make([]driver.Value, len(rows.Columns()))
		for err == nil {
			if err = rows.Next(v); err == nil {
				err = row(v)
			}
		}
		if closed := rows.Close(); err == io.EOF { //nolint:errorlint // as database/sql has it
			err = closed
		}
		// The connection broke while the answer was read. ErrBadConn would say that nothing was sent.
		if errors.Is(err, driver.ErrBadConn) {
			err = fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, errors.New(err.Error()))
		}
		return err
	})
	ok = err == nil
	if err != nil && sqlerr.State(err) == "" && !errors.Is(err, errIndirect) {
		// The error is not the server's, so nobody knows how much of the answer was read: the connection is closed. (lib/pq leaves
		// an answer that it does not understand in its buffer, and the next statement would wait for its end, whatever its context.)
		_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	}
	return err
}

// A driver returns a column as its Go type, or as the text that Postgres sent. The functions below take both.

func asInt(v driver.Value) int64 {
	switch v := v.(type) {
	case int64:
		return v
	case []byte:
		n, _ := strconv.ParseInt(string(v), 10, 64)
		return n
	case string:
		n, _ := strconv.ParseInt(v, 10, 64)
		return n
	}
	return 0
}

func asBool(v driver.Value) bool {
	switch v := v.(type) {
	case bool:
		return v
	case []byte:
		return len(v) > 0 && v[0] == 't'
	case string:
		return v == "t" || v == "true"
	}
	return false
}

func asString(v driver.Value) string {
	switch v := v.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	}
	return ""
}

// asTags reads a JSON array, which every driver returns as text.
func asTags(v driver.Value) (tags []string) {
	if s := asString(v); s != "" {
		_ = json.Unmarshal([]byte(s), &tags) // the server wrote it
	}
	return tags
}

// asBytes copies: the driver may use its buffer again.
func asBytes(v driver.Value) []byte {
	b, _ := v.([]byte)
	return bytes.Clone(b)
}

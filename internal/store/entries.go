package store

import (
	"context"
	"database/sql/driver"

	"github.com/pgcache/go/internal/dbsqlc"
)

// A page has at most pageRows rows, and at most pageBytes of values or one larger value.
const (
	pageRows  = 500
	pageBytes = maxBytes
)

// Entry is a row with all that it has.
type Entry struct {
	Row
	Forever bool // it does not expire
}

// newEntry is a row of GetWholeEntry: the columns of GetEntry, and forever.
func newEntry(key string, v []driver.Value) Entry {
	return Entry{newRow(key, v), asBool(v[6])}
}

// Entry reads one row. A key without a row is the zero Row.
func (s *Store) Entry(ctx context.Context, key string) (Entry, error) {
	return observed(ctx, s, func(ctx context.Context) (Entry, error) {
		return retry(ctx, lost, func() (e Entry, err error) {
			err = s.sql.query(ctx, dbsqlc.GetWholeEntry, func(v []driver.Value) error {
				e = newEntry(key, v)
				return nil
			}, s.Largest, key)
			return e, err
		})
	})
}

// Page is some of the live rows, in the order of keys.
type Page[T any] struct {
	Rows []T
	Last string // the next page begins after this key; "": there is no next page
}

// KeysPage returns the next live keys that are at least start, after a key; after is "" for the first page.
func (s *Store) KeysPage(ctx context.Context, start, after string) (Page[string], error) {
	return observed(ctx, s, func(ctx context.Context) (Page[string], error) { return s.keysPage(ctx, start, after) })
}

func (s *Store) keysPage(ctx context.Context, start, after string) (Page[string], error) {
	return retry(ctx, lost, func() (p Page[string], err error) {
		looked := 0
		err = s.sql.query(ctx, dbsqlc.KeysPage, func(v []driver.Value) error {
			looked++
			if p.Last = asString(v[0]); asBool(v[1]) {
				p.Rows = append(p.Rows, p.Last)
			}
			return nil
		}, start, after, int64(pageRows))
		if looked < pageRows {
			p.Last = ""
		}
		return p, err
	})
}

// EntriesPage is KeysPage with all that the rows have.
func (s *Store) EntriesPage(ctx context.Context, start, after string) (Page[Entry], error) {
	return observed(ctx, s, func(ctx context.Context) (Page[Entry], error) { return s.entriesPage(ctx, start, after) })
}

func (s *Store) entriesPage(ctx context.Context, start, after string) (Page[Entry], error) {
	return retry(ctx, lost, func() (p Page[Entry], err error) {
		got, looked := int64(0), int64(0)
		err = s.sql.query(ctx, dbsqlc.EntriesPage, func(v []driver.Value) error {
			got++
			p.Last, looked = asString(v[0]), asInt(v[9])
			if asBool(v[8]) {
				p.Rows = append(p.Rows, newEntry(p.Last, v[1:]))
			}
			return nil
		}, s.Largest, start, after, int64(pageRows), int64(pageBytes))
		if got == looked && looked < pageRows {
			p.Last = ""
		}
		return p, err
	})
}

package store

import (
	"context"
	"database/sql/driver"
	"time"

	"github.com/pgcache/go/internal/dbsqlc"
)

// readSlots is how many reading statements of a node are under way at a time. Callers that come meanwhile share the next one.
const readSlots = 2

// read is a request for the rows of one key or several.
type read struct {
	key  string
	keys []string // instead of key
}

func (r read) weight() int { return max(1, len(r.keys)) }

// Get reads one row. A key without a row is the zero Row, not an error.
func (s *Store) Get(ctx context.Context, key string) (Row, error) {
	rows, err := s.reads.Do(ctx, read{key: key})
	if err != nil {
		return Row{}, err
	}
	return rows[0], nil
}

// GetMany reads many rows in one statement, which sees them all at one moment. The rows come in the order of keys.
func (s *Store) GetMany(ctx context.Context, keys []string) ([]Row, error) {
	return s.reads.Do(ctx, read{keys: keys})
}

func (s *Store) readOne(ctx context.Context, r read) ([]Row, error) {
	if r.keys != nil {
		rows, err := s.readMany(ctx, []read{r})
		if err != nil {
			return nil, err
		}
		return rows[0], nil
	}
	row, err := retry(ctx, lost, func() (row Row, err error) {
		row.Key = r.key
		err = s.sql.query(ctx, dbsqlc.GetEntry, func(v []driver.Value) error {
			row = newRow(r.key, v)
			return nil
		}, s.Largest, r.key)
		return row, err
	})
	if err != nil {
		return nil, err
	}
	return []Row{row}, nil
}

// newRow is a row of GetEntry: version, codec, value, remaining_us, server, tags.
func newRow(key string, v []driver.Value) Row {
	return Row{key, asBytes(v[2]), asInt(v[0]), asString(v[1]), micros(asInt(v[3])), asInt(v[4]), asTags(v[5])}
}

func (s *Store) readMany(ctx context.Context, rs []read) ([][]Row, error) {
	var keys []string
	place := make(map[string]int, len(rs)) // of each key in keys
	add := func(key string) {
		if _, ok := place[key]; !ok {
			place[key] = len(keys)
			keys = append(keys, key)
		}
	}
	for _, r := range rs {
		if r.keys == nil {
			add(r.key)
		}
		for _, key := range r.keys {
			add(key)
		}
	}
	list := textArray(keys)
	rows, err := retry(ctx, lost, func() ([]Row, error) {
		rows := make([]Row, len(keys))
		for i, key := range keys {
			rows[i].Key = key
		}
		var server int64
		err := s.sql.query(ctx, dbsqlc.GetEntries, func(v []driver.Value) error {
			server = asInt(v[5])
			if n := asInt(v[0]) - 1; n >= 0 {
				rows[n] = newRow(keys[n], v[1:])
			}
			return nil
		}, s.Largest, list)
		for i := range rows {
			rows[i].Server = server
		}
		return rows, err
	})
	if err != nil {
		return nil, err
	}
	out := make([][]Row, len(rs))
	for i, r := range rs {
		if r.keys == nil {
			n := place[r.key]
			out[i] = rows[n : n+1 : n+1]
			continue
		}
		out[i] = make([]Row, len(r.keys))
		for j, key := range r.keys {
			out[i][j] = rows[place[key]]
		}
	}
	return out, nil
}

// micros is a duration of us microseconds, or the longest there is.
func micros(us int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Microsecond)
	return time.Duration(min(us, most)) * time.Microsecond
}

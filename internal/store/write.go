package store

import (
	"context"
	"database/sql"
	"slices"

	"github.com/pgcache/go/internal/dbsqlc"
	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/sqlerr"
)

// One writing statement carries at most this.
const (
	maxRows  = 1000
	maxBytes = 8 << 20
	rowBytes = maxBytes / maxRows // what a row weighs at least, so that the one bound keeps both
)

// Written is what came of a request to write.
type Written struct {
	Server int64
	Stored []bool // for each row: always, but for loads
	Logged []bool // for each row: left in the change log, for the next flush
	Told   bool   // the statement told something itself
}

// write is a request to write rows of different keys.
type write struct {
	rows   []Write
	inline bool // tell at once what is to be told
}

func (w write) weight() (sum int) {
	for i := range w.rows {
		sum += max(rowBytes, len(w.rows[i].Value))
	}
	return sum
}

// overlaps says that both write a row.
func (w write) overlaps(other write) bool {
	return slices.ContainsFunc(w.rows, func(a Write) bool {
		return slices.ContainsFunc(other.rows, func(b Write) bool { return a.Key == b.Key })
	})
}

// mayBeOne says of an error that it may concern one row of many.
func mayBeOne(err error) bool { return sqlerr.State(err) != "" && !sqlerr.Connection(err) }

func never(error) bool { return false }

// Put writes rows of different keys and tells them: inline, or through the log. Up to a thousand rows or 8 MiB are one
// statement, all or none; on an error beyond that some may have been done. A statement whose reply is lost is not sent again: the second
// time it would overwrite what was written since.
func (s *Store) Put(ctx context.Context, rows []Write, inline bool) (out Written, err error) {
	for len(rows) > 0 {
		n := 1
		for weight := (write{rows: rows[:1]}).weight(); n < len(rows); n++ {
			if weight += (write{rows: rows[n : n+1]}).weight(); weight > maxBytes {
				break
			}
		}
		part, err := s.writes.Do(ctx, write{rows[:n], inline})
		if err != nil {
			return out, err
		}
		out.Server, out.Told = part.Server, out.Told || part.Told
		out.Stored, out.Logged = append(out.Stored, part.Stored...), append(out.Logged, part.Logged...)
		rows = rows[n:]
	}
	return out, nil
}

func (s *Store) putOne(ctx context.Context, w write) (Written, error) {
	if len(w.rows) > 1 {
		out, err := s.putMany(ctx, []write{w})
		if err != nil {
			return Written{}, err
		}
		return out[0], nil
	}
	row := &w.rows[0]
	arg := dbsqlc.PutEntryParams{
		Key: row.Key, Value: row.Value, Version: row.Version, Codec: row.Codec,
		TtlUs: sql.NullInt64{Int64: row.TTL.Microseconds(), Valid: row.TTL != Never},
		Loud:  row.Loud, Inline: w.inline, Channel: s.Names.Channel, Payload: notify.One(row.Key, row.Version),
	}
	r, err := retry(ctx, notDone, func() (dbsqlc.PutEntryRow, error) {
		return writing(ctx, s, func(q *dbsqlc.Queries) (dbsqlc.PutEntryRow, error) { return q.PutEntry(ctx, arg) })
	})
	return Written{Server: r.Server, Stored: []bool{true}, Logged: []bool{r.Logged}, Told: r.Messages > 0}, err
}

func (s *Store) putMany(ctx context.Context, ws []write) ([]Written, error) {
	// Of several writes of one key the last counts: the others came at the same time and are overwritten at once. A
	// statement can't touch a row twice.
	last := map[string]*Write{}
	inline := false
	for _, w := range ws {
		inline = inline || w.inline
		for i := range w.rows {
			last[w.rows[i].Key] = &w.rows[i]
		}
	}
	var rows []Write
	for _, w := range ws {
		for i := range w.rows {
			if last[w.rows[i].Key] == &w.rows[i] {
				rows = append(rows, w.rows[i])
			}
		}
	}
	p := pack(rows)
	done, err := retry(ctx, notDone, func() ([]dbsqlc.PutEntriesRow, error) {
		return writing(ctx, s, func(q *dbsqlc.Queries) ([]dbsqlc.PutEntriesRow, error) {
			return q.PutEntries(ctx, dbsqlc.PutEntriesParams{
				Keys: p.keys, Versions: p.versions, TtlsUs: p.ttls, Codecs: p.codecs, Louds: p.louds, Sizes: p.sizes,
				Vals: p.values, Inline: inline, Channel: s.Names.Channel,
			})
		})
	})
	if err != nil {
		return nil, err
	}
	logged := make(map[string]bool, len(done))
	var server int64
	told := false
	for _, r := range done {
		logged[r.Key], server, told = r.Logged, r.Server, r.Messages > 0
	}
	out := make([]Written, len(ws))
	for i, w := range ws {
		out[i] = Written{server, make([]bool, len(w.rows)), make([]bool, len(w.rows)), told}
		for j := range w.rows {
			out[i].Stored[j] = true
			out[i].Logged[j] = logged[w.rows[j].Key] && last[w.rows[j].Key] == &w.rows[j]
		}
	}
	return out, nil
}

// Generation is the number that every Clear turns. A load reads it before it begins.
func (s *Store) Generation(ctx context.Context) (int64, error) { return s.q.GetGeneration(ctx) }

// PutLoaded stores what a load brought, of each row only if nothing was written since the load saw its Base, and none
// if a Clear came since Generation.
func (s *Store) PutLoaded(ctx context.Context, rows []Write, inline bool) (Written, error) {
	return s.loads.Do(ctx, write{rows, inline})
}

func (s *Store) loadOne(ctx context.Context, w write) (Written, error) {
	out, err := s.loadMany(ctx, []write{w})
	if err != nil {
		return Written{}, err
	}
	return out[0], nil
}

func (s *Store) loadMany(ctx context.Context, ws []write) ([]Written, error) {
	inline := false
	first := map[string]int64{} // the version of each key that is tried
	var rows []Write
	for _, w := range ws {
		inline = inline || w.inline
		for i := range w.rows {
			// Two loads of one key, one of them begun after a write: whichever goes first, the other is fenced off.
			if _, ok := first[w.rows[i].Key]; !ok {
				first[w.rows[i].Key] = w.rows[i].Version
				rows = append(rows, w.rows[i])
			}
		}
	}
	p := pack(rows)
	done, err := retry(ctx, notDone, func() ([]dbsqlc.StoreLoadedRow, error) {
		return writing(ctx, s, func(q *dbsqlc.Queries) ([]dbsqlc.StoreLoadedRow, error) {
			return q.StoreLoaded(ctx, dbsqlc.StoreLoadedParams{
				Keys: p.keys, Versions: p.versions, Bases: p.bases, Generations: p.generations, TtlsUs: p.ttls, Codecs: p.codecs,
				Louds: p.louds, Sizes: p.sizes, Vals: p.values, Inline: inline, Channel: s.Names.Channel,
			})
		})
	})
	if err != nil {
		return nil, err
	}
	stored := make(map[string]dbsqlc.StoreLoadedRow, len(done))
	for _, r := range done {
		stored[r.Key] = r
	}
	out := make([]Written, len(ws))
	for i, w := range ws {
		out[i] = Written{Stored: make([]bool, len(w.rows)), Logged: make([]bool, len(w.rows))}
		for j, row := range w.rows {
			if r, ok := stored[row.Key]; ok && first[row.Key] == row.Version {
				out[i].Server, out[i].Stored[j], out[i].Logged[j] = r.Server, true, r.Logged
				out[i].Told = r.Messages > 0
			}
		}
	}
	return out, nil
}

package store

import (
	"context"
	"database/sql/driver"
	"slices"
	"strconv"
	"strings"

	"github.com/pgcache/go/internal/batch"
	"github.com/pgcache/go/internal/dbsqlc"
	"github.com/pgcache/go/internal/sqlerr"
)

// The bounds of one writing statement.
const (
	maxRows  = 1000
	maxBytes = 8 << 20
	rowBytes = maxBytes / maxRows // what a row weighs at least, so that maxBytes of weight are at most maxRows
)

// heavyBytes is the size of a value above which its request has a statement of its own, so that no other request waits for it.
const heavyBytes = 256 << 10

// How long a statement waits for a row that another transaction has locked, as its lock_timeout. Other nodes' statements hold rows for
// some milliseconds.
const (
	sharedPatience = "50ms" // a statement that callers share
	triedPatience  = "10ms" // a request that is tried by itself after its shared statement failed
	ownPatience    = ""     // a request that may wait as long as its caller: the session's own lock_timeout
)

// Written is what came of a request to write.
type Written struct {
	Server    int64
	Stored    []bool // for each row: false only where a load was fenced, or a condition did not hold
	Logged    []bool // for each row: its change is in the change log, for the next flush
	Published bool   // the statement itself has published the changes that are not logged
	Released  bool   // the statement has ended the leases of its rows
}

// write is a request to write rows of different keys.
type write struct {
	rows   []Write
	inline bool // publish in the same statement
}

func (w write) weight() (sum int) {
	for i := range w.rows {
		sum += max(rowBytes, len(w.rows[i].Value))
	}
	return sum
}

// heavy says that there is a large value in it.
func (w write) heavy() bool {
	return slices.ContainsFunc(w.rows, func(r Write) bool { return len(r.Value) > heavyBytes })
}

// alone says that the statements for a single row can write it: they have no parameters for tags and for Stale.
func (w *Write) alone() bool { return w.Tags == nil && w.Stale <= 0 }

// ttl is the TTL as the statements for a single row take it: in microseconds, NULL for Never.
func (w *Write) ttl() any {
	if w.TTL == Never {
		return nil
	}
	return w.TTL.Microseconds()
}

// overlaps says that both write a row.
func (w write) overlaps(other write) bool {
	return slices.ContainsFunc(w.rows, func(a Write) bool {
		return slices.ContainsFunc(other.rows, func(b Write) bool { return a.Key == b.Key })
	})
}

// mayConcernOne says of an error that it may concern one row of many.
func mayConcernOne(err error) bool { return sqlerr.State(err) != "" && !sqlerr.Connection(err) }

// Put writes rows of different keys and publishes them: inline, or through the log. Up to maxRows or maxBytes are one
// statement, all or none; on an error beyond that some may have been done. A statement whose reply is lost is not sent
// again: the second time it would overwrite what was written since.
func (s *Store) Put(ctx context.Context, rows []Write, inline bool) (out Written, err error) {
	return inParts(ctx, rows, inline, &s.writes, &s.heavyWrites)
}

// fitting is how many of rows one statement carries: at least the first. rows must not be empty.
func fitting(rows []Write) int {
	weight := 0
	for n := range rows {
		if weight += (write{rows: rows[n : n+1]}).weight(); weight > maxBytes && n > 0 {
			return n
		}
	}
	return len(rows)
}

// inParts sends a request in statements of bounded size, through shared or, where there is a large value, through heavy.
func inParts(ctx context.Context, rows []Write, inline bool, shared, heavy *batch.Queue[write, Written]) (out Written, err error) {
	for len(rows) > 0 {
		n := fitting(rows)
		q, w := shared, write{rows[:n], inline}
		if w.heavy() {
			q = heavy
		}
		part, err := q.Do(ctx, w)
		if err != nil {
			return out, err
		}
		if out.Stored == nil && n == len(rows) {
			return part, nil
		}
		out.Released = part.Released && (out.Stored == nil || out.Released)
		out.Server, out.Published = part.Server, out.Published || part.Published
		out.Stored, out.Logged = append(out.Stored, part.Stored...), append(out.Logged, part.Logged...)
		rows = rows[n:]
	}
	return out, nil
}

// Written.Stored and Written.Logged of a single row. All answers share them, so nobody may write into them.
var yes, no = []bool{true}, []bool{false}

func (s *Store) putOne(ctx context.Context, w write) (Written, error) {
	row := &w.rows[0]
	if len(w.rows) > 1 || !row.alone() {
		return s.putAll(ctx, w, ownPatience)
	}
	query, args := dbsqlc.PutEntry, []any{row.Key, row.Value, row.Version, row.ttl(), row.Codec}
	switch {
	case w.inline:
		query = dbsqlc.PutEntryAndPublish
	case NeverKept(row.Version):
		query = dbsqlc.PutEntryNeverKept
	}
	return retry(ctx, notDone, func() (Written, error) {
		out := Written{Stored: yes, Logged: no}
		err := s.committedRows(ctx, query, func(v []driver.Value) error {
			if out.Server = asInt(v[1]); asBool(v[0]) {
				out.Logged = yes
			}
			out.Published = w.inline && asInt(v[2]) > 0
			return nil
		}, args)
		return out, err
	})
}

func (s *Store) putTry(ctx context.Context, w write) (Written, error) {
	return s.putAll(ctx, w, triedPatience)
}

// putAll writes the rows of one request.
func (s *Store) putAll(ctx context.Context, w write, patience string) (Written, error) {
	out, err := s.put(ctx, []write{w}, patience)
	if err != nil {
		return Written{}, err
	}
	return out[0], nil
}

func (s *Store) putMany(ctx context.Context, ws []write) ([]Written, error) {
	return s.put(ctx, ws, sharedPatience)
}

func (s *Store) put(ctx context.Context, ws []write, patience string) ([]Written, error) {
	inline := slices.ContainsFunc(ws, func(w write) bool { return w.inline })
	rows, last := lastOfEachKey(ws)
	p := pack(rows)
	query, args := dbsqlc.PutEntries, []any{patience, p.values, p.keys, p.versions, p.ttls, p.codecs, p.los, p.sizes, p.tags, p.stales}
	if inline {
		query = dbsqlc.PutEntriesAndPublish
	}
	a, err := retry(ctx, notDone, func() (a putAnswer, err error) {
		err = s.committedRows(ctx, query, func(v []driver.Value) error {
			a = putAnswer{silent: asString(v[0]), server: asInt(v[1]), logged: true}
			if inline {
				a.logged, a.published = asBool(v[2]), asInt(v[3]) > 0
			}
			return nil
		}, args)
		return a, err
	})
	if err != nil {
		return nil, err
	}
	return a.written(ws, last), nil
}

// lastOfEachKey are the writes that count: of several of one key the last, because the others came at the same time and are
// overwritten at once. A statement can't touch a row twice.
func lastOfEachKey(ws []write) (rows []*Write, last map[string]*Write) {
	last = make(map[string]*Write, len(ws))
	for _, w := range ws {
		for i := range w.rows {
			last[w.rows[i].Key] = &w.rows[i]
		}
	}
	rows = make([]*Write, 0, len(last))
	for _, w := range ws {
		for i := range w.rows {
			if last[w.rows[i].Key] == &w.rows[i] {
				rows = append(rows, &w.rows[i])
			}
		}
	}
	return rows, last
}

// putAnswer is what a statement of many rows answers.
type putAnswer struct {
	silent    string // the versions of rows that are not published, because no node can hold what they replaced
	server    int64
	logged    bool // all other rows are in the change log
	published bool
}

// written is what came of each request. last are the rows that were written.
func (a putAnswer) written(ws []write, last map[string]*Write) []Written {
	silent := map[int64]bool{}
	for v := range strings.SplitSeq(a.silent, ",") {
		if version, err := strconv.ParseInt(v, 10, 64); err == nil {
			silent[version] = true
		}
	}
	n := 0
	for _, w := range ws {
		n += len(w.rows)
	}
	out := make([]Written, len(ws))
	stored, logged := slices.Repeat(yes, n), make([]bool, n)
	for i, w := range ws {
		m := len(w.rows)
		out[i] = Written{Server: a.server, Stored: stored[:m:m], Logged: logged[:m:m], Published: a.published}
		stored, logged = stored[m:], logged[m:]
		for j := range w.rows {
			row := &w.rows[j]
			out[i].Logged[j] = a.logged && last[row.Key] == row && !silent[row.Version]
		}
	}
	return out
}

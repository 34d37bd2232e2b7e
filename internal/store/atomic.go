package store

import (
	"context"
	"database/sql/driver"
	"time"

	"github.com/pgcache/go/internal/batch"
	"github.com/pgcache/go/internal/dbsqlc"
	"github.com/pgcache/go/internal/sqlerr"
)

// atomicSlots is how many conditional writes of a node are under way at a time, each in a statement of its own.
const atomicSlots = 4

// change is what a conditional write does.
type change int

const (
	putAbsent change = iota // writes the row if none is live
	replace                 // overwrites a live row whose version is still Fence
	touch                   // gives a live row the TTL and the version; its value stays
)

// conditional is a request to write one row, which depends on what is there.
type conditional struct {
	row    Write
	change change
	inline bool
}

func (c conditional) overlaps(other conditional) bool { return c.row.Key == other.row.Key }

func (s *Store) conditionals(timeout, patience time.Duration) batch.Queue[conditional, Written] {
	return batch.Queue[conditional, Written]{
		Slots: atomicSlots, Timeout: timeout, Patience: patience, LockWaits: lockWaits, MaxWeight: 1, Overlap: conditional.overlaps,
		Apart: mayConcernOne, Locked: sqlerr.Locked, Late: s.sql.conns.late,
		One: func(ctx context.Context, c conditional) (Written, error) { return s.putIf(ctx, c, ownPatience) },
		Try: func(ctx context.Context, c conditional) (Written, error) { return s.putIf(ctx, c, triedPatience) },
		Many: func(ctx context.Context, cs []conditional) ([]Written, error) { // of one: see MaxWeight
			out, err := s.putIf(ctx, cs[0], sharedPatience)
			return []Written{out}, err
		},
	}
}

// PutAbsent writes a row unless a live one is there: Stored says whether it did. Like all writes it is not sent again where the
// reply was lost.
func (s *Store) PutAbsent(ctx context.Context, row Write, inline bool) (Written, error) {
	return s.conditional.Do(ctx, conditional{row, putAbsent, inline})
}

// Replace overwrites a live row whose version is still row.Fence: Stored says whether it did.
func (s *Store) Replace(ctx context.Context, row Write, inline bool) (Written, error) {
	return s.conditional.Do(ctx, conditional{row, replace, inline})
}

// Touch gives a live row the TTL and the version of row: Stored says whether there was one.
func (s *Store) Touch(ctx context.Context, row Write, inline bool) (Written, error) {
	return s.conditional.Do(ctx, conditional{row, touch, inline})
}

func (s *Store) putIf(ctx context.Context, c conditional, patience string) (Written, error) {
	row := &c.row
	var ttl, stale any
	if row.TTL != Never {
		if ttl = row.TTL.Microseconds(); row.Stale > 0 {
			stale = row.Stale.Microseconds()
		}
	}
	tags := ""
	if row.Tags != nil {
		tags = textArray(row.Tags)
	}
	var query string
	var args []any
	switch c.change {
	case putAbsent:
		query, args = dbsqlc.PutAbsent, []any{patience, row.Key, row.Value, row.Version, ttl, row.Codec, tags, stale, c.inline}
	case replace:
		query, args = dbsqlc.ReplaceEntry, []any{patience, row.Value, row.Version, ttl, row.Codec, tags, stale, row.Key, row.Fence, c.inline}
	case touch:
		query, args = dbsqlc.TouchEntry, []any{patience, row.Version, ttl, row.Key, c.inline}
	}
	return retry(ctx, notDone, func() (out Written, err error) {
		err = s.committedRows(ctx, query, func(v []driver.Value) error {
			out = Written{Stored: no, Logged: no, Published: asInt(v[2]) > 0, Server: asInt(v[3])}
			if asInt(v[0]) > 0 {
				out.Stored = yes
			}
			if asBool(v[1]) {
				out.Logged = yes
			}
			return nil
		}, args)
		return out, err
	})
}

// Increment is a request to add Delta to the counter of a row, whose value and codec it does not need.
type Increment struct {
	Write
	Delta int64
	Alone bool // share no statement: a sum of several may leave 64 bits where each by itself would not
}

// Incremented is what came of it. Stored is false where the row is no counter, or the number would leave 64 bits; in a shared
// statement that may be because of the others.
type Incremented struct {
	Written
	N int64
}

// increment is an Increment in its queue.
type increment struct {
	Increment
	inline bool
}

func (i increment) overlaps(other increment) bool { return i.Key == other.Key }

func (i increment) weight() int {
	if i.Alone {
		return maxRows
	}
	return 1
}

// counters returns the queue of increments. Those that share a statement and a counter are one row of the statement.
func (s *Store) counters(timeout, patience time.Duration) batch.Queue[increment, Incremented] {
	alone := func(patience string) func(context.Context, increment) (Incremented, error) {
		return func(ctx context.Context, i increment) (Incremented, error) {
			out, err := s.incrementAll(ctx, []increment{i}, patience)
			if err != nil {
				return Incremented{}, err
			}
			return out[0], nil
		}
	}
	return batch.Queue[increment, Incremented]{
		Slots: 1, Timeout: timeout, Patience: patience, LockWaits: lockWaits, MaxWeight: maxRows, Weight: increment.weight, Overlap: increment.overlaps,
		Apart: mayConcernOne, Locked: sqlerr.Locked, Late: s.sql.conns.late, One: alone(ownPatience), Try: alone(triedPatience),
		Many: func(ctx context.Context, is []increment) ([]Incremented, error) {
			return s.incrementAll(ctx, is, sharedPatience)
		},
	}
}

// Increment adds to a counter. Where the reply is lost it is not sent again: it would count twice.
func (s *Store) Increment(ctx context.Context, i Increment, inline bool) (Incremented, error) {
	return s.increments.Do(ctx, increment{i, inline})
}

// tally is one row of the statement: the sum of all increments of one counter.
type tally struct {
	first *increment // whose TTL and tags a new counter gets
	last  int64      // the version that the row gets: that of the last increment
	sum   int64
	parts []int // the indexes of its requests
}

// add adds request i, unless the sum would leave 64 bits: then it does nothing and returns false.
func (t *tally) add(i int, of *increment) bool {
	sum := t.sum + of.Delta
	if of.Delta > 0 && sum < t.sum || of.Delta < 0 && sum > t.sum {
		return false
	}
	t.sum, t.last, t.parts = sum, of.Version, append(t.parts, i)
	return true
}

func (s *Store) incrementAll(ctx context.Context, is []increment, patience string) ([]Incremented, error) {
	out := make([]Incremented, len(is))
	tallies := make(map[string]*tally, len(is))
	var rows []*tally
	inline := false
	for i := range is {
		out[i].Written = Written{Stored: no, Logged: no}
		inline = inline || is[i].inline
		t := tallies[is[i].Key]
		if t == nil {
			t = &tally{first: &is[i]}
			tallies[is[i].Key], rows = t, append(rows, t)
		}
		t.add(i, &is[i]) // what is not added is not Stored, and its caller sends it again with Alone
	}
	writes := make([]*Write, len(rows))
	for i, t := range rows {
		w := t.first.Write
		w.Version, writes[i] = t.last, &w
	}
	p := pack(writes)
	deltas := numberArray(rows, func(t *tally) int64 { return t.sum })
	type number struct {
		n      int64
		logged bool
	}
	type answer struct {
		numbers   map[int64]number // by version
		published bool
		server    int64
	}
	a, err := retry(ctx, notDone, func() (a answer, err error) {
		a.numbers = make(map[int64]number, len(rows))
		err = s.committedRows(ctx, dbsqlc.Increment, func(v []driver.Value) error {
			if version := asInt(v[0]); version != 0 {
				a.numbers[version] = number{asInt(v[1]), asBool(v[2])}
			}
			a.published, a.server = asInt(v[3]) > 0, asInt(v[4])
			return nil
		}, []any{patience, p.keys, p.versions, deltas, p.ttls, p.tags, p.stales, inline})
		return a, err
	})
	if err != nil {
		return nil, err
	}
	for _, t := range rows {
		done, ok := a.numbers[t.last]
		if !ok {
			continue
		}
		numbers := split(done.n, t, is)
		for j, i := range t.parts {
			out[i].N = numbers[j]
			out[i].Written = Written{Server: a.server, Stored: yes, Logged: no, Published: a.published}
			if done.logged && is[i].Version == t.last {
				out[i].Logged = yes
			}
		}
	}
	return out, nil
}

// split returns the number for each part of t, as if they had been added one after the other and n was the last number. It takes them
// in an order in which no number leaves 64 bits: from a number above zero any negative delta can be added, from another any positive.
func split(n int64, t *tally, is []increment) []int64 {
	numbers := make([]int64, len(t.parts))
	var up, down []int
	for j, i := range t.parts {
		if is[i].Delta >= 0 {
			up = append(up, j)
		} else {
			down = append(down, j)
		}
	}
	// The number before. Unsigned, because n and the sum may be so far apart that the difference wraps around.
	at := int64(uint64(n) - uint64(t.sum))
	for len(up)+len(down) > 0 {
		next := &up
		if len(up) == 0 || at > 0 && len(down) > 0 {
			next = &down
		}
		j := (*next)[0]
		*next = (*next)[1:]
		at += is[t.parts[j]].Delta
		numbers[j] = at
	}
	return numbers
}

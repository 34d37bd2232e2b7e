package store

import (
	"cmp"
	"context"
	"database/sql/driver"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgcache/go/internal/batch"
	"github.com/pgcache/go/internal/dbsqlc"
	"github.com/pgcache/go/internal/panics"
	"github.com/pgcache/go/internal/sqlerr"
)

// LeaseTerm is how long a lease lasts that is not renewed.
const LeaseTerm = 10 * time.Second

// Lease is the right of one process to load a key, or a list of keys. The zero Lease is none.
type Lease struct {
	ID    int64 // a hash of the key or the list, never 0
	Owner int64 // random, another one for each lease, never 0
	Was   int64 // an earlier owner that it may replace, 0: none
}

// LeaseAsk asks for leases, and for a look at rows.
type LeaseAsk struct {
	Keys   []string
	Leases []Lease // of different IDs
	Of     []int   // for each key: which of Leases is its own, counted from 1; 0: none; with a minus sign: wanted even if the row is live
	Stale  bool    // return values too that have expired and may still be handed out
}

// Leased is the answer.
type Leased struct {
	Got []bool // for each key: its lease was taken
	Looked
}

// LeaseAndLook takes leases and then looks, in one statement that it shares with others who ask at the same time. So a caller may get
// stale values that only another one has asked for. After an error some of the leases may be held.
func (s *Store) LeaseAndLook(ctx context.Context, ask LeaseAsk) (Leased, error) {
	return s.leases.Do(ctx, ask)
}

func (s *Store) leaseQueue(timeout, patience time.Duration) batch.Queue[LeaseAsk, Leased] {
	return batch.Queue[LeaseAsk, Leased]{
		Slots: leaseSlots, Timeout: timeout, Patience: patience, LockWaits: lockWaits, MaxWeight: maxRows,
		Weight: func(a LeaseAsk) int { return len(a.Keys) },
		// A lock on the table of leases concerns all requests: each by itself would wait for it again.
		Apart: func(err error) bool { return mayConcernOne(err) && !sqlerr.Locked(err) },
		Late:  s.sql.conns.late,
		One: func(ctx context.Context, a LeaseAsk) (Leased, error) {
			out, err := s.leaseMany(ctx, []LeaseAsk{a})
			if err != nil {
				return Leased{}, err
			}
			return out[0], nil
		},
		Many: s.leaseMany,
	}
}

// leaseSlots is how many statements of a node that take leases are under way at a time.
const leaseSlots = 2

func (s *Store) leaseMany(ctx context.Context, asks []LeaseAsk) ([]Leased, error) {
	var keys []string
	var leases []Lease
	var of []int
	stale := false
	for _, a := range asks {
		for _, n := range a.Of {
			switch {
			case n > 0:
				n += len(leases)
			case n < 0:
				n -= len(leases)
			}
			of = append(of, n)
		}
		keys, leases, stale = append(keys, a.Keys...), append(leases, a.Leases...), stale || a.Stale
	}
	// Sent again it takes what it has taken: the owner is the same.
	all, err := retry(ctx, lost, func() (all Leased, err error) {
		err = s.readCommitted(ctx, func(r *rendering) error {
			all = Leased{Got: make([]bool, len(keys)), Looked: Looked{Rows: make([]Row, len(keys))}}
			return r.query(ctx, dbsqlc.LeaseAndLook, func(v []driver.Value) error {
				if n := asInt(v[0]) - 1; n >= 0 {
					all.Got[n] = asString(v[10]) == "1"
					all.add(keys, v)
				}
				return nil
			}, textArray(keys), numberArray(of, func(n int) int64 { return int64(n) }),
				leaseIDs(leases), leaseOwners(leases), numberArray(leases, func(l Lease) int64 { return l.Was }), LeaseTerm.Microseconds(), s.Largest, stale)
		})
		return all, err
	})
	if err == nil && all.Incarnation == 0 && len(keys) > 0 {
		var made bool
		if made, err = s.incarnate(ctx, s.q); made {
			all.Looked, err = s.Look(ctx, keys, stale)
		}
	}
	if err != nil {
		return nil, err
	}
	out := make([]Leased, len(asks))
	for i, a := range asks {
		n := len(a.Keys)
		out[i] = Leased{all.Got[:n:n], Looked{all.Rows[:n:n], all.Incarnation, all.At, all.Snapshot}}
		all.Got, all.Rows = all.Got[n:], all.Rows[n:]
	}
	return out, nil
}

// RenewLeases makes leases last for a LeaseTerm from now, and returns the IDs of those that still were their owners'.
func (s *Store) RenewLeases(ctx context.Context, leases []Lease) (kept []int64, err error) {
	defer panics.Recover(&err)
	leases = inOrder(leases)
	params := dbsqlc.RenewLeasesParams{Ids: leaseIDs(leases), Owners: leaseOwners(leases), TermUs: LeaseTerm.Microseconds()}
	list, err := retry(ctx, lost, func() (string, error) {
		return committedQuery(ctx, s, func(q *dbsqlc.Queries) (string, error) { return q.RenewLeases(ctx, params) })
	})
	for id := range strings.SplitSeq(list, ",") {
		if n, err := strconv.ParseInt(id, 10, 64); err == nil {
			kept = append(kept, n)
		}
	}
	return kept, err
}

// ReleaseLeases ends those leases that still are their owners'.
func (s *Store) ReleaseLeases(ctx context.Context, leases []Lease) (err error) {
	defer panics.Recover(&err)
	leases = inOrder(leases)
	params := dbsqlc.ReleaseLeasesParams{Ids: leaseIDs(leases), Owners: leaseOwners(leases)}
	_, err = retry(ctx, lost, func() (struct{}, error) {
		return committedQuery(ctx, s, func(q *dbsqlc.Queries) (struct{}, error) { return struct{}{}, q.ReleaseLeases(ctx, params) })
	})
	return err
}

// DropLeases removes at most batch rows of leases that ended more than a minute ago, or that a step of the clock has made void.
func (s *Store) DropLeases(ctx context.Context, batch int) (int64, error) {
	return retry(ctx, lost, func() (int64, error) { return s.q.DropLeases(ctx, int64(batch)) })
}

// inOrder sorts leases by ID, the order in which all statements lock their rows, so that no two wait for each other.
func inOrder(leases []Lease) []Lease {
	return slices.SortedFunc(slices.Values(leases), func(a, b Lease) int { return cmp.Compare(a.ID, b.ID) })
}

func leaseIDs(leases []Lease) string {
	return numberArray(leases, func(l Lease) int64 { return l.ID })
}

func leaseOwners(leases []Lease) string {
	return numberArray(leases, func(l Lease) int64 { return l.Owner })
}

// leasesOf are the leases that end with the statement of ws.
func leasesOf(ws []write) (ids, owners string) {
	var leases []Lease
	for _, w := range ws {
		for i := range w.rows {
			if l := w.rows[i].Lease; l.ID != 0 && !slices.Contains(leases, l) {
				leases = append(leases, l)
			}
		}
	}
	if leases == nil {
		return "", ""
	}
	leases = inOrder(leases)
	return leaseIDs(leases), leaseOwners(leases)
}

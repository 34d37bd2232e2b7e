package store

import (
	"context"
	"time"

	"github.com/pgcache/go/internal/dbsqlc"
	"github.com/pgcache/go/internal/sqlerr"
)

// Incarnation returns the incarnation of the tables, which Clear, TRUNCATE and a crash of the server change, and the database's time.
// Where a crash has removed the incarnation it makes another. 0: none can be made yet, see Recovered.
func (s *Store) Incarnation(ctx context.Context) (id int64, now time.Duration, err error) {
	r, err := s.q.GetIncarnation(ctx)
	if err == nil && r.Incarnation == 0 {
		r.Incarnation, err = s.q.NewIncarnation(ctx)
	}
	return r.Incarnation, time.Duration(r.NowUs) * time.Microsecond, err
}

// incarnateEvery is how often the loads of a process ask for an incarnation where none can be made: to answer, the server searches its
// whole lock table.
const incarnateEvery = time.Second

// incarnate makes an incarnation for a load that has found none, and says whether there is one now.
func (s *Store) incarnate(ctx context.Context, q *dbsqlc.Queries) (made bool, err error) {
	asked := s.incarnated.Load()
	if asked != nil && time.Since(*asked) < incarnateEvery {
		return false, nil
	}
	id, err := q.NewIncarnation(ctx)
	if err == nil && id == 0 {
		now := time.Now()
		s.incarnated.Store(&now)
	}
	return id != 0, err
}

// LoadGrace is how long after the look of its load a value may still be stored, by the database's clock. Tombstones live longer, so a
// Delete since the look has left one.
const LoadGrace = 4*time.Minute + 10*time.Second

// PutLoaded stores what a load brought: each row only if nothing was written since the load saw its Fence and no group of it was
// removed since Snapshot, and none if a Clear, a TRUNCATE or a crash came since Incarnation was read. Like Put it sends a statement
// for every maxRows or maxBytes.
func (s *Store) PutLoaded(ctx context.Context, rows []Write, inline bool) (Written, error) {
	return inParts(ctx, rows, inline, &s.loads, &s.heavyLoads)
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
	var rows []*Write
	for _, w := range ws {
		inline = inline || w.inline
		for i := range w.rows {
			// Of two loads of one key only the first is sent, and the other counts as fenced: one at most could be stored.
			if _, ok := first[w.rows[i].Key]; !ok {
				first[w.rows[i].Key] = w.rows[i].Version
				rows = append(rows, &w.rows[i])
			}
		}
	}
	p := pack(rows)
	fences, incarnations, looked, publishNew, snapshots, leftTags := packLoads(rows)
	ids, owners := leasesOf(ws)
	send := func() ([]dbsqlc.StoreLoadedRow, error) {
		return committedQuery(ctx, s, func(q *dbsqlc.Queries) ([]dbsqlc.StoreLoadedRow, error) {
			return q.StoreLoaded(ctx, dbsqlc.StoreLoadedParams{
				Keys: p.keys, Versions: p.versions, Fences: fences, Incarnations: incarnations, TtlsUs: p.ttls, Codecs: p.codecs,
				LookedUs: looked, GraceUs: LoadGrace.Microseconds(), Leases: ids, Owners: owners, PublishNew: publishNew, Sizes: p.sizes, Tags: p.tags, StalesUs: p.stales, Vals: p.values, Snapshots: snapshots, LeftTags: leftTags, Inline: inline,
			})
		})
	}
	done, err := retry(ctx, notDone, send)
	if sqlerr.Locked(err) && ids != "" {
		ids, owners = "", "" // somebody may have locked the table of leases, which is no reason not to store
		done, err = retry(ctx, notDone, send)
	}
	if err != nil {
		return nil, err
	}
	stored := make(map[string]dbsqlc.StoreLoadedRow, len(done))
	for _, r := range done {
		stored[r.Key] = r
	}
	out := make([]Written, len(ws))
	for i, w := range ws {
		out[i] = Written{Stored: make([]bool, len(w.rows)), Logged: make([]bool, len(w.rows)), Released: ids != ""}
		for j, row := range w.rows {
			if r, ok := stored[row.Key]; ok && first[row.Key] == row.Version {
				out[i].Server, out[i].Stored[j], out[i].Logged[j] = r.Server, true, r.Logged
				out[i].Published = r.Messages > 0
			}
		}
	}
	return out, nil
}

package store

import (
	"context"
	"strconv"
	"strings"

	"github.com/pgcache/go/internal/dbsqlc"
)

// GroupKind says what the name of a group stands for.
type GroupKind string

// A Tag is all rows that have it, a Prefix all rows whose keys begin with it.
const (
	Tag    GroupKind = "t"
	Prefix GroupKind = "p"
)

// Removed is what came of a removal of groups.
type Removed struct {
	TxWritten
	IDs []int64 // of the removal records; the notification names them
}

// Remove removes groups, whatever they hold, and publishes it inline. It inserts a removal record for each, and waits for nobody. It
// needs READ COMMITTED to delete the groups' older records.
func (s *Store) Remove(ctx context.Context, kind GroupKind, names []string) (Removed, error) {
	return retry(ctx, notDone, func() (Removed, error) {
		return committedQuery(ctx, s, func(q *dbsqlc.Queries) (Removed, error) { return remove(ctx, q, kind, names, true) })
	})
}

// RemoveTx is Remove in a transaction of the caller's. With the commit the removal is in the change log, or the commit notifies where
// inline is set.
func (s *Store) RemoveTx(ctx context.Context, tx Querier, kind GroupKind, names []string, inline bool) (Removed, error) {
	return remove(ctx, s.with(unprepared{tx}), kind, names, inline)
}

func remove(ctx context.Context, q *dbsqlc.Queries, kind GroupKind, names []string, inline bool) (out Removed, err error) {
	r, err := q.RemoveGroups(ctx, dbsqlc.RemoveGroupsParams{Kind: string(kind), Names: textArray(names), Inline: inline})
	if err != nil {
		return out, err
	}
	out.XID, out.Server = r.Xid, r.Server
	for id := range strings.SplitSeq(strings.Trim(r.Ids, "{}"), ",") {
		if n, err := strconv.ParseInt(id, 10, 64); err == nil {
			out.IDs = append(out.IDs, n)
		}
	}
	return out, nil
}

// Retiring returns the transaction id before which removal records may be deleted, for Retire, once a pass of Bury over the whole table
// has left no dead row. "0": none may.
func (s *Store) Retiring(ctx context.Context) (ended string, err error) {
	return retry(ctx, lost, func() (string, error) { return s.q.RetiringGroups(ctx) })
}

// Bury removes at most batch dead rows, which are those of removed groups, from the ExpireBlocks blocks that begin with first. left is
// how many of those that it found are still there, because somebody has locked them.
func (s *Store) Bury(ctx context.Context, first int64, batch int) (removed, left int64, err error) {
	r, err := retry(ctx, lost, func() (dbsqlc.BuryEntriesRow, error) {
		return s.q.BuryEntries(ctx, dbsqlc.BuryEntriesParams{FirstBlock: first, Blocks: ExpireBlocks, Batch: int32(batch)})
	})
	return r.Removed, r.LeftOver, err
}

// Retire deletes at most batch removal records that are older than the transaction id ended, which Retiring has returned.
func (s *Store) Retire(ctx context.Context, ended string, batch int) (int64, error) {
	return retry(ctx, lost, func() (int64, error) {
		return s.q.RetireGroups(ctx, dbsqlc.RetireGroupsParams{Ended: ended, Batch: int64(batch)})
	})
}

// MarkGroups sets the sequence that anyRemoval reads: statements look for removal records no more once VACUUM has emptied their table.
// It runs VACUUM itself where the role may and no record is left, which blocks nobody.
func (s *Store) MarkGroups(ctx context.Context) error {
	leftover, err := s.q.LeftoverGroups(ctx)
	if err == nil && leftover {
		err = s.q.VacuumGroups(ctx)
	}
	if err != nil {
		return err
	}
	return s.q.MarkGroups(ctx)
}

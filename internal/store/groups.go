package store

import (
	"context"
	"strconv"
	"strings"

	"github.com/pgcache/go/internal/dbsqlc"
)

// GroupKind says what the name of a group is.
type GroupKind string

// A tag, or what keys begin with.
const (
	Tag    GroupKind = "t"
	Prefix GroupKind = "p"
)

// Removed is what came of a removal of groups.
type Removed struct {
	TxWritten
	IDs []int64 // of the records, which the notification names
}

// Remove removes groups, whatever they hold, and publishes it. It waits for nobody. Older records of the groups can be replaced in a
// READ COMMITTED session alone.
func (s *Store) Remove(ctx context.Context, kind GroupKind, names []string) (Removed, error) {
	return retry(ctx, notDone, func() (Removed, error) {
		return committedQuery(ctx, s, func(q *dbsqlc.Queries) (Removed, error) { return remove(ctx, q, kind, names, true) })
	})
}

// RemoveTx does it in a transaction of the caller's: with its commit the log has it, or with inline it notifies.
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

// Retiring returns up to which transaction the records of removals may be retired once no row of theirs is left; "0": none.
func (s *Store) Retiring(ctx context.Context) (ended string, err error) {
	return retry(ctx, lost, func() (string, error) { return s.q.RetiringGroups(ctx) })
}

// Bury removes at most batch rows of removed groups from the ExpireBlocks blocks that begin with first, and says how many of
// those that it found are left, because somebody has locked them.
func (s *Store) Bury(ctx context.Context, first int64, batch int) (removed, left int64, err error) {
	r, err := retry(ctx, lost, func() (dbsqlc.BuryEntriesRow, error) {
		return s.q.BuryEntries(ctx, dbsqlc.BuryEntriesParams{FirstBlock: first, Blocks: ExpireBlocks, Batch: int32(batch)})
	})
	return r.Removed, r.LeftOver, err
}

// Retire removes at most batch records of removals from before the transaction ended, see Retiring.
func (s *Store) Retire(ctx context.Context, ended string, batch int) (int64, error) {
	return retry(ctx, lost, func() (int64, error) {
		return s.q.RetireGroups(ctx, dbsqlc.RetireGroupsParams{Ended: ended, Batch: int64(batch)})
	})
}

// MarkGroups lets statements leave out the look for records where there is none any more, once VACUUM has emptied their table. Where
// the role may, it runs VACUUM, which blocks nobody.
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

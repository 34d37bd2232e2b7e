package store

import (
	"context"
	"errors"
	"time"

	"github.com/pgcache/go/internal/dbsqlc"
	"github.com/pgcache/go/internal/sqlerr"
)

// Clear removes every row, fences the loads that began before, and publishes that everything is to be forgotten. It holds no
// transaction open, and no lock that writers would wait behind for long: it empties the table at once where nobody is
// reading it (a dump, a report), and in batches otherwise. Where it fails half way, loads are fenced and "everything" is published
// all the same.
func (s *Store) Clear(ctx context.Context) error {
	_, err := retry(ctx, notDone, func() (struct{}, error) { return struct{}{}, s.q.TruncateEntries(ctx) })
	if !sqlerr.Locked(err) && !sqlerr.Denied(err) {
		return err
	}
	return s.clearRows(ctx) // somebody is reading it, or we may not
}

// clearRows is Clear in batches. It removes what was written before it began, and no more:
//
//	clearRows begins        load looks        Set        if this row went, nothing would keep
//	                                                     the load from storing what is older
func (s *Store) clearRows(ctx context.Context) (err error) {
	defer func() {
		// Nodes must forget whatever was removed, also if an error ends this.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
		defer cancel()
		_, published := retry(ctx, notDone, func() (struct{}, error) { return struct{}{}, s.q.PublishAll(ctx) })
		err = errors.Join(err, published)
	}()
	// What a load from before stores meanwhile must go too, so it is fenced before the moment is read. Without that:
	//
	//	load looks        moment        waits for a transaction
	//	                                StoreLoaded: written later than the moment, it stays
	//	                                incarnation 2
	err = s.FenceLoads(ctx)
	var until int64
	if err == nil {
		until, err = retry(ctx, lost, func() (int64, error) { return s.q.Now(ctx) })
	}
	if err == nil {
		err = s.fenceFrom(ctx, ctx)
	}
	if err != nil {
		return err
	}
	for {
		n, err := retry(ctx, lost, func() (int64, error) {
			return s.q.ClearEntries(ctx, dbsqlc.ClearEntriesParams{UntilUs: until, Batch: clearBatch})
		})
		if err != nil {
			return err
		}
		if n == clearBatch {
			continue
		}
		// What is left is locked by somebody. After each row that came free, and after each timeout, the others are tried
		// again: they may have come free meanwhile.
		n, err = retry(ctx, lost, func() (int64, error) { return s.q.ClearEntryWaiting(ctx, until) })
		if err == nil && n == 0 {
			return nil
		}
		if err != nil && !sqlerr.Locked(err) {
			return err
		}
	}
}

const (
	publishTimeout = time.Second
	clearBatch     = 5000
)

// FenceLoads changes the incarnation, so that no load that has begun can store any more, and waits for the writing statements that
// are under way, which may not see it yet:
//
//	StoreLoaded: incarnation is still 1         incarnation 2
//	StoreLoaded: inserts the row                what is there is deleted
func (s *Store) FenceLoads(ctx context.Context) error { return s.fenceIn(ctx, ctx) }

// fenceIn is FenceLoads that waits for the writers as long as waiting lasts.
func (s *Store) fenceIn(ctx, waiting context.Context) error {
	if _, err := retry(ctx, notDone, func() (struct{}, error) { return struct{}{}, s.q.ChangeIncarnation(ctx) }); err != nil {
		return err
	}
	return s.waitForWriters(waiting, running)
}

// fenceFrom is FenceLoads before rows are removed that were written before the call, without tombstones. A load may not have seen them:
//
//	load begins, no row      Set      the row is removed      load stores what is older than the Set
//
// Transactions that have written such rows, prepared ones too, must have ended before the incarnation changes:
//
//	transaction: Set          incarnation 2      a load begins: no row, incarnation 2
//	COMMIT                    the row is removed                               the load stores what is older than the Set
//
// It waits for writers as long as waiting lasts.
func (s *Store) fenceFrom(ctx, waiting context.Context) error {
	if err := s.waitForWriters(waiting, withPrepared); err != nil {
		return err
	}
	return s.fenceIn(ctx, waiting)
}

// fenceWait is how long Fence waits for those who write: its callers do something else, or try later, where that is too short.
const fenceWait = 100 * time.Millisecond

// Fence fences the loads that have begun, so that rows that were written before the call may be removed. fenced is false where writers
// took longer than fenceWait.
func (s *Store) Fence(ctx context.Context) (fenced bool, err error) {
	limited, cancel := context.WithTimeout(ctx, fenceWait)
	defer cancel()
	if err := s.fenceFrom(ctx, limited); err != nil && limited.Err() == nil {
		return false, err
	}
	return limited.Err() == nil, ctx.Err()
}

// FenceExpired fences the loads that have begun, if there are expired rows that may go only after that: they expired less than grace ago,
// or their transaction may have ended lately. until is the database's time before that, in microseconds since 1970. fenced is false
// where there are no such rows, or where writers took longer than fenceWait.
func (s *Store) FenceExpired(ctx context.Context, grace time.Duration) (until int64, fenced bool, err error) {
	r, err := retry(ctx, lost, func() (dbsqlc.JustExpiredRow, error) { return s.q.JustExpired(ctx, grace.Microseconds()) })
	if err != nil || !r.Lately {
		return r.NowUs, false, err
	}
	fenced, err = s.Fence(ctx)
	return r.NowUs, fenced, err
}

// Ago returns the moment of the database's clock that was d ago, in microseconds.
func (s *Store) Ago(ctx context.Context, d time.Duration) (int64, error) {
	now, err := retry(ctx, lost, func() (int64, error) { return s.q.Now(ctx) })
	return now - d.Microseconds(), err
}

// ExpireBlocks is how many blocks of the table one statement looks through for expired rows.
const ExpireBlocks = 64

// Expire removes at most batch rows that had expired by until from the ExpireBlocks blocks that begin with first. fenced says
// that no load can store that began before until.
func (s *Store) Expire(ctx context.Context, first, until int64, batch int, fenced bool) (int64, error) {
	return retry(ctx, lost, func() (int64, error) {
		return s.q.Expire(ctx, dbsqlc.ExpireParams{FirstBlock: first, Blocks: ExpireBlocks, UntilUs: until, Batch: int32(batch), Fenced: fenced})
	})
}

// NoteEnded notes which transactions have ended. Without a fence, Expire removes rows only of transactions that were noted grace ago.
func (s *Store) NoteEnded(ctx context.Context, grace time.Duration) error {
	_, err := retry(ctx, lost, func() (struct{}, error) { return struct{}{}, s.q.NoteEnded(ctx, grace.Microseconds()) })
	return err
}

// Blocks is the size of the table of entries in blocks.
func (s *Store) Blocks(ctx context.Context) (int64, error) {
	return retry(ctx, lost, func() (int64, error) { return s.q.Blocks(ctx) })
}

// Size returns about how many rows have a value, also expired and dead ones, and how many bytes they take.
func (s *Store) Size(ctx context.Context) (rows, bytes int64, err error) {
	r, err := s.q.Size(ctx)
	return r.RowCount, r.ByteCount, err
}

// TrimPoint is the moment up to which rows must go for the table to keep at most rows and bytes, for Trim.
func (s *Store) TrimPoint(ctx context.Context, rows, bytes int64) (int64, error) {
	return s.q.TrimPoint(ctx, dbsqlc.TrimPointParams{MaxRows: rows, MaxBytes: bytes})
}

// Trim removes at most batch rows written up to point, leaves their keys in the change log, and returns how many they were.
func (s *Store) Trim(ctx context.Context, point int64, batch int) (int64, error) {
	return retry(ctx, notDone, func() (int64, error) {
		return s.q.Trim(ctx, dbsqlc.TrimParams{WrittenUs: point, Batch: int64(batch)})
	})
}

// ClaimSweep says whether this node is the one to remove expired rows in this interval.
func (s *Store) ClaimSweep(ctx context.Context, interval time.Duration) (bool, error) {
	n, err := s.q.ClaimSweep(ctx, interval.Microseconds())
	return n > 0, err
}

// Probe notifies of payload and, behind a ':', the identity of the server that the data connections talk to.
func (s *Store) Probe(ctx context.Context, payload string) error {
	return s.q.Probe(ctx, dbsqlc.ProbeParams{Channel: s.Names.Channel, Nonce: payload})
}

// State is what the schema in the database says of itself.
type State struct {
	Version int
	ID      string // the cache's: its messages carry it
	Channel string
	Hidden  bool // messages name keys by their hashes

	// Encoding is the client_encoding of the session that was asked, if the server would take keys in it for other text than the
	// node means; "" if not.
	Encoding string
}

// State reads it, and notes whether READ COMMITTED is the default of the pool's sessions: see readCommitted.
func (s *Store) State(ctx context.Context) (State, error) {
	r, err := s.q.GetState(ctx)
	if err == nil {
		s.plainWrites.Store(r.Isolation == "read committed" && !s.strict.Load())
	}
	state := State{Version: int(r.SchemaVersion), ID: r.ID, Channel: r.Channel, Hidden: r.HidesKeys}
	if !r.Utf8 {
		state.Encoding = r.Encoding
	}
	return state, err
}

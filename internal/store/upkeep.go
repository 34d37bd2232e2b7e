package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/pgcache/go/internal/dbsqlc"
)

// truncateWait bounds how long a Clear waits to be alone in the table: whoever waits for that lock holds up all others.
const truncateWait = "100ms"

// Clear removes every row, fences the loads that began before, and tells everybody to forget everything, in one
// transaction. It empties the table at once where nobody is reading it for long (a dump, a report), and row by row
// otherwise.
func (s *Store) Clear(ctx context.Context) error {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a Commit it does nothing, before one the first error counts
	q := s.with(tx)
	set := func(name, setting string) error {
		return q.SetLocal(ctx, dbsqlc.SetLocalParams{Name: name, Setting: setting})
	}

	// A fenced store that read the old generation must be done before the rows go:
	//
	//     StoreLoaded: generation is still 1          Clear: generation 2, DELETE
	//     StoreLoaded: inserts the row                commit
	//
	// so wait for the writers and keep new ones out; a statement takes its snapshot after it has its lock.
	if err := q.FenceLoads(ctx); err != nil {
		return err
	}
	if err := q.TurnGeneration(ctx); err != nil {
		return err
	}
	if err := errors.Join(set("pgcache.clearing", "on"), set("lock_timeout", truncateWait)); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "SAVEPOINT pgcache_truncate"); err != nil {
		return err
	}
	if err := q.TruncateEntries(ctx); err != nil {
		if ctx.Err() != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "ROLLBACK TO SAVEPOINT pgcache_truncate"); err != nil {
			return err
		}
		if err := q.DeleteEntries(ctx); err != nil {
			return err
		}
	}
	if err := q.TellAll(ctx, s.Names.Channel); err != nil {
		return err
	}
	return tx.Commit()
}

// FenceSweep turns the generation if rows are about to be removed that expired so lately that a load may have begun
// before they were written:
//
//	load begins, no row      Set, expires      DeleteExpired      load stores what is older than the Set
//
// It is a statement of its own, before the rows go: a store that does not see it sees the rows.
func (s *Store) FenceSweep(ctx context.Context, grace time.Duration) error {
	return s.q.FenceSweep(ctx, grace.Microseconds())
}

// TurnGeneration fences every load that has begun.
func (s *Store) TurnGeneration(ctx context.Context) error { return s.q.TurnGeneration(ctx) }

// DeleteExpired removes at most batch rows that have been expired for grace, and returns how many.
func (s *Store) DeleteExpired(ctx context.Context, grace time.Duration, batch int) (int64, error) {
	return s.q.DeleteExpired(ctx, dbsqlc.DeleteExpiredParams{GraceUs: grace.Microseconds(), Batch: int64(batch)})
}

// Size is about what the live rows are and take.
func (s *Store) Size(ctx context.Context) (rows, bytes int64, err error) {
	r, err := s.q.Size(ctx)
	return r.RowCount, r.ByteCount, err
}

// TrimPoint is the moment up to which rows must go for the table to keep at most rows and bytes, for Trim.
func (s *Store) TrimPoint(ctx context.Context, rows, bytes int64) (int64, error) {
	return s.q.TrimPoint(ctx, dbsqlc.TrimPointParams{MaxRows: rows, MaxBytes: bytes})
}

// Trim removes at most batch rows written up to point, tells them, and returns how many.
func (s *Store) Trim(ctx context.Context, point int64, batch int) (int64, error) {
	return s.q.Trim(ctx, dbsqlc.TrimParams{WrittenUs: point, Batch: int64(batch)})
}

// ClaimSweep says whether this node is the one to remove expired rows in this interval.
func (s *Store) ClaimSweep(ctx context.Context, interval time.Duration) (bool, error) {
	n, err := s.q.ClaimSweep(ctx, interval.Microseconds())
	return n > 0, err
}

// Probe tells payload and, behind a ':', the identity of the server that the data connections talk to.
func (s *Store) Probe(ctx context.Context, payload string) error {
	return s.q.Probe(ctx, dbsqlc.ProbeParams{Channel: s.Names.Channel, Nonce: payload})
}

// State is what the schema in the database says of itself.
func (s *Store) State(ctx context.Context) (version int, channel string, err error) {
	r, err := s.q.GetState(ctx)
	if err == nil {
		s.plainWrites.Store(r.Isolation == "read committed")
	}
	return int(r.SchemaVersion), r.Channel, err
}

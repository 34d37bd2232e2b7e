package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/pgcache/go/internal/dbsqlc"
	"github.com/pgcache/go/internal/sqlerr"
)

// truncateWait bounds how long a Clear waits to be alone in the table: whoever waits for that lock holds up all others.
const truncateWait = "100ms"

// Clear removes every row, fences the loads that began before, and tells everybody to forget everything, in one
// transaction. It empties the table at once where nobody is reading it for long (a dump, a report), and row by row
// otherwise.
func (s *Store) Clear(ctx context.Context) error {
	_, err := retry(ctx, notDone, func() (struct{}, error) { return struct{}{}, s.clear(ctx) })
	return err
}

func (s *Store) clear(ctx context.Context) error {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a Commit it does nothing, before one the first error counts
	q := s.with(tx)
	set := func(name, setting string) error {
		return q.SetLocal(ctx, dbsqlc.SetLocalParams{Name: name, Setting: setting})
	}

	// A fenced store that read the old incarnation must be done before the rows go:
	//
	//     StoreLoaded: incarnation is still 1         Clear: incarnation 2, DELETE
	//     StoreLoaded: inserts the row                commit
	//
	// so wait for the writers and keep new ones out; a statement takes its snapshot after it has its lock.
	if err := q.FenceLoads(ctx); err != nil {
		return err
	}
	if err := q.TurnIncarnation(ctx); err != nil {
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
	if err := set("lock_timeout", "0"); err != nil {
		return err
	}
	if err := q.PublishAll(ctx); err != nil {
		return err
	}
	return tx.Commit()
}

// Fence turns the incarnation, so that no load that has begun can store any more. It is for removing rows that may have
// been written while a load was under way:
//
//	load begins, no row      Set      the row is removed      load stores what is older than the Set
//
// Like Clear it first waits for the stores that are under way, but not for long: false says that it would have to.
func (s *Store) Fence(ctx context.Context) (fenced bool, err error) {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return false, err
	}
	defer tx.Rollback() //nolint:errcheck // after a Commit it does nothing, before one the first error counts
	q := s.with(tx)
	if err := q.SetLocal(ctx, dbsqlc.SetLocalParams{Name: "lock_timeout", Setting: truncateWait}); err != nil {
		return false, err
	}
	if err := q.FenceLoads(ctx); sqlerr.State(err) == "55P03" {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if err := q.TurnIncarnation(ctx); err != nil {
		return false, err
	}
	return true, tx.Commit()
}

// Expired returns the moment, in microseconds of the database's clock, up to which expired rows may be removed now:
// until now if loads that have begun are fenced from what is removed, else until grace ago.
func (s *Store) Expired(ctx context.Context, grace time.Duration) (until int64, err error) {
	r, err := retry(ctx, lost, func() (dbsqlc.JustExpiredRow, error) { return s.q.JustExpired(ctx, grace.Microseconds()) })
	if err != nil || !r.Lately {
		return r.NowUs, err
	}
	fenced, err := s.Fence(ctx)
	if err != nil || fenced {
		return r.NowUs, err
	}
	return r.NowUs - grace.Microseconds(), nil
}

// ExpiredFor returns the moment that was grace ago.
func (s *Store) ExpiredFor(ctx context.Context, grace time.Duration) (until int64, err error) {
	r, err := s.q.JustExpired(ctx, 0)
	return r.NowUs - grace.Microseconds(), err
}

// DeleteExpired removes at most batch rows that had expired by until, and returns how many.
func (s *Store) DeleteExpired(ctx context.Context, until int64, batch int) (int64, error) {
	return retry(ctx, lost, func() (int64, error) {
		return s.q.DeleteExpired(ctx, dbsqlc.DeleteExpiredParams{UntilUs: until, Batch: int64(batch)})
	})
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
	return retry(ctx, notDone, func() (int64, error) {
		return s.q.Trim(ctx, dbsqlc.TrimParams{WrittenUs: point, Batch: int64(batch)})
	})
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
type State struct {
	Version int
	ID      string // the cache's: its messages carry it
	Channel string
}

// State reads it.
func (s *Store) State(ctx context.Context) (State, error) {
	r, err := s.q.GetState(ctx)
	if err == nil {
		s.plainWrites.Store(r.Isolation == "read committed" && !s.strict.Load())
	}
	return State{int(r.SchemaVersion), r.ID, r.Channel}, err
}

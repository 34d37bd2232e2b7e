package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/pgcache/go/internal/dbsqlc"
)

// flushLock is the second number of the lock that flushes take; the first is the cache's.
const flushLock = -2

// Flushed is what a flush found.
type Flushed struct {
	Changes, Messages int64
	Bytes             int64 // what the log takes on disk, with what VACUUM has not removed yet
}

// ErrFlushing says that another flush is under way: nothing was done, and what that one does not publish is still in the
// change log.
var ErrFlushing = errors.New("another flush is under way")

// Flush empties the change log and publishes what was in it, in one statement. When it returns without an error,
// everything that was committed before it was sent has been published, by it or by another. sender follows the cache's id
// in every message: see notify.Sender.
func (s *Store) Flush(ctx context.Context, sender string) (Flushed, error) {
	return s.flush(ctx, s.db, sender, false)
}

// FlushOn is Flush on a connection of the caller's.
func (s *Store) FlushOn(ctx context.Context, conn *sql.Conn, sender string) (Flushed, error) {
	return s.flush(ctx, conn, sender, false)
}

// DrainLog is a Flush that also truncates the change log, for where VACUUM can't remove the rows that flushes have deleted. It locks the
// log against everybody for some milliseconds, and fails where somebody else holds a lock on it.
func (s *Store) DrainLog(ctx context.Context, sender string) error {
	_, err := s.flush(ctx, s.db, sender, true)
	return err
}

func (s *Store) flush(ctx context.Context, db beginner, sender string, drain bool) (Flushed, error) {
	params := dbsqlc.FlushParams{Class: s.Names.Class(), ID: flushLock, Sender: sender, Drain: drain}
	r, err := s.with(db).Flush(ctx, params)
	if strict(err) {
		err = s.transaction(ctx, db, idleFlushLimit, func(tx *rendering) (err error) {
			r, err = dbsqlc.New(tx).Flush(ctx, params)
			return err
		})
	}
	if err == nil && r.Changes < 0 {
		err = ErrFlushing
	}
	return Flushed{max(r.Changes, 0), r.Messages, r.Bytes}, err
}

// Pending reports whether the change log holds anything.
func (s *Store) Pending(ctx context.Context, db DB) (bool, error) { return s.with(db).Pending(ctx) }

// Oldest returns how long ago the oldest change in the log was made. It is negative if the log is empty.
func (s *Store) Oldest(ctx context.Context) (time.Duration, error) {
	us, err := s.q.Oldest(ctx)
	return time.Duration(us) * time.Microsecond, err
}

// ClaimFlushing makes node the one that flushes for watched tables, until lease has passed. It returns false, and changes nothing, where
// another node is the one.
func (s *Store) ClaimFlushing(ctx context.Context, db DB, node int64, lease time.Duration) (bool, error) {
	n, err := s.with(db).ClaimFlushing(ctx, dbsqlc.ClaimFlushingParams{Node: node, ForUs: lease.Microseconds()})
	return n > 0, err
}

// VacuumLog removes the log's dead rows. It blocks nobody, and does nothing where the role has not the rights of the table's
// owner.
func (s *Store) VacuumLog(ctx context.Context) error {
	if may, err := s.q.MayVacuum(ctx); err != nil || !may {
		return err
	}
	return s.q.VacuumChanges(ctx)
}

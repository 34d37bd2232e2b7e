package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/pgcache/go/internal/dbsqlc"
	"github.com/pgcache/go/internal/sqlerr"
)

// flushLock is the second number of the lock that flushes take; the first is the cache's.
const flushLock = -2

// Flushed is what a flush found.
type Flushed struct {
	Changes, Messages int64
	Bytes             int64 // what the log takes on disk, dead rows included
}

// ErrFlushing says that another flush is under way: nothing was done, and what that one does not publish is still in the
// change log.
var ErrFlushing = errors.New("another flush is under way")

// Flush drains the change log and publishes what was in it, in one statement. When it returns without an error,
// everything that was committed before it was sent has been published, by it or by another. sender follows the cache's id
// in every message: see notify.Sender.
func (s *Store) Flush(ctx context.Context, sender string) (Flushed, error) {
	return s.flush(ctx, s.db, sender, false)
}

// FlushOn is Flush on a connection of the caller's.
func (s *Store) FlushOn(ctx context.Context, conn *sql.Conn, sender string) (Flushed, error) {
	return s.flush(ctx, conn, sender, false)
}

// beginner is what a flush needs of a pool or of one of its connections.
type beginner interface {
	DB
	BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
}

// needsReadCommitted is the SQLSTATE of our functions where the isolation level is another.
const needsReadCommitted = "PC001"

func (s *Store) flush(ctx context.Context, db beginner, sender string, emptied bool) (Flushed, error) {
	params := dbsqlc.FlushParams{Class: s.Names.Class(), ID: flushLock, Sender: sender, Emptied: emptied}
	r, err := s.with(db).Flush(ctx, params)
	if sqlerr.State(err) == needsReadCommitted {
		r, err = s.flushCommitted(ctx, db, params)
	}
	if err == nil && r.Changes < 0 {
		err = ErrFlushing
	}
	return Flushed{max(r.Changes, 0), r.Messages, r.Bytes}, err
}

// Pending reports whether the change log holds anything.
func (s *Store) Pending(ctx context.Context, db DB) (bool, error) { return s.with(db).Pending(ctx) }

// ClaimFlushing makes node, for lease, the one that flushes for watched tables. It reports whether it is: another may be.
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

func (s *Store) flushCommitted(ctx context.Context, db beginner, params dbsqlc.FlushParams) (r dbsqlc.FlushRow, err error) {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return r, err
	}
	defer tx.Rollback() //nolint:errcheck // after a Commit it does nothing, before one the first error counts
	q := s.with(tx)
	// A process that is suspended before its COMMIT must not keep the flush's lock.
	if err := q.SetLocal(ctx, dbsqlc.SetLocalParams{Name: "idle_in_transaction_session_timeout", Setting: "2s"}); err != nil {
		return r, err
	}
	if r, err = q.Flush(ctx, params); err != nil {
		return r, err
	}
	return r, tx.Commit()
}

// DrainLog flushes and truncates the log, alone in it for some milliseconds. It fails where somebody holds the table.
func (s *Store) DrainLog(ctx context.Context, sender string) error {
	_, err := s.flush(ctx, s.db, sender, true)
	return err
}

// Notice is one message for those who poll.
type Notice struct {
	Seq     int64
	Payload string
}

// BeginPolling makes all changes that are committed from now on go through the change log, for lease at least, and returns
// the incarnation of the tables and the last notice. It takes no lock: it waits for the writes that are under way, which
// may not know of the lease.
func (s *Store) BeginPolling(ctx context.Context, lease time.Duration) (incarnation, last int64, err error) {
	if err := s.KeepPolling(ctx, s.db, lease); err != nil {
		return 0, 0, err
	}
	if err := s.waitForWriters(ctx); err != nil {
		return 0, 0, err
	}
	if last, err = s.q.LastNotice(ctx); err != nil {
		return 0, 0, err
	}
	incarnation, _, err = s.Incarnation(ctx)
	return incarnation, last, err
}

// writersPause is the time from one look at the writes under way to the next.
const writersPause = 10 * time.Millisecond

// waitForWriters waits until every writing statement has ended that was under way when it was called. A statement has its
// lock on the table before its snapshot, so one that is not among them sees what was committed before the call:
//
//	write: lock, snapshot             KeepPolling, commit
//	                                  waitForWriters: the write has a lock on the table
//	write: commit, NOTIFY             it has ended
//	                                  first poll
func (s *Store) waitForWriters(ctx context.Context) error {
	var writers []string
	for first := true; first || len(writers) > 0; first = false {
		if !first {
			timer := time.NewTimer(writersPause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			}
		}
		now, err := s.q.Writers(ctx)
		if err != nil {
			return err
		}
		if first {
			writers = now
		}
		writers = slices.DeleteFunc(writers, func(w string) bool { return !slices.Contains(now, w) })
	}
	return nil
}

// KeepPolling makes it go on for lease.
func (s *Store) KeepPolling(ctx context.Context, db DB, lease time.Duration) error {
	return s.with(db).KeepPolling(ctx, lease.Microseconds())
}

// Polled is what a poll finds.
type Polled struct {
	Incarnation int64 // of the tables: another one than before has lost notices
	Leased      bool  // a poller lease is in force
	Now         time.Duration
	Notices     []Notice
}

// Poll reads the notices after last.
func (s *Store) Poll(ctx context.Context, db DB, last int64) (p Polled, err error) {
	rows, err := s.with(db).Poll(ctx, last)
	for _, r := range rows {
		p.Incarnation, p.Leased, p.Now = r.Incarnation, r.Leased, time.Duration(r.NowUs)*time.Microsecond
		if r.Seq.Valid {
			p.Notices = append(p.Notices, Notice{r.Seq.Int64, r.Payload.String})
		}
	}
	return p, err
}

// DeleteNotices removes notices older than age.
func (s *Store) DeleteNotices(ctx context.Context, db DB, age time.Duration) error {
	_, err := s.with(db).DeleteNotices(ctx, age.Microseconds())
	return err
}

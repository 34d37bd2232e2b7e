package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/pgcache/go/internal/dbsqlc"
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
	return s.flush(ctx, sender, false)
}

func (s *Store) flush(ctx context.Context, sender string, emptied bool) (Flushed, error) {
	r, err := committed(ctx, s, func(q *dbsqlc.Queries) (dbsqlc.FlushRow, error) {
		return q.Flush(ctx, dbsqlc.FlushParams{Class: s.Names.Class(), ID: flushLock, Sender: sender, Emptied: emptied})
	})
	if err == nil && r.Changes < 0 {
		err = ErrFlushing
	}
	return Flushed{max(r.Changes, 0), r.Messages, r.Bytes}, err
}

// VacuumLog removes the log's dead rows. It blocks nobody, and needs the rights of the table's owner.
func (s *Store) VacuumLog(ctx context.Context) error { return s.q.VacuumChanges(ctx) }

// DrainLog flushes and truncates the log, alone in it for some milliseconds. It fails where somebody holds the table.
func (s *Store) DrainLog(ctx context.Context, sender string) error {
	_, err := s.flush(ctx, sender, true)
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
	if err := s.KeepPolling(ctx, lease); err != nil {
		return 0, 0, err
	}
	if err := s.waitForWriters(ctx); err != nil {
		return 0, 0, err
	}
	if last, err = s.q.LastNotice(ctx); err != nil {
		return 0, 0, err
	}
	incarnation, err = s.Incarnation(ctx)
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
func (s *Store) KeepPolling(ctx context.Context, lease time.Duration) error {
	return s.q.KeepPolling(ctx, lease.Microseconds())
}

// Notices returns the notices after last.
func (s *Store) Notices(ctx context.Context, last int64) (notices []Notice, err error) {
	rows, err := s.q.GetNotices(ctx, last)
	for _, r := range rows {
		notices = append(notices, Notice(r))
	}
	return notices, err
}

// DeleteNotices removes notices older than age.
func (s *Store) DeleteNotices(ctx context.Context, age time.Duration) error {
	_, err := s.q.DeleteNotices(ctx, age.Microseconds())
	return err
}

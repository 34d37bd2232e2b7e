package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Position is how far a poller has read.
type Position struct {
	Incarnation int64  // of the tables
	Server      int64  // identity of the server
	Flush       string // transaction id of the last flush that was read: unlike a sequence, nobody can set it back
}

// BeginPolling makes all changes that are committed from now on go through the change log, for lease at least, and returns
// where to read them from. It takes no lock: it waits for the writes that are under way, which may not know of the lease.
func (s *Store) BeginPolling(ctx context.Context, lease time.Duration) (Position, error) {
	if err := s.KeepPolling(ctx, s.db, lease); err != nil {
		return Position{}, err
	}
	if err := s.waitForWriters(ctx, running); err != nil { // a write that does not know of the lease notifies, and such a transaction can't be prepared
		return Position{}, err
	}
	last, err := s.q.LastNotice(ctx)
	if err != nil {
		return Position{}, err
	}
	incarnation, _, err := s.Incarnation(ctx)
	return Position{incarnation, last.Server, last.Last}, err
}

// writersPause is the time from one look at the writes under way to the next.
const writersPause = 10 * time.Millisecond

// whichWriters says which transactions count as writing.
type whichWriters bool

const (
	running      whichWriters = false // those with a session: a statement runs, or they are open
	withPrepared whichWriters = true  // and prepared transactions, which have no session
)

// WritersError is why transactions that write to the cache were not waited for any longer. IDs are what pg_locks calls them in
// virtualtransaction.
type WritersError struct {
	IDs []string
	Err error
}

func (e *WritersError) Error() string {
	return fmt.Sprintf("transactions that have written to the cache are open or prepared, virtualtransaction %s in pg_locks: %v", strings.Join(e.IDs, ", "), e.Err)
}

func (e *WritersError) Unwrap() error { return e.Err }

// waitForWriters waits until every transaction has ended that had written entries or removed groups, or was doing it, when this was
// called. A statement has its lock on the table before its snapshot, so one that is not among them sees what was committed before:
//
//	write: lock, snapshot             KeepPolling, commit
//	                                  waitForWriters: the write has a lock on the table
//	write: commit, NOTIFY             it has ended
//	                                  first poll
//
// A transaction that is prepared meanwhile keeps its virtual transaction, so withPrepared goes on waiting for it.
func (s *Store) waitForWriters(ctx context.Context, which whichWriters) error {
	var writers []string
	for first := true; first || len(writers) > 0; first = false {
		if !first {
			timer := time.NewTimer(writersPause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return &WritersError{writers, ctx.Err()}
			}
		}
		found, err := s.q.Writers(ctx)
		if err != nil {
			return err
		}
		var now []string
		for _, w := range found {
			if id, prepared := strings.CutPrefix(w, "prepared "); !prepared || which == withPrepared {
				now = append(now, id)
			}
		}
		if first {
			writers = now
		}
		writers = slices.DeleteFunc(writers, func(w string) bool { return !slices.Contains(now, w) })
	}
	return nil
}

// KeepPolling makes changes go through the change log for lease from now, at least.
func (s *Store) KeepPolling(ctx context.Context, db DB, lease time.Duration) error {
	return s.with(db).KeepPolling(ctx, lease.Microseconds())
}

// Polled is what a poll finds.
type Polled struct {
	At       Position      // where to read on; with another incarnation or server than before notices were lost
	Leased   bool          // a poller lease is in force
	Now      time.Duration // since 1970, by the database's clock
	Payloads []string
}

// Poll reads the notices after a position.
func (s *Store) Poll(ctx context.Context, db DB, after Position) (p Polled, err error) {
	p.At.Flush = after.Flush
	rows, err := s.with(db).Poll(ctx, after.Flush)
	for _, r := range rows {
		p.At.Incarnation, p.At.Server, p.Leased, p.Now = r.Incarnation, r.Server, r.Leased, time.Duration(r.NowUs)*time.Microsecond
		if r.Payload.Valid {
			p.Payloads, p.At.Flush = append(p.Payloads, r.Payload.String), r.Xid
		}
	}
	return p, err
}

// DeleteNotices removes notices older than age.
func (s *Store) DeleteNotices(ctx context.Context, db DB, age time.Duration) error {
	_, err := s.with(db).DeleteNotices(ctx, age.Microseconds())
	return err
}

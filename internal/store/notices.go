package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

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
	if err := s.waitForWriters(ctx, running); err != nil { // who notifies can't be prepared
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

// whichWriters says which transactions count as writing.
type whichWriters bool

const (
	running      whichWriters = false // statements that are under way, and what is open
	withPrepared whichWriters = true  // and prepared transactions, which send no statement any more
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

// waitForWriters waits until every writing statement has ended that was under way when it was called. A statement has its
// lock on the table before its snapshot, so one that is not among them sees what was committed before the call:
//
//	write: lock, snapshot             KeepPolling, commit
//	                                  waitForWriters: the write has a lock on the table
//	write: commit, NOTIFY             it has ended
//	                                  first poll
//
// One that is prepared while it waits goes on under the same virtual transaction.
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
	Incarnation int64         // of the tables; where it has changed notices were lost
	Leased      bool          // a poller lease is in force
	Now         time.Duration // since 1970, by the database's clock
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

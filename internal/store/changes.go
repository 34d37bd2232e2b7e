package store

import (
	"context"
	"database/sql"
	"fmt"
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

// Flush drains the change log and tells what was in it, in one statement. When it returns without an error, everything
// that was committed before it was sent has been told, by it or by another. head begins every message.
func (s *Store) Flush(ctx context.Context, head string) (Flushed, error) {
	r, err := committed(ctx, s, func(q *dbsqlc.Queries) (dbsqlc.FlushRow, error) {
		return q.Flush(ctx, dbsqlc.FlushParams{Class: s.Names.Class(), ID: flushLock, Head: head, Channel: s.Names.Channel})
	})
	return Flushed{r.Changes, r.Messages, r.Bytes}, err
}

// VacuumLog removes the log's dead rows. It blocks nobody, and needs the rights of the table's owner.
func (s *Store) VacuumLog(ctx context.Context) error { return s.q.VacuumChanges(ctx) }

// DrainLog flushes and truncates the log, alone in it for some milliseconds. It fails where somebody holds the table.
func (s *Store) DrainLog(ctx context.Context, head string) error {
	_, err := committed(ctx, s, func(q *dbsqlc.Queries) (int64, error) {
		return q.DrainChanges(ctx, dbsqlc.DrainChangesParams{Channel: s.Names.Channel, Head: head, Class: s.Names.Class(), ID: flushLock})
	})
	return err
}

// Notice is one message for those who poll.
type Notice struct {
	Seq     int64
	Payload string
}

// BeginPolling makes all changes that are committed from now on go through the log, for lease at least, and returns the
// identity of the notices and the last of them.
func (s *Store) BeginPolling(ctx context.Context, mark string, lease time.Duration) (identity string, last int64, err error) {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return "", 0, err
	}
	defer tx.Rollback() //nolint:errcheck // after a Commit it does nothing, before one the first error counts
	q := s.with(tx)
	// A write that began before this one commits, and does not know of it, would only be notified:
	//
	//     write: nobody polls          KeepPolling, commit
	//     commit, NOTIFY               first poll: nothing          <- never told
	//
	// so wait for those that are under way. New ones wait for this lock, and take their snapshot after it.
	if err := q.SetLocal(ctx, dbsqlc.SetLocalParams{Name: "lock_timeout", Setting: "1s"}); err != nil {
		return "", 0, err
	}
	if err := q.HoldChanges(ctx); err != nil {
		return "", 0, err
	}
	if err := q.KeepPolling(ctx, lease.Microseconds()); err != nil {
		return "", 0, err
	}
	if err := q.MarkNotices(ctx, mark); err != nil {
		return "", 0, err
	}
	if last, err = q.LastNotice(ctx); err != nil {
		return "", 0, err
	}
	rows, err := q.GetNotices(ctx, last)
	if err != nil {
		return "", 0, err
	}
	if len(rows) == 0 {
		return "", 0, fmt.Errorf("%s is not readable", s.Names.object("cache_notices"))
	}
	return rows[0].Payload, last, tx.Commit()
}

// KeepPolling makes it go on for lease.
func (s *Store) KeepPolling(ctx context.Context, lease time.Duration) error {
	return s.q.KeepPolling(ctx, lease.Microseconds())
}

// Notices returns the identity of the notices and those after last. Another identity than before says that some may be
// lost.
func (s *Store) Notices(ctx context.Context, last int64) (identity string, notices []Notice, err error) {
	rows, err := s.q.GetNotices(ctx, last)
	for _, r := range rows {
		if r.Seq == 0 {
			identity = r.Payload
		} else {
			notices = append(notices, Notice(r))
		}
	}
	return identity, notices, err
}

// DeleteNotices removes notices older than age.
func (s *Store) DeleteNotices(ctx context.Context, age time.Duration) error {
	_, err := s.q.DeleteNotices(ctx, age.Microseconds())
	return err
}

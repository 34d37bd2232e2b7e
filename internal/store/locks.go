package store

import (
	"context"
	"database/sql/driver"
	"time"

	"github.com/pgcache/go/internal/dbsqlc"
	"github.com/pgcache/go/internal/panics"
)

// Looked is what a load saw before it began. It is the fence of the statement that stores what the load brings.
type Looked struct {
	Rows        []Row         // in the order of the keys
	Incarnation int64         // 0: there is none, and what is loaded now is not stored
	At          time.Duration // since 1970, by the database's clock
	Snapshot    string        // which removals of groups were visible, "" if there was none
}

// Look reads the rows of keys and the incarnation that they belong to, in one statement. stale asks for values that have expired and
// may still be handed out: see Row.Stale.
func (s *Store) Look(ctx context.Context, keys []string, stale bool) (l Looked, err error) {
	defer panics.Recover(&err)
	for range 2 {
		l, err = retry(ctx, lost, func() (Looked, error) { return s.look(ctx, s.sql, keys, stale) })
		if err != nil || l.Incarnation != 0 || len(keys) == 0 {
			return l, err
		}
		// A crash has removed the incarnation.
		if made, err := s.incarnate(ctx, s.q); !made {
			return l, err
		}
	}
	return l, err
}

func (s *Store) look(ctx context.Context, on *rendering, keys []string, stale bool) (Looked, error) {
	l := Looked{Rows: make([]Row, len(keys))}
	return l, on.query(ctx, dbsqlc.Look, func(v []driver.Value) error {
		l.add(keys, v)
		return nil
	}, s.Largest, stale, textArray(keys))
}

// add notes a row of the answer, whose columns begin with n, version, codec, value, remaining_us, server, incarnation, now_us, tags,
// snapshot.
func (l *Looked) add(keys []string, v []driver.Value) {
	n := asInt(v[0]) - 1
	l.Rows[n] = Row{keys[n], asBytes(v[3]), asInt(v[1]), asString(v[2]), micros(asInt(v[4])), asInt(v[5]), asTags(v[8])}
	l.Incarnation, l.At, l.Snapshot = asInt(v[6]), micros(asInt(v[7])), asString(v[9])
}

// LockAndLook tries the advisory locks ids on the session db, whose backend is pid, and then looks. pooled says that
// another backend has answered, and nothing was done. After an error some of the locks may be held.
func (s *Store) LockAndLook(ctx context.Context, db DB, pid, class int32, ids []int32, keys []string, stale bool) (got []bool, l Looked, pooled bool, err error) {
	l.Rows = make([]Row, len(keys))
	err = s.on(db).query(ctx, dbsqlc.LockAndLook, func(v []driver.Value) error {
		answer := asString(v[10])
		if pooled = answer == "-"; pooled {
			return nil
		}
		if got == nil {
			got = make([]bool, len(ids))
			for i := range min(len(ids), len(answer)) {
				got[i] = answer[i] == '1'
			}
		}
		l.add(keys, v)
		return nil
	}, pid, class, lockIDs(ids), textArray(keys), s.Largest, stale)
	if err == nil && !pooled && l.Incarnation == 0 && len(keys) > 0 {
		var made bool
		if made, err = s.incarnate(ctx, s.with(db)); made {
			l, err = s.look(ctx, s.on(db), keys, stale)
		}
	}
	return got, l, pooled, err
}

// TryLocks tries advisory locks on the session db. pooled says that another backend than pid has answered.
func TryLocks(ctx context.Context, db DB, pid, class int32, ids []int32) (got []bool, pooled bool, err error) {
	rows, err := dbsqlc.New(db).TryLocks(ctx, dbsqlc.TryLocksParams{Pid: pid, Class: class, Ids: lockIDs(ids)})
	got, pooled = answers(rows)
	return got, pooled, err
}

// Unlocks releases them, and says for each whether the session had it.
func Unlocks(ctx context.Context, db DB, pid, class int32, ids []int32) (held []bool, pooled bool, err error) {
	rows, err := dbsqlc.New(db).Unlocks(ctx, dbsqlc.UnlocksParams{Pid: pid, Class: class, Ids: lockIDs(ids)})
	held, pooled = answers(rows)
	return held, pooled, err
}

// answers reads what TryLocks and Unlocks answer: 1 is yes, 0 no, and -1 that another backend has answered.
func answers(rows []int32) (yes []bool, pooled bool) {
	for _, r := range rows {
		yes, pooled = append(yes, r == 1), pooled || r < 0
	}
	return yes, pooled
}

func lockIDs(ids []int32) string {
	return numberArray(ids, func(id int32) int64 { return int64(id) })
}

package store

import (
	"context"
	"strconv"
	"strings"

	"github.com/pgcache/go/internal/dbsqlc"
)

// TryLocks tries advisory locks on the session db, in one statement. pooled says that it was not the session
// that was marked.
func TryLocks(ctx context.Context, db DB, mark string, class int32, ids []int32) (got []bool, pooled bool, err error) {
	rows, err := dbsqlc.New(db).TryLocks(ctx, dbsqlc.TryLocksParams{Mark: mark, Class: class, Ids: arrayOfIDs(ids)})
	got, pooled = answers(rows)
	return got, pooled, err
}

// Unlocks gives them back, and says for each whether the session had it.
func Unlocks(ctx context.Context, db DB, mark string, class int32, ids []int32) (held []bool, pooled bool, err error) {
	rows, err := dbsqlc.New(db).Unlocks(ctx, dbsqlc.UnlocksParams{Mark: mark, Class: class, Ids: arrayOfIDs(ids)})
	held, pooled = answers(rows)
	return held, pooled, err
}

func answers(rows []int32) (yes []bool, pooled bool) {
	for _, r := range rows {
		yes, pooled = append(yes, r == 1), pooled || r < 0
	}
	return yes, pooled
}

// MarkSession gives the session db a mark.
func MarkSession(ctx context.Context, db DB, mark string) error {
	return dbsqlc.New(db).MarkSession(ctx, mark)
}

// SessionMark returns the mark of the session db.
func SessionMark(ctx context.Context, db DB) (string, error) { return dbsqlc.New(db).SessionMark(ctx) }

func arrayOfIDs(ids []int32) string {
	return arrayOf(len(ids), func(b *strings.Builder, i int) { b.WriteString(strconv.Itoa(int(ids[i]))) })
}

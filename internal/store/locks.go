package store

import (
	"context"
	"strconv"
	"strings"

	"github.com/pgcache/go/internal/dbsqlc"
)

// TryLocks tries the advisory locks of keys on the session db, in one statement.
func TryLocks(ctx context.Context, db DB, class int32, keys []string) ([]bool, error) {
	return dbsqlc.New(db).TryLocks(ctx, dbsqlc.TryLocksParams{Class: class, Ids: lockIDs(keys)})
}

// Unlocks gives them back, and says for each whether the session had it.
func Unlocks(ctx context.Context, db DB, class int32, keys []string) ([]bool, error) {
	return dbsqlc.New(db).Unlocks(ctx, dbsqlc.UnlocksParams{Class: class, Ids: lockIDs(keys)})
}

func lockIDs(keys []string) string {
	return arrayOf(len(keys), func(b *strings.Builder, i int) { b.WriteString(strconv.Itoa(int(Hash(keys[i])))) })
}

package pgcachetest

import (
	"context"

	"github.com/pgcache/go/internal/inside"
	"github.com/pgcache/go/pgcache"
)

// Sync waits until the caches answer with nothing older than what was committed before the call, whoever committed it. Call it
// instead of sleeping, or of asking again and again. A cache need not be one of New's. One without a listener receives no changes:
// it forgets what it holds.
func Sync(t TB, caches ...*pgcache.Cache) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	for _, c := range caches {
		if err := inside.Of(c).CatchUp(ctx); err != nil {
			t.Fatalf("pgcachetest: Sync: the cache does not catch up: %v", err)
		}
	}
}

// Expire makes entries expire now, in the database and in the memory of c and of the nodes that Nodes made with it. (For
// others there is Sync.) A key is that of the row: "user:42" for the key 42 of a view with the namespace user. An entry that
// is not there fails the test.
func Expire(t TB, c *pgcache.Cache, keys ...string) {
	t.Helper()
	in := inside.Of(c)
	if in.DB == nil {
		t.Fatalf("pgcachetest: Expire: pgcache.Null() stores nothing")
	}
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	for _, key := range keys {
		// A trigger publishes what is changed by hand.
		res, err := in.DB.ExecContext(ctx, "UPDATE "+in.Names.Table()+" SET expires_at = clock_timestamp() - interval '1 second' "+
			"WHERE key = $1 AND value IS NOT NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())", key)
		if err != nil {
			t.Fatalf("pgcachetest: Expire: %q: %v", key, err)
		}
		if n, err := res.RowsAffected(); n == 0 || err != nil {
			t.Fatalf("pgcachetest: Expire: there is no live entry with the key %q (with the view's namespace before it)", key)
		}
	}
	Sync(t, known.beside(c)...)
}

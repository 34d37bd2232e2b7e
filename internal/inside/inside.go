// Package inside is what pgcachetest may know of a Cache beyond its methods. Package pgcache fills it in.
package inside

import (
	"context"
	"database/sql"

	"github.com/pgcache/go/internal/store"
)

// Cache is a *pgcache.Cache as pgcachetest sees it.
type Cache struct {
	DB    *sql.DB // nil: it is Null
	Names store.Names

	// CatchUp returns when the node answers with nothing older than what was committed before the call.
	CatchUp func(ctx context.Context) error
}

// Of shows a *pgcache.Cache.
var Of func(cache any) Cache

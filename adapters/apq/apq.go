// Package apq keeps the automatic persisted queries of github.com/99designs/gqlgen in a pgcache.Cache, so that a query that a
// client sent to one process is known to all.
//
//	server.Use(extension.AutomaticPersistedQuery{Cache: pgapq.New(cache)})
//
// What to know:
//
//   - A query lives a day from when a client last sent its text, unless the options have another TTL: use does not prolong its life.
//     A client whose query is gone sends the text again, that is the protocol.
//   - Clients choose which queries are stored, so bound the table: Options.MaxBytes, and the size of request bodies in front of
//     gqlgen.
//   - Adding a query that is stored already writes it again.
//   - The interface returns no errors: see Cache.OnError. An error of a read is a miss.
package apq

import (
	"context"
	"time"

	"github.com/99designs/gqlgen/graphql"

	"github.com/pgcache/go/adapters/internal/report"
	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/pgcache"
)

var _ graphql.Cache[string] = (*Cache)(nil)

// Cache is a graphql.Cache of strings. It is safe for concurrent use.
type Cache struct {
	// OnError gets the errors that the interface has no place for; nil logs them with slog.Default. Set it before the first
	// use.
	OnError func(error)

	view *pgcache.Typed[string]
}

// New returns a Cache whose queries are in c, in the namespace apq, for a day. The options may say otherwise.
func New(c *pgcache.Cache, opts ...pgcache.ViewOption) *Cache {
	defaults := []pgcache.ViewOption{pgcache.Namespace("apq"), pgcache.WithCodec(codec.Raw{}), pgcache.TTL(24 * time.Hour)}
	return &Cache{view: pgcache.For[string](c, append(defaults, opts...)...)}
}

// Get returns the query with the hash key. A client sent it, so it may be anything.
func (c *Cache) Get(ctx context.Context, key string) (query string, ok bool) {
	query, ok, err := c.view.Get(ctx, pgcache.HashKey(key))
	report.Error(c.OnError, err)
	return query, ok
}

// Add stores the query with the hash key.
func (c *Cache) Add(ctx context.Context, key, query string) {
	report.Error(c.OnError, c.view.Set(ctx, pgcache.HashKey(key), query))
}

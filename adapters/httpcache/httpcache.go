// Package httpcache keeps what HTTP clients may cache in a pgcache.Cache, so that all processes of a service share it. It has an
// adapter for each of two families of http.RoundTrippers: Cache for github.com/gregjones/httpcache and its successor
// github.com/sandrolain/httpcache, Conn for github.com/bartventer/httpcache.
//
//	client := httpcache.NewTransport(pghttpcache.New(cache)).Client()
//
// What to know:
//
//   - These clients are private caches: they store what a server calls private, and answers to requests with credentials. What
//     is shared among processes must be the same for all of them, so use the transport for the service's own requests, never for those in the
//     name of its users.
//   - An entry lives a day, unless the options have another TTL, whatever the response says: the clients
//     check freshness themselves, and revalidate what is stale.
//   - Keys are URLs. Those above 200 bytes become hashes, see pgcache.HashKey, so they can't be listed.
//   - The interfaces have no contexts: Options.Timeout of the pgcache.Cache bounds each call.
package httpcache

import (
	"context"
	"time"

	"github.com/pgcache/go/adapters/internal/report"
	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/pgcache"
)

// Cache is a Cache of gregjones/httpcache and of sandrolain/httpcache. It is safe for concurrent use.
type Cache struct {
	// OnError gets the errors that the interface has no place for; nil logs them with slog.Default. Set it before the first
	// use.
	OnError func(error)

	view *pgcache.Typed[[]byte]
}

// New returns a Cache whose responses are in c, in the namespace httpcache, for a day. The options may say otherwise.
func New(c *pgcache.Cache, opts ...pgcache.ViewOption) *Cache {
	return &Cache{view: view(c, opts)}
}

func view(c *pgcache.Cache, opts []pgcache.ViewOption) *pgcache.Typed[[]byte] {
	defaults := []pgcache.ViewOption{pgcache.Namespace("httpcache"), pgcache.WithCodec(codec.Raw{}), pgcache.TTL(24 * time.Hour)}
	return pgcache.For[[]byte](c, append(defaults, opts...)...)
}

// Get returns the response under key. An error is a miss.
func (c *Cache) Get(key string) (response []byte, ok bool) {
	response, ok, err := c.view.Get(context.Background(), pgcache.HashKey(key))
	report.Error(c.OnError, err)
	return response, ok
}

// Set stores the response under key.
func (c *Cache) Set(key string, response []byte) {
	report.Error(c.OnError, c.view.Set(context.Background(), pgcache.HashKey(key), response))
}

// Delete removes the response under key.
func (c *Cache) Delete(key string) {
	report.Error(c.OnError, c.view.Delete(context.Background(), pgcache.HashKey(key)))
}

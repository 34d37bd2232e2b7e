// Package autocert keeps the certificates of golang.org/x/crypto/acme/autocert in a pgcache.Cache, so that all processes of a
// service share them.
//
//	m := autocert.Manager{Prompt: autocert.AcceptTOS, Cache: pgautocert.New(cache, pgcache.WithCodec(secret)), ...}
//
// What to know:
//
//   - Certificates are no ordinary cache entries: the certificate authority limits how many it issues. Use a Cache with
//     Options.Durable and a Prefix of its own and without MaxRows and MaxBytes, or a crash of the server makes every process ask for all
//     certificates again.
//   - The entries hold private keys. WithCodec with codec/encrypt around codec.Raw keeps them from whoever reads the table.
//   - Entries do not expire, as in autocert.DirCache. A TTL among the options bounds those of domains that are gone; it should be longer than
//     certificates live.
//   - Two processes that need a certificate of the same domain at the same time each ask for one: that is the
//     Manager's, and no Cache can change it.
package autocert

import (
	"context"

	"golang.org/x/crypto/acme/autocert"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/pgcache"
)

var _ autocert.Cache = (*Cache)(nil)

// Cache is an autocert.Cache. It is safe for concurrent use.
type Cache struct {
	view *pgcache.Typed[[]byte]
}

// New returns an autocert.Cache whose entries are in c, in the namespace autocert, and never expire. The options may say
// otherwise.
func New(c *pgcache.Cache, opts ...pgcache.ViewOption) *Cache {
	defaults := []pgcache.ViewOption{pgcache.Namespace("autocert"), pgcache.WithCodec(codec.Raw{}), pgcache.TTL(pgcache.NoExpiry)}
	return &Cache{pgcache.For[[]byte](c, append(defaults, opts...)...)}
}

// Get returns the data under key, or autocert.ErrCacheMiss.
func (c *Cache) Get(ctx context.Context, key string) ([]byte, error) {
	data, found, err := c.view.Get(ctx, pgcache.HashKey(key))
	if err == nil && !found {
		err = autocert.ErrCacheMiss
	}
	return data, err
}

// Put stores data under key.
func (c *Cache) Put(ctx context.Context, key string, data []byte) error {
	return c.view.Set(ctx, pgcache.HashKey(key), data)
}

// Delete removes the data under key; without any it is no error.
func (c *Cache) Delete(ctx context.Context, key string) error {
	return c.view.Delete(ctx, pgcache.HashKey(key))
}

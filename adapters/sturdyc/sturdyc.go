// Package sturdyc makes a pgcache.Cache the distributed storage of github.com/viccon/sturdyc.
//
//	c := sturdyc.New[User](10_000, 10, time.Minute, 10,
//		sturdyc.WithDistributedStorageEarlyRefreshes(pgsturdyc.New(cache, pgcache.TTL(time.Hour)), time.Minute))
//
// What to know:
//
//   - sturdyc keeps values in its own memory and is told nothing: what another process changes or deletes is seen when the
//     TTL of its client ends. That is what pgcache.For and its invalidations are for; the storage is for programs that stay with sturdyc.
//   - Values are then twice in memory. A Cache that serves nothing else needs none: Options.Local: localcache.None().
//   - The TTL of the options should be longer than the client's, or nothing is left to refresh early.
//   - sturdyc writes behind its callers' back. Its interface returns no errors: see Storage.OnError. An error of a read is a
//     miss, so the data source is asked.
package sturdyc

import (
	"context"
	"errors"

	"github.com/viccon/sturdyc"

	"github.com/pgcache/go/adapters/internal/report"
	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/pgcache"
)

var _ sturdyc.DistributedStorageWithDeletions = (*Storage)(nil)

// Storage is a sturdyc.DistributedStorage and a sturdyc.DistributedStorageWithDeletions. It is safe for concurrent use.
type Storage struct {
	// OnError gets the errors that the interface has no place for; nil logs them with slog.Default. Set it before the first
	// use.
	OnError func(error)

	view *pgcache.Typed[[]byte]
}

// New returns a Storage whose records are in c, in the namespace sturdyc, for the TTL of c. The options may say otherwise.
func New(c *pgcache.Cache, opts ...pgcache.ViewOption) *Storage {
	defaults := []pgcache.ViewOption{pgcache.Namespace("sturdyc"), pgcache.WithCodec(codec.Raw{})}
	return &Storage{view: pgcache.For[[]byte](c, append(defaults, opts...)...)}
}

// Get returns the record under key.
func (s *Storage) Get(ctx context.Context, key string) ([]byte, bool) {
	value, found, err := s.view.Get(ctx, pgcache.HashKey(key))
	report.Error(s.OnError, err)
	return value, found
}

// GetBatch returns the records under keys, read in one statement.
func (s *Storage) GetBatch(ctx context.Context, keys []string) map[string][]byte {
	hashed := make([]string, len(keys))
	for i, key := range keys {
		hashed[i] = pgcache.HashKey(key)
	}
	found, err := s.view.GetMany(ctx, hashed)
	report.Error(s.OnError, err)
	records := make(map[string][]byte, len(found))
	for i, key := range keys {
		if value, ok := found[hashed[i]]; ok {
			records[key] = value
		}
	}
	return records
}

// Set stores value under key.
func (s *Storage) Set(ctx context.Context, key string, value []byte) {
	report.Error(s.OnError, s.view.Set(ctx, pgcache.HashKey(key), value))
}

// SetBatch stores the records in one statement, or, if one of them is too large for the cache, those that are not.
func (s *Storage) SetBatch(ctx context.Context, records map[string][]byte) {
	hashed := make(map[string][]byte, len(records))
	for key, value := range records {
		hashed[pgcache.HashKey(key)] = value
	}
	err := s.view.SetMany(ctx, hashed)
	if errors.Is(err, pgcache.ErrValueTooLarge) {
		err = nil
		for key, value := range hashed {
			err = errors.Join(err, s.view.Set(ctx, key, value))
		}
	}
	report.Error(s.OnError, err)
}

// Delete removes the record under key.
func (s *Storage) Delete(ctx context.Context, key string) {
	s.DeleteBatch(ctx, []string{key})
}

// DeleteBatch removes the records under keys in one statement.
func (s *Storage) DeleteBatch(ctx context.Context, keys []string) {
	hashed := make([]string, len(keys))
	for i, key := range keys {
		hashed[i] = pgcache.HashKey(key)
	}
	report.Error(s.OnError, s.view.Delete(ctx, hashed...))
}

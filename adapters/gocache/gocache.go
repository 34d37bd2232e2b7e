// Package gocache makes a pgcache.Cache a store of github.com/eko/gocache/lib/v4, with its tags.
//
//	users := cache.New[User](pggocache.New[User](c, pgcache.TTL(time.Minute)))
//	err := users.Set(ctx, "42", user, store.WithTags([]string{"org:7"}))
//	err = users.Invalidate(ctx, store.WithInvalidateTags([]string{"org:7"}))
//
// What to know:
//
//   - A Store holds values of one type. []byte and string are stored as they are, other types by the codec of the pgcache.Cache. For
//     gocache's marshaler take New[[]byte] and cache.New[any].
//   - A tag is a tag of the pgcache.Cache: its DeleteTags removes the entries too, and Invalidate removes entries of other views
//     that have the tag. The time that a removal takes does not depend on how many they are. An entry has at most 32. One that is too long or no
//     valid UTF-8 is the tag pgcache.HashKey(tag).
//   - Clear removes what is in the store's namespace, and no more.
//   - GetWithTTL asks the database each time, so that a ChainCache does so at every Get; Get is answered from memory. An entry that
//     never expires has the TTL 0, as in gocache's stores in memory.
//   - A LoadableCache stores what it has loaded some time later, also over a Delete that came meanwhile. pgcache.For and GetOrSet do not.
//   - WithCost, WithSynchronousSet, WithTagsTTL and WithClientSideCaching say nothing to this store.
package gocache

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/eko/gocache/lib/v4/store"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/pgcache"
)

// Type is what GetType returns.
const Type = "pgcache"

// Store is a store.StoreInterface for values of type T. It is safe for concurrent use.
type Store[T any] struct {
	cache *pgcache.Cache
	view  *pgcache.Typed[T]
}

var _ store.StoreInterface = (*Store[string])(nil)

// New returns a Store whose entries are in c, in the namespace gocache, for the TTL of c. The options may say otherwise; their tags are
// those of every entry.
func New[T any](c *pgcache.Cache, opts ...pgcache.ViewOption) *Store[T] {
	defaults := []pgcache.ViewOption{pgcache.Namespace("gocache")}
	switch any(*new(T)).(type) {
	case []byte, string:
		defaults = append(defaults, pgcache.WithCodec(codec.Raw{}))
	}
	return &Store[T]{c, pgcache.For[T](c, append(defaults, opts...)...)}
}

var errNotFound = errors.New("there is no such entry")

// keyOf is the key of an entry. gocache makes a string of everything before it asks a store.
func keyOf(key any) (string, error) {
	s, ok := key.(string)
	if !ok {
		return "", fmt.Errorf("gocache: the key is a %T: a store takes strings", key)
	}
	return pgcache.HashKey(s), nil
}

// Get returns the value under key, or a store.NotFound.
func (s *Store[T]) Get(ctx context.Context, key any) (any, error) {
	k, err := keyOf(key)
	if err != nil {
		return nil, err
	}
	v, found, err := s.view.Get(ctx, k)
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, store.NotFoundWithCause(errNotFound)
	}
	return v, nil
}

// GetWithTTL returns the value under key and how long it lives, 0 for ever, or a store.NotFound.
func (s *Store[T]) GetWithTTL(ctx context.Context, key any) (any, time.Duration, error) {
	k, err := keyOf(key)
	if err != nil {
		return nil, 0, err
	}
	e, found, err := s.view.GetEntry(ctx, k)
	switch {
	case err != nil:
		return nil, 0, err
	case !found:
		return nil, 0, store.NotFoundWithCause(errNotFound)
	case e.ExpiresIn == pgcache.NoExpiry:
		return e.Value, 0, nil
	}
	return e.Value, max(e.ExpiresIn, 1), nil // it was there when it was read, and 0 is for ever
}

// Set stores value under key, for store.WithExpiration and with store.WithTags, in one statement. It is an error if value is
// no T.
func (s *Store[T]) Set(ctx context.Context, key, value any, options ...store.Option) error {
	k, err := keyOf(key)
	if err != nil {
		return err
	}
	v, ok := value.(T)
	typ := reflect.TypeFor[T]()
	if !ok && (value != nil || typ.Kind() != reflect.Interface) { // nil is a value of every interface
		return fmt.Errorf("gocache: the value is a %T: this store is for %v", value, typ)
	}
	o := store.ApplyOptions(options...)
	return s.view.Set(ctx, k, v, pgcache.TTL(o.Expiration), pgcache.Tags(hashed(o.Tags)...))
}

// Delete removes the value under key; without any it is no error.
func (s *Store[T]) Delete(ctx context.Context, key any) error {
	k, err := keyOf(key)
	if err != nil {
		return err
	}
	return s.view.Delete(ctx, k)
}

// Invalidate removes all entries that have one of the tags of store.WithInvalidateTags.
func (s *Store[T]) Invalidate(ctx context.Context, options ...store.InvalidateOption) error {
	return s.cache.DeleteTags(ctx, hashed(store.ApplyInvalidateOptions(options...).Tags)...)
}

// Clear removes all entries of the store's namespace.
func (s *Store[T]) Clear(ctx context.Context) error {
	return s.view.Clear(ctx)
}

// GetType returns Type.
func (s *Store[T]) GetType() string { return Type }

// hashed makes tags of any texts.
func hashed(tags []string) []string {
	valid := make([]string, len(tags))
	for i, tag := range tags {
		valid[i] = pgcache.HashKey(tag)
	}
	return valid
}

// Package scs keeps the sessions of github.com/alexedwards/scs/v2 in a pgcache.Cache.
//
//	sessions := scs.New()
//	sessions.Store = pgscs.New(cache)
//
// What to know:
//
//   - Sessions are as durable as the cache's table: by default a crash of the server empties it, and everybody has to log in
//     again. Give sessions a Cache of their own, with Options.Durable and a Prefix, if that matters; MaxRows and MaxBytes of a Cache
//     that is shared with other entries may remove sessions, too.
//   - A session is read from this process's memory if it is there. What another process changes is seen some milliseconds
//     later (P2 of package pgcache), a logout too. With Options.Local: localcache.None() every read asks the database.
//   - SessionManager.IdleTimeout makes scs write the session with every request, and every write makes the other processes forget
//     it: then memory gains little.
//   - Managers that share a namespace accept each other's sessions, so a token of one site is valid on the other. Give each Store a
//     pgcache.Namespace of its own where that must not be.
//   - Two requests of one session at the same time overwrite each other's changes, as with every store of scs.
//   - The expiry that scs asks for is by this machine's clock; from then on the database's counts.
package scs

import (
	"context"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/pgcache"
)

var (
	_ scs.CtxStore         = (*Store)(nil)
	_ scs.IterableStore    = (*Store)(nil)
	_ scs.IterableCtxStore = (*Store)(nil)
)

// Store is an scs.CtxStore and an scs.IterableCtxStore. It is safe for concurrent use.
type Store struct {
	view *pgcache.Typed[[]byte]
}

// New returns a Store whose sessions are in c, in the namespace scs. The options may say otherwise, and may bring a codec that
// encrypts (codec/encrypt, around codec.Raw); their TTL is not used, because scs sets each session's.
func New(c *pgcache.Cache, opts ...pgcache.ViewOption) *Store {
	defaults := []pgcache.ViewOption{pgcache.Namespace("scs"), pgcache.WithCodec(codec.Raw{})}
	return &Store{pgcache.For[[]byte](c, append(defaults, opts...)...)}
}

// FindCtx returns the data of the session with token. A token is a cookie, so it may be anything.
func (s *Store) FindCtx(ctx context.Context, token string) (b []byte, found bool, err error) {
	return s.view.Get(ctx, pgcache.HashKey(token))
}

// CommitCtx stores the data of the session with token until expiry. An expiry that has passed ends the session.
func (s *Store) CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error {
	ttl := time.Until(expiry)
	if ttl <= 0 {
		return s.DeleteCtx(ctx, token)
	}
	return s.view.Set(ctx, pgcache.HashKey(token), b, pgcache.TTL(ttl))
}

// DeleteCtx ends the session with token; one that is not there is no error.
func (s *Store) DeleteCtx(ctx context.Context, token string) error {
	return s.view.Delete(ctx, pgcache.HashKey(token))
}

// Find is FindCtx without a context: Options.Timeout of the cache bounds it.
func (s *Store) Find(token string) (b []byte, found bool, err error) {
	return s.FindCtx(context.Background(), token)
}

// Commit is CommitCtx without a context.
func (s *Store) Commit(token string, b []byte, expiry time.Time) error {
	return s.CommitCtx(context.Background(), token, b, expiry)
}

// Delete is DeleteCtx without a context.
func (s *Store) Delete(token string) error {
	return s.DeleteCtx(context.Background(), token)
}

// AllCtx returns the data of all sessions by their tokens. They are all in memory then; SessionManager.Iterate is what needs it. What
// is not a session's data, such as one that was encrypted with an older key, is left out.
func (s *Store) AllCtx(ctx context.Context) (map[string][]byte, error) {
	all := map[string][]byte{}
	for e, err := range s.view.Entries(ctx) {
		switch {
		case err == nil:
			all[e.Key] = e.Value
		case e.Key == "":
			return nil, err
		}
	}
	return all, nil
}

// All is AllCtx without a context.
func (s *Store) All() (map[string][]byte, error) {
	return s.AllCtx(context.Background())
}

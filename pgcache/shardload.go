package pgcache

import (
	"context"
	"slices"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/localcache"
)

// This file has the loads of Shards. A load while keys move must store nothing that a load on a single server could not store.

// degraded says whether GetOrSet loads, and stores nothing, after answering has returned err: the shard can't be reached for now.
func (s *Shards) degraded(ctx context.Context, err error) bool {
	return ctx.Err() == nil && !isPermanent(err)
}

// drop removes what memory has of a key that was loaded without its shard. The loader may have seen a write whose invalidation this node
// has not received yet; when the shard can be used again, memory would answer with what was there before that write.
//
//	node 1: has v in memory       node 2                     Move
//	                                                         5: the key is held nowhere
//	                              Set w: a delete
//	GetOrSet loads w
//	                                                         6: back to where it was
//	Get: v, without this
func (s *Shards) drop(k localcache.Key) {
	for _, sh := range s.shards {
		sh.c.local.Drop(k)
	}
}

// loadKey is the key of a loadPlace in a context.
type loadKey struct{}

// loadPlace is in the context of a call that may load on shard i, because its keys are there by r.
type loadPlace struct {
	s *Shards
	r *routes
	i int
}

// onShard returns a context with that loadPlace.
func (s *Shards) onShard(ctx context.Context, r *routes, i int) context.Context {
	return context.WithValue(ctx, loadKey{}, loadPlace{s, r, i})
}

// onItsShard says whether what is about to be loaded may be stored: now that the rows were read, the keys are still on the shard on which the
// caller has found them. A load may have waited long for a connection or for the lock, and a server that takes a key over fences only the
// loads that have read their rows before:
//
//	node 1: by epoch 4 A has k        Move                     node 2
//	                                  6: B has k
//	                                  fences A, for 8
//	looks at A, calls the loader
//	                                                           Delete on B
//	                                  8: A has k
//	stores on A what is older
func onItsShard(ctx context.Context, c *Cache, loads []*coherence.Load) bool {
	p, ok := ctx.Value(loadKey{}).(loadPlace)
	if !ok || p.s.shards[p.i].c != c {
		return true
	}
	now, err := p.s.still(ctx, p.i)
	return err == nil && !slices.ContainsFunc(loads, func(l *coherence.Load) bool { return !p.r.kept(now, hashOf(l.Key)) })
}

// loads calls load with the shard of k, or with s.null and -1 where k is held nowhere or its shard can't be reached.
func (s *Shards) loads(ctx context.Context, op string, k localcache.Key, load func(ctx context.Context, c *Cache, i int) error) error {
	for try := 1; ; try++ {
		r, i, none, err := s.answering(ctx, hashOf(k))
		switch {
		case err != nil && !s.degraded(ctx, err):
			return fail(op, k.Row(), err)
		case err != nil || none:
			err := load(ctx, s.null, -1)
			s.drop(k)
			return err
		}
		if err := load(s.onShard(ctx, r, i), s.shards[i].c, i); err != nil || try == changeTries {
			return err
		}
		if now, err := s.still(ctx, i); err != nil || r.kept(now, hashOf(k)) {
			return nil //nolint:nilerr // as if it could not have been reached: what was loaded is handed out
		}
	}
}

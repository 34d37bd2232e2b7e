package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/pgcache/go/pgcache"
)

// cache is what a node uses: one Cache, or Shards of several.
type cache interface {
	Get(ctx context.Context, key string, dst any) (bool, error)
	Set(ctx context.Context, key string, value any, opts ...pgcache.Option) error
	Increment(ctx context.Context, key string, delta int64, opts ...pgcache.Option) (int64, error)
	Delete(ctx context.Context, keys ...string) error
	DeleteTags(ctx context.Context, tags ...string) error
	DeletePrefix(ctx context.Context, prefix string) error
	Cleanup(ctx context.Context) (int64, error)
	Migrate(ctx context.Context) error
	Ready(ctx context.Context) error
	Stats() pgcache.Stats
	Close() error
}

// view is a typed view of a cache.
type view[T any] interface {
	Get(ctx context.Context, key string) (T, bool, error)
	GetMany(ctx context.Context, keys []string) (map[string]T, error)
	GetOrSet(ctx context.Context, key string, load func(context.Context) (T, error), opts ...pgcache.Option) (T, error)
	GetOrSetMany(ctx context.Context, keys []string, load func(context.Context, []string) (map[string]T, error), opts ...pgcache.Option) (map[string]T, error)
	Fetch(ctx context.Context, key string, load func(context.Context, *pgcache.Load[T]) (T, error), opts ...pgcache.Option) (pgcache.Result[T], error)
	Set(ctx context.Context, key string, value T, opts ...pgcache.Option) error
	SetMany(ctx context.Context, values map[string]T, opts ...pgcache.Option) error
	SetIfAbsent(ctx context.Context, key string, value T, opts ...pgcache.Option) (bool, error)
	Touch(ctx context.Context, key string, ttl time.Duration) (bool, error)
	Update(ctx context.Context, key string, change func(T, bool) (T, error), opts ...pgcache.Option) (T, error)
}

func viewOf[T any](n *node, opts ...pgcache.ViewOption) view[T] {
	if n.shards != nil {
		return pgcache.ForShards[T](n.shards, opts...)
	}
	return pgcache.For[T](n.single, opts...)
}

// part is the pool, the cache and the recorder that a node has for one shard. A node without shards has one part.
type part struct {
	cache    *pgcache.Cache
	db       *sql.DB
	recorder *recorder
}

// schemas are those of the shards, by their numbers; or the only one.
func (f *fleet) schemas() (list []string) {
	if f.cfg.shards == 0 {
		return []string{f.name}
	}
	for i := range f.cfg.shards {
		list = append(list, f.name+"_"+shardName(i))
	}
	return list
}

func shardName(i int) string { return fmt.Sprint("s", i) }

// shardNumber is the number of a shard with this name, -1 for none.
func shardNumber(name string) int {
	var i int
	if _, err := fmt.Sscanf(name, "s%d", &i); err != nil {
		return -1
	}
	return i
}

// shardsIn are the names of shards, without one, if it is one of them.
func (f *fleet) shardsIn(without int) (names []string) {
	for i := range f.cfg.shards {
		if i != without {
			names = append(names, shardName(i))
		}
	}
	return names
}

// owners says which shard has a key by a map that is recorded. It is asked for few maps, again and again.
type owners struct {
	mu   sync.Mutex
	maps map[string]*pgcache.Shards // without a database
}

func (p *owners) of(names []string) (*pgcache.Shards, error) {
	text := fmt.Sprint(names)
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.maps[text]; s != nil {
		return s, nil
	}
	var shards []pgcache.Shard
	for _, name := range names {
		shards = append(shards, pgcache.Shard{Name: name, Cache: pgcache.Null()})
	}
	s, err := pgcache.NewShards(shards...)
	if err == nil {
		if p.maps == nil {
			p.maps = map[string]*pgcache.Shards{}
		}
		p.maps[text] = s
	}
	return s, err
}

// close ends what the maps have.
func (p *owners) close() (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.maps {
		err = errors.Join(err, s.Close())
	}
	return err
}

// mostShards is how many a fleet may have.
const mostShards = 8

// leaseEnds is when no node follows the step before the last one of a Move any longer, from the Move's end on. It is twice what the
// library says, since a call may have asked at the last moment and be told to come back then.
const leaseEnds = 4 * time.Second

// move introduces a new map: without one of the shards, or with all again.
//
// What is promised of a key that moves is what is promised after a Delete of it that begins with the Move, and ends when all nodes
// have followed it: it may be gone, then it stays gone, and what was before never comes back. A Set meanwhile may leave
// nothing, in any order with that Delete. Keys that do not move must not notice.
func (f *fleet) move(ctx context.Context) error {
	without := -1
	if f.whole = !f.whole; !f.whole {
		without = rand.N(f.cfg.shards)
	}
	names := f.shardsIn(without)
	before, err := f.owners.of(f.shardMap)
	if err != nil {
		return err
	}
	after, err := f.owners.of(names)
	if err != nil {
		return err
	}
	notes := map[*history]int{}
	for _, h := range f.keys {
		if before.Owner(h.name) == after.Owner(h.name) {
			continue
		}
		if f.activity.keysMoved.Add(1); h.source == nil { // else it is loaded again: entries come and go
			notes[h] = h.begin(keyMover, true, 0)
		}
	}
	if err := f.mover(ctx, names); err != nil {
		return err
	}
	f.shardMap = names
	f.activity.moves.Add(1)
	select {
	case <-time.After(leaseEnds):
	case <-ctx.Done():
	}
	for h, n := range notes {
		h.done(n)
	}
	return nil
}

// moveByNode has one of the nodes move the keys.
func (f *fleet) moveByNode(ctx context.Context, names []string) error {
	n := f.nodes()[rand.N(len(f.nodes()))]
	if err := n.shards.Move(ctx, names...); err != nil {
		return fmt.Errorf("node %d: %w", n.id, err)
	}
	return nil
}

// shardOf is the number of the shard that answers for a key, by what the node knows: -1 where it is held nowhere.
func (n *node) shardOf(name string) int {
	if n.shards == nil {
		return 0
	}
	return shardNumber(n.shards.Owner(name))
}

// bounds are what a read is bound to, of each part that may answer it.
type bounds struct {
	shard   int
	applied []time.Duration
	down    []bool
}

func (n *node) bounds(name string, logged bool) bounds {
	b := bounds{shard: n.shardOf(name)}
	for _, p := range n.parts {
		applied, down := p.recorder.state(logged)
		b.applied, b.down = append(b.applied, applied), append(b.down, down)
	}
	return b
}

// of says what holds when the answer has come: that of the shard which had the key all the time. Else it may have been any of them.
func (b bounds) of(shard int) (applied time.Duration, down, moving bool) {
	if shard == b.shard && shard >= 0 {
		return b.applied[shard], b.down[shard], false
	}
	return slices.Min(b.applied), !slices.Contains(b.down, false), true
}

package main

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/redis/rueidis"
)

// goRedis is Redis or Valkey by go-redis: every Get and Set is a round trip.
type goRedis struct{ servers *servers }

func (goRedis) Name() string { return valkey }

func (b goRedis) Open(ctx context.Context, s Setup) (Store, error) {
	return &goRedisStore{b.servers, s}, b.servers.emptyRedis(ctx)
}

type goRedisStore struct {
	servers *servers
	setup   Setup
}

func (s *goRedisStore) Close(ctx context.Context) error { return s.servers.emptyRedis(ctx) }

func (s *goRedisStore) OpenNode(ctx context.Context, callers int) (Node, error) {
	client := newGoRedis(s.servers.redisAddr(s.setup.Wire), callers)
	if err := client.Ping(ctx).Err(); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return &goRedisNode{client: client, ttl: s.setup.TTL}, nil
}

// newGoRedis gives every caller a connection if it wants one: nobody waits for the pool.
func newGoRedis(addr string, callers int) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: addr, PoolSize: max(callers, 10*runtime.GOMAXPROCS(0)),
		// A feature of Redis' own cloud; without this, connecting asks the server for it.
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
}

type goRedisNode struct {
	client       *redis.Client
	ttl          time.Duration
	hits, misses atomic.Uint64
}

func (n *goRedisNode) Get(ctx context.Context, key string) (string, bool, error) {
	value, err := n.client.Get(ctx, key).Result()
	switch {
	case errors.Is(err, redis.Nil):
		n.misses.Add(1)
		return "", false, nil
	case err == nil:
		n.hits.Add(1)
	}
	return value, err == nil, err
}

func (n *goRedisNode) Set(ctx context.Context, key, value string) error {
	return n.client.Set(ctx, key, value, n.ttl).Err()
}

func (n *goRedisNode) Stats() Stats { return Stats{RemoteHits: n.hits.Load(), Misses: n.misses.Load()} }
func (n *goRedisNode) Close() error { return n.client.Close() }

// viaRueidis is Redis or Valkey by rueidis, which shares round trips between callers by itself, and keeps values in the
// process that the server then tracks (client-side caching).
type viaRueidis struct {
	servers *servers
	cache   bool
}

func (b viaRueidis) Name() string {
	if b.cache {
		return rueidisCSC
	}
	return rueidisRaw
}

func (b viaRueidis) Open(ctx context.Context, s Setup) (Store, error) {
	return &rueidisStore{b, s}, b.servers.emptyRedis(ctx)
}

type rueidisStore struct {
	viaRueidis
	setup Setup
}

func (s *rueidisStore) Close(ctx context.Context) error { return s.servers.emptyRedis(ctx) }

func (s *rueidisStore) OpenNode(ctx context.Context, _ int) (Node, error) {
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{s.servers.redisAddr(s.setup.Wire)}, DisableCache: !s.cache,
	})
	if err != nil {
		return nil, err
	}
	if err := client.Do(ctx, client.B().Ping().Build()).Error(); err != nil {
		client.Close()
		return nil, err
	}
	return &rueidisNode{client: client, cache: s.cache, ttl: s.setup.TTL}, nil
}

type rueidisNode struct {
	client              rueidis.Client
	cache               bool
	ttl                 time.Duration
	local, hits, misses striped
}

func (n *rueidisNode) Get(ctx context.Context, key string) (string, bool, error) {
	var r rueidis.RedisResult
	if n.cache {
		r = n.client.DoCache(ctx, n.client.B().Get().Key(key).Cache(), n.ttl)
	} else {
		r = n.client.Do(ctx, n.client.B().Get().Key(key).Build())
	}
	value, err := r.ToString()
	switch {
	case rueidis.IsRedisNil(err):
		n.misses.add(key)
		return "", false, nil
	case err == nil && r.IsCacheHit():
		n.local.add(key)
	case err == nil:
		n.hits.add(key)
	}
	return value, err == nil, err
}

func (n *rueidisNode) Set(ctx context.Context, key, value string) error {
	return n.client.Do(ctx, n.client.B().Set().Key(key).Value(value).Px(n.ttl).Build()).Error()
}

func (n *rueidisNode) Stats() Stats {
	return Stats{LocalHits: n.local.sum(), RemoteHits: n.hits.sum(), Misses: n.misses.sum()}
}

func (n *rueidisNode) Close() error {
	n.client.Close()
	return nil
}

// striped is a counter for many callers at once, so that counting hits in memory costs rueidis next to nothing.
type striped [16]struct {
	n atomic.Uint64
	_ [56]byte
}

func (s *striped) add(key string) { s[key[len(key)-1]%16].n.Add(1) }

func (s *striped) sum() (n uint64) {
	for i := range s {
		n += s[i].n.Load()
	}
	return n
}

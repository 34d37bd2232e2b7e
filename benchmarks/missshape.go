package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
)

// Loader is a node that can load what nobody has stored yet, once in the fleet.
type Loader interface {
	GetOrSet(ctx context.Context, key string, load func() string) (string, error)
}

var missBackends = []string{pgCache, pgNoLocal, valkey, rueidisRaw}

var missShape = shape{
	name: "miss",
	about: "One node asks for keys that nobody has stored, each once, every caller as fast as it can; the loader takes no time. pgcache: GetOrSet. " +
		"Redis: SET NX GET of a placeholder, the loader, and a Lua script that replaces the placeholder if it is still there. " +
		"With the wire a TCP proxy adds 1.5 ms and up to 0.5 ms more to every round trip.",
	backends: missBackends,
	columns: []column{
		ops("loads/s", "write.ops"), ms("mean", "write.mean_us"), ms("p50", "write.p50_us"), ms("p95", "write.p95_us"), ms("p99", "write.p99_us"),
	},
	plan: func(b *bench) (p plan) {
		p.most = 3
		for _, wire := range []bool{false, true} {
			for _, n := range []int{1, b.cfg.sizes.missCallers} {
				p.steps = append(p.steps, b.each(missLine(n, wire), missBackends, b.cfg.duration+b.cfg.warmup+time.Second,
					func(ctx context.Context, be Backend) (metrics, error) { return b.miss(ctx, be, n, wire) })...)
			}
		}
		return p
	},
}

func missLine(callers int, wire bool) string {
	line := fmt.Sprintf("%d callers", callers)
	if callers == 1 {
		line = "1 caller"
	}
	if wire {
		line += ", wire"
	}
	return line
}

func (b *bench) miss(ctx context.Context, be Backend, callers int, wire bool) (metrics, error) {
	value := stamp{}.value(b.cfg.valueBytes)
	var next atomic.Int64
	return with(ctx, be, Setup{TTL: hour, Keys: b.cfg.sizes.keys, Wire: wire}, []int{callers}, func(f *fleet) (metrics, error) {
		return b.drive(ctx, f.nodes, callers, func(ctx context.Context, c *caller) (kind, error) {
			l, ok := c.node.(Loader)
			if !ok {
				return writing, fmt.Errorf("%s can't load", be.Name())
			}
			loaded := false
			got, err := l.GetOrSet(ctx, key(int(next.Add(1))), func() string { loaded = true; return value })
			if err == nil && (!loaded || got != value) {
				err = errors.New("a cold key was not loaded")
			}
			return writing, err
		})
	})
}

// GetOrSet implements Loader.
func (n *pgNode) GetOrSet(ctx context.Context, key string, load func() string) (string, error) {
	return n.view.GetOrSet(ctx, key, func(context.Context) (string, error) { return load(), nil })
}

const (
	loadingMark  = "loading:"       // before the random text of a placeholder
	loadingFor   = 10 * time.Second // a placeholder whose owner has died
	loadingPause = 2 * time.Millisecond

	// A Set or a Delete that came while the loader ran has removed the placeholder, and must not be overwritten.
	replaceMine = `if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1 end return 0`
)

// loadThrough is the pattern for Redis: claim answers what was there before, replace stores where the claim still holds.
func loadThrough(ctx context.Context, load func() string, claim func(mark string) (was string, found bool, err error), replace func(mark, value string) error) (string, error) {
	mark := loadingMark + rand.Text()
	for {
		was, found, err := claim(mark)
		switch {
		case err != nil:
			return "", err
		case !found:
			value := load()
			return value, replace(mark, value)
		case !strings.HasPrefix(was, loadingMark):
			return was, nil
		}
		pause(ctx, loadingPause)
		if err := ctx.Err(); err != nil {
			return "", err
		}
	}
}

var goRedisReplace = redis.NewScript(replaceMine)

// GetOrSet implements Loader.
func (n *goRedisNode) GetOrSet(ctx context.Context, key string, load func() string) (string, error) {
	return loadThrough(ctx, load, func(mark string) (string, bool, error) {
		was, err := n.client.SetArgs(ctx, key, mark, redis.SetArgs{Mode: "NX", Get: true, TTL: loadingFor}).Result()
		if errors.Is(err, redis.Nil) {
			return "", false, nil
		}
		return was, err == nil, err
	}, func(mark, value string) error {
		return goRedisReplace.Run(ctx, n.client, []string{key}, mark, value, n.ttl.Milliseconds()).Err()
	})
}

var rueidisReplace = rueidis.NewLuaScript(replaceMine)

// GetOrSet implements Loader.
func (n *rueidisNode) GetOrSet(ctx context.Context, key string, load func() string) (string, error) {
	return loadThrough(ctx, load, func(mark string) (string, bool, error) {
		was, err := n.client.Do(ctx, n.client.B().Set().Key(key).Value(mark).Nx().Get().Px(loadingFor).Build()).ToString()
		if rueidis.IsRedisNil(err) {
			return "", false, nil
		}
		return was, err == nil, err
	}, func(mark, value string) error {
		return rueidisReplace.Exec(ctx, n.client, []string{key}, []string{mark, value, fmt.Sprint(n.ttl.Milliseconds())}).Error()
	})
}

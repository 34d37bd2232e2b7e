package pgcache

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// loadFunc is the loader of one key, or of many: names are the keys without the view's namespace. old are the rows that the load replaces,
// for Load.Stale. A value may be a fetchedValue.
type loadFunc func(ctx context.Context, names []string, old map[localcache.Key]store.Row) (map[string]any, error)

// call runs the loader in a goroutine of its own, because it may panic, end its goroutine, or never return.
func (r *loadRun) call(ctx context.Context, loads []*coherence.Load, names []string) (values map[string]any, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.c.opts.LoadTimeout, fmt.Errorf("%w (%v)", ErrLoadTimeout, r.c.opts.LoadTimeout))
	defer cancel()
	chain := &loadChain{cache: r.c, run: r.run, keys: make([]localcache.Key, len(loads)), outer: chainOf(ctx)}
	for i, l := range loads {
		chain.keys[i] = l.Key
	}
	type result struct {
		values map[string]any
		err    error
	}
	old := r.old
	done := make(chan result, 1) // buffered: nobody receives from a loader that returns too late
	go func() {
		res := result{err: ErrLoaderExited}
		defer func() {
			if p := recover(); p != nil {
				res = result{err: &PanicError{Value: p, Stack: debug.Stack()}}
			}
			done <- res
		}()
		values, err := r.load(context.WithValue(ctx, chainKey{}, chain), names, old)
		res = result{values, err}
	}()
	select {
	case res := <-done:
		if res.err != nil && errors.Is(res.err, context.DeadlineExceeded) && errors.Is(context.Cause(ctx), ErrLoadTimeout) {
			res.err = fmt.Errorf("%w: %w", context.Cause(ctx), res.err)
		}
		return res.values, res.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// loadChain is in the context of a loader: the keys that it loads, and in outer those of the loader that it was called from.
type loadChain struct {
	cache *Cache
	run   *coherence.Run
	keys  []localcache.Key
	outer *loadChain
}

type chainKey struct{}

// chainOf returns the chain of the loader that ctx belongs to; nil if it belongs to none.
func chainOf(ctx context.Context) *loadChain {
	chain, _ := ctx.Value(chainKey{}).(*loadChain)
	return chain
}

// loading says whether ctx belongs to a loader of k, directly or through others: a load of k would wait for itself.
func loading(ctx context.Context, c *Cache, k localcache.Key) bool {
	for chain := chainOf(ctx); chain != nil; chain = chain.outer {
		if chain.cache == c {
			for _, key := range chain.keys {
				if key == k {
					return true
				}
			}
		}
	}
	return false
}

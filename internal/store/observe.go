package store

import (
	"context"

	"github.com/pgcache/go/internal/batch"
)

// Observe has f called before each statement that reads or writes entries for callers. name is "read", "write", or "store" for what was
// loaded. callers are the contexts of those that share it. The statement has the context that f returns. Statements in callers'
// transactions, removals of groups and the looks of loads are not observed. Observe is to be called before use.
func (s *Store) Observe(f observer) {
	of := func(name string) func(context.Context, []context.Context) (context.Context, func(error)) {
		return func(ctx context.Context, callers []context.Context) (context.Context, func(error)) {
			return f(ctx, name, callers)
		}
	}
	s.observe = f
	s.reads.Observe, s.conditional.Observe, s.increments.Observe = of("read"), of("write"), of("write")
	for name, qs := range map[string][]*batch.Queue[write, Written]{"write": {&s.writes, &s.heavyWrites}, "store": {&s.loads, &s.heavyLoads}} {
		for _, q := range qs {
			q.Observe = of(name)
		}
	}
}

// observed calls read, and the observer around it. No callers share such a read.
func observed[T any](ctx context.Context, s *Store, read func(ctx context.Context) (T, error)) (v T, err error) {
	if s.observe != nil {
		var end func(error)
		ctx, end = s.observe(ctx, "read", nil)
		defer func() { end(err) }()
	}
	return read(ctx)
}

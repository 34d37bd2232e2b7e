package pgcache

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// Source is where a value came from. The zero value is of no value, as beside an error.
type Source int

// Where a value came from.
const (
	FromMemory   Source = iota + 1 // this process's memory
	FromDatabase                   // the table
	FromLoader                     // a loader, this caller's or one that it shared
)

// String returns "memory", "database" or "loader".
func (s Source) String() string {
	switch s {
	case FromMemory:
		return "memory"
	case FromDatabase:
		return "database"
	case FromLoader:
		return "loader"
	}
	return "nowhere"
}

// Result is what Fetch returns.
type Result[T any] struct {
	Value  T
	Source Source
	Stale  bool  // Value has expired: see StaleFor
	Err    error // why it is stale: what the loader returned, or an ErrLoadTimeout if it is late
}

// Load is what a loader of Fetch is told, and with what it says how the value that it returns is stored. Calls after the loader
// has returned have no effect. It is safe for concurrent use.
type Load[T any] struct {
	view *view
	key  localcache.Key
	old  store.Row

	mu      sync.Mutex
	options valueOptions
	ttlErr  error
	tagsErr error
}

// valueOptions are what a loader of Fetch says of its value.
type valueOptions struct {
	ttl        time.Duration // 0: the view's
	tags       []string      // nil: the view's
	doNotStore bool
}

// fetchedValue is what a loader of Fetch has returned, with its options.
type fetchedValue struct {
	value any
	valueOptions
}

// Stale returns what is stored under the key, if it has expired and StaleFor has kept it, or if this load is in the background
// (RefreshAfter) and replaces it: for a conditional request, for example. Returning it again stores it anew.
func (l *Load[T]) Stale() (v T, ok bool) {
	if l.old.Value == nil || l.view.unmarshal(l.key, l.old.Codec, l.old.Value, &v) != nil {
		return *new(T), false
	}
	return v, true
}

// SetTTL says how long the value lives, as the option TTL does. A TTL that is not valid makes Fetch return ErrInvalidTTL.
func (l *Load[T]) SetTTL(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.options.ttl, l.ttlErr = ttl(d)
}

// SetTags says to which groups the value belongs, or that there is none (NegativeTTL), in place of those of the view. Tags that are
// not valid make Fetch return ErrInvalidTag.
func (l *Load[T]) SetTags(tags ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.options.tags, l.tagsErr = withTags([]string{}, tags)
}

// DoNotStore hands the value out to the callers that wait and stores it nowhere. What is stored under the key stays, a stale value
// too.
func (l *Load[T]) DoNotStore() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.options.doNotStore = true
}

// valueOptions are what the loader has said so far.
func (l *Load[T]) valueOptions() (valueOptions, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.options
	o.tags = slices.Clone(o.tags) // the loader may go on and change them
	return o, errors.Join(l.ttlErr, l.tagsErr)
}

// Fetch is GetOrSet with more to know and to say: its Result tells where the value came from and whether it is stale, and its
// loader is told what there was before, and says for how long, in which groups and whether at all its value is stored.
func (t *Typed[T]) Fetch(ctx context.Context, key string, load func(context.Context, *Load[T]) (T, error), opts ...Option) (Result[T], error) {
	const op = "fetch"
	with, err := t.apply(opts)
	if err != nil {
		return Result[T]{}, fail(op, key, err)
	}
	if load == nil {
		return Result[T]{}, fail(op, key, errNilLoader)
	}
	k := t.key(key)
	if v, h := t.fromMemory(k); h.e != nil {
		if h.left() < with.due && with.dueInMemory(h) {
			with.loadEarly(ctx, []localcache.Key{k}, reflect.TypeFor[T](), false, fetchLoader(with, load))
		}
		return Result[T]{Value: v, Source: FromMemory}, nil
	}
	return fetch(ctx, with, op, key, load)
}

// fetch is Fetch where memory has nothing. It is a function of its own because v escapes to the heap in it: a hit allocates nothing.
func fetch[T any](ctx context.Context, with view, op, key string, load func(context.Context, *Load[T]) (T, error)) (Result[T], error) {
	var v T
	g, err := with.getOrSet(ctx, op, key, &v, fetchLoader(with, load))
	if err != nil {
		return Result[T]{}, err
	}
	return Result[T]{Value: v, Source: g.source, Stale: g.stale, Err: g.err}, nil
}

// fetchLoader makes a loadFunc of a loader of Fetch.
func fetchLoader[T any](v view, load func(context.Context, *Load[T]) (T, error)) loadFunc {
	return func(ctx context.Context, names []string, old map[localcache.Key]store.Row) (map[string]any, error) {
		l := &Load[T]{view: &v, key: v.key(names[0])}
		l.old = old[l.key]
		value, err := load(ctx, l)
		o, invalid := l.valueOptions()
		if invalid != nil && (err == nil || errors.Is(err, ErrNotFound) && errors.Is(invalid, ErrInvalidTag)) { // a negative entry has tags, too
			err = invalid
		}
		return map[string]any{names[0]: fetchedValue{value, o}}, err
	}
}

// plainLoader makes a loadFunc of a loader of GetOrSet.
func plainLoader[T any](load func(context.Context) (T, error)) loadFunc {
	return func(ctx context.Context, names []string, _ map[localcache.Key]store.Row) (map[string]any, error) {
		value, err := load(ctx)
		return map[string]any{names[0]: value}, err
	}
}

// answer says where the value that a caller gets came from.
type answer struct {
	source Source
	stale  bool
	err    error // why it is stale
}

// sourceOf says where the value of a load came from.
func sourceOf(out *coherence.Loaded) Source {
	switch {
	case out.Memory:
		return FromMemory
	case out.Loader:
		return FromLoader
	}
	return FromDatabase
}

package pgcache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

var (
	// ErrNotCounter is returned by Increment for a value that is no whole number of 64 bits in JSON. The value stays as it is.
	ErrNotCounter = errors.New("the value is no counter")

	// ErrOverflow is returned by Increment where the number would not fit into 64 bits. The value stays as it is.
	ErrOverflow = errors.New("the counter would overflow")
)

// Increment adds delta, which may be negative, to the counter under key and returns what it is then. Each caller's delta counts
// once, on all nodes together. A counter that is not there, has expired or was deleted begins at 0.
//
// Options, such as the TTL, are for a counter that begins: later ones change neither its TTL nor its tags. So a counter with
// TTL(time.Minute) counts the events of a minute that begins with the first one.
//
// A counter is a number in JSON, whatever the Codec of the Cache: Get into an int reads it where the Codec is codec.JSON, or in a
// view with WithCodec(codec.JSON{}). Set may give it a value. Nodes do not keep what Increment returns in memory.
//
// After an error the outcome is unknown where the connection was lost or ctx ended: it is not tried again, because it could count
// twice.
func (c *Cache) Increment(ctx context.Context, key string, delta int64, opts ...Option) (n int64, err error) {
	const op = "increment"
	v := &c.base
	if err := v.enter(op, key); err != nil {
		return 0, err
	}
	k := v.key(key)
	for _, o := range opts {
		if o.kind == optionCodec {
			return 0, fail(op, k.Row(), errors.New("WithCodec: a counter is always a number in JSON"))
		}
	}
	with, err := v.apply(opts)
	if err != nil {
		return 0, fail(op, k.Row(), err)
	}
	if c.null {
		return delta, nil
	}
	defer with.observe(&ctx, op, 1).end(nil, &err)
	if n, err = with.increment(ctx, k, delta); err != nil {
		return 0, fail(op, k.Row(), err)
	}
	with.stats.sets.Add(1)
	return n, nil
}

// counterTries bounds how often an increment is sent. It is sent again when the statement has refused it and the row, read afterwards, shows
// no reason: somebody has written it in between.
const counterTries = 8

func (v *view) increment(ctx context.Context, k localcache.Key, delta int64) (int64, error) {
	c := v.c
	for try := range counterTries {
		var out store.Incremented
		w := v.newWrite(k, nil)
		done, err := v.conditional(ctx, k, w.Version, nil, func(inline bool) (_ store.Written, err error) {
			out, err = c.store.Increment(ctx, store.Increment{Write: w, Delta: delta, Alone: try > 0}, inline)
			return out.Written, err
		})
		if done || err != nil {
			return out.N, err
		}
		// The statement says that it was refused and not why: it judges a row that was committed after its snapshot.
		row, err := c.store.Get(ctx, k.Row())
		if err != nil {
			return 0, c.explain(ctx, err)
		}
		if err := countable(row, delta); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("%w: others change it all the time", ErrNotCounter)
}

// countable says why delta can't be added to a row, if it can't.
func countable(row store.Row, delta int64) error {
	switch {
	case row.TooLarge():
		return fmt.Errorf("%w: it is larger than MaxValueBytes", ErrNotCounter)
	case !row.Live():
		return nil
	case row.Codec != codec.JSON{}.Name():
		return fmt.Errorf("%w: it was written with codec %q", ErrNotCounter, row.Codec)
	}
	n, err := strconv.ParseInt(string(row.Value), 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != string(row.Value) {
		return ErrNotCounter // what it is instead is nobody's business here
	}
	if delta > 0 && n > math.MaxInt64-delta || delta < 0 && n < math.MinInt64-delta {
		return ErrOverflow
	}
	return nil
}

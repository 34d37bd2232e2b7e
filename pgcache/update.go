package pgcache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// ErrUpdateConflict is returned by Typed.Update when others changed the entry each time before it could.
var ErrUpdateConflict = errors.New("others changed the entry each time")

const (
	updateTries = 16
	updatePause = 128 * time.Millisecond // the longest before another try
	updateTurn  = time.Second            // the longest wait for the updates of the key that came before, in this process
)

// Update reads the value under key from the database, calls change with it, and stores what change returns if nobody has written
// the key meanwhile; else it does so again, up to 16 times, and then returns ErrUpdateConflict. It returns what it has stored. So
// no update is lost, whoever else updates, sets or deletes the key. The updates of a key in this process go one after the other; one
// that has waited for a second goes all the same.
//
// found is false where there is no value, or one that does not decode as a T; old is then the zero value. change may be called more
// than once, and should do nothing else than compute. An error of change is returned, wrapped, and nothing is stored. The new value
// has the TTL of opts or of the view, like one of Set, not what was left of the old one's.
//
// After another error the outcome is unknown where the connection was lost or ctx ended.
func (t *Typed[T]) Update(ctx context.Context, key string, change func(old T, found bool) (T, error), opts ...Option) (_ T, err error) {
	const op = "update"
	var none T
	if change == nil {
		return none, fail(op, key, errNilChange)
	}
	if err := t.enter(op, key); err != nil {
		return none, err
	}
	k := t.key(key)
	with, err := t.apply(opts)
	if err != nil {
		return none, fail(op, k.Row(), err)
	}
	defer with.observe(&ctx, op, 1).end(nil, &err)
	defer t.c.updates.wait(ctx, k)()
	for try := range updateTries {
		if try > 0 {
			// Random, so that those who met once do not meet again.
			pauseFor(ctx, rand.N(min(time.Millisecond<<try, updatePause)), nil)
			if ctx.Err() != nil {
				return none, fail(op, k.Row(), ctx.Err())
			}
		}
		value, done, err := updateOnce(ctx, op, &with, k, change)
		if err != nil {
			return none, err
		}
		if done {
			return value, nil
		}
	}
	return none, fail(op, k.Row(), fmt.Errorf("%w, %d times", ErrUpdateConflict, updateTries))
}

// updateOnce is one try of Update. done is false where others have written the key between the read and the write. The error is the
// caller's.
func updateOnce[T any](ctx context.Context, op string, with *view, k localcache.Key, change func(old T, found bool) (T, error)) (value T, done bool, err error) {
	c := with.c
	var row store.Row
	if !c.null {
		if err := c.check(ctx); err != nil {
			return value, false, fail(op, k.Row(), err)
		}
		// Not Get: what is in memory may be older than the row, and each try would then be in vain.
		if row, err = c.store.Get(ctx, k.Row()); err != nil {
			return value, false, fail(op, k.Row(), c.explain(ctx, err))
		}
	}
	var old T
	found := row.Live() && with.decode(k, row.Codec, row.Value, &old)
	if value, err = change(old, found); err != nil {
		return value, false, failLoad(op, k.Row(), fmt.Errorf("change: %w", err))
	}
	data, err := with.encode(k, value)
	if err != nil {
		return value, false, fail(op, k.Row(), err)
	}
	if c.null {
		return value, true, nil
	}
	w := with.newWrite(k, data)
	done, err = with.conditional(ctx, k, w.Version, storedRow(w), func(inline bool) (store.Written, error) {
		// A row may be live and of no use here: one that does not decode, or is too large. It is replaced.
		if row.Live() || row.TooLarge() {
			w.Fence = row.Version
			return c.store.Replace(ctx, w, inline)
		}
		return c.store.PutAbsent(ctx, w, inline)
	})
	if done {
		with.stats.sets.Add(1)
	}
	return value, done, fail(op, k.Row(), err)
}

var errNilChange = errors.New("the function that changes the value is nil")

package pgcache

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// Get reads the value under key into dst, a non-nil pointer, and says whether there was one. Nothing of what dst held
// before is left in a value; without one dst stays as it was. A value that does not decode into dst is a miss, and leaves
// the zero value. What Get hands out is the caller's own to change.
func (c *Cache) Get(ctx context.Context, key string, dst any) (found bool, err error) {
	if err := checkDst(dst); err != nil {
		return false, fail("get", key, err)
	}
	return c.base.get(ctx, "get", key, dst)
}

// get looks into memory, then asks the database.
func (v *view) get(ctx context.Context, op, key string, dst any) (found bool, err error) {
	k := v.key(key)
	if v.fromMemory(k, dst).e != nil {
		return true, nil
	}
	if err := v.enter(op, key); err != nil {
		return false, err
	}
	if v.negativeInMemory(k) { // the Observer is not shown what memory answers
		return false, nil
	}
	defer v.observe(&ctx, op, 1).end(&found, &err)
	row, err := v.read(ctx, k)
	if err != nil {
		return false, fail(op, k.Row(), err)
	}
	return v.take(k, row, dst), nil
}

// hit is an entry of memory that was handed out at now, by the monotonic clock; e is nil if there was none.
type hit struct {
	e   *localcache.Entry
	now int64
}

// left is how much longer memory may hand it out.
func (h hit) left() time.Duration { return time.Duration(h.e.Deadline - h.now) }

// fromMemory decodes the bytes of k that are kept in memory, if they may be handed out.
func (v *view) fromMemory(k localcache.Key, dst any) hit {
	now := coherence.Now()
	return v.handOut(k, v.c.local.Hit(k, now), now, dst)
}

// handOut decodes the bytes of e, which memory had of k at now; nil if it had nothing.
func (v *view) handOut(k localcache.Key, e *localcache.Entry, now int64, dst any) hit {
	if e == nil || e.Raw == nil || v.err != nil || v.unmarshal(k, e.Codec.Value(), *e.Raw, dst) != nil {
		return hit{}
	}
	v.stats.hit(now)
	return hit{e, now}
}

// take decodes a row into dst, counts the hit or the miss, and says whether there was a value.
func (v *view) take(k localcache.Key, row store.Row, dst any) bool {
	if row.Live() && v.decode(k, row.Codec, row.Value, dst) {
		v.stats.remoteHits.Add(1)
		return true
	}
	if row.TooLarge() {
		v.c.stats.decodeErrors.Add(1)
		v.c.warn("a stored value is larger than MaxValueBytes and counts as a miss", "key", k.Row())
	}
	if !v.negativeInRow(&row) {
		v.stats.misses.Add(1)
	}
	return false
}

// read reads the row of k from the database, once for all callers that ask while the statement is under way, and keeps
// it in memory unless the key was invalidated meanwhile.
func (v *view) read(ctx context.Context, k localcache.Key) (store.Row, error) {
	c := v.c
	if c.null {
		return store.Row{}, nil
	}
	if err := c.check(ctx); err != nil {
		return store.Row{}, err
	}
	c.reading()
	for {
		f, leader := c.local.BeginRead(k)
		if leader {
			return v.readFor(ctx, k, f)
		}
		o := c.begin(&ctx, Op{Kind: OpWait, Name: "read", View: v.namespace, Keys: 1})
		select {
		case <-f.Done():
		case <-ctx.Done():
			o.waitedFor(ctx.Err())
			return store.Row{}, ctx.Err()
		}
		o.waitedFor(nil, f.Caller)
		row, err := f.Result()
		if errors.Is(err, errGivenUp) || f.Expired() {
			continue // the leader's context ended, or what it read has expired since: read again
		}
		return row, err
	}
}

// errNoResult is the error of a shared read whose statement panicked.
var errNoResult = errors.New("the read ended without a result")

// errGivenUp is the error of a shared read whose leader's own context has ended: those who share it read again.
var errGivenUp = errors.New("the caller gave up")

// readFor sends the statement of f, which this caller leads, and ends it with the row or with readErr, which those who share it get.
func (v *view) readFor(ctx context.Context, k localcache.Key, f *coherence.Read) (row store.Row, err error) {
	c := v.c
	f.Caller = ctx
	readErr := errNoResult // if it panics
	var e *localcache.Entry
	defer func() { f.Finish(row, readErr, e) }()

	sent := coherence.Now()
	row, err = c.store.Get(ctx, k.Row())
	if err != nil {
		err = c.explain(ctx, err)
		if readErr = err; ctx.Err() != nil {
			readErr = errGivenUp
		}
		return row, err
	}
	readErr = nil
	c.checkServer(row.Server)
	e = v.entry(k, &row, sent)
	return row, nil
}

// readMany reads the rows of keys in one statement. A refresh gives interest, which says for how many more versions each key is worth
// reading again, see localcache.Entry.Interest; for a caller's keys it is nil.
func (v *view) readMany(ctx context.Context, keys []localcache.Key, interest map[localcache.Key]uint32) (map[localcache.Key]store.Row, error) {
	c := v.c
	if c.null || len(keys) == 0 {
		return nil, nil
	}
	if err := c.check(ctx); err != nil {
		return nil, err
	}
	c.reading()
	reads := make([]*coherence.Read, len(keys))
	names := make([]string, len(keys))
	for i, k := range keys {
		reads[i], names[i] = c.local.BeginReadAlone(k), k.Row()
	}
	var found []store.Row
	entries := make([]*localcache.Entry, len(keys))
	readErr := errNoResult
	defer func() { // also if a driver panics: others wait for these reads
		for i, f := range reads {
			var row store.Row
			if found != nil {
				row = found[i]
			}
			f.Finish(row, readErr, entries[i])
		}
	}()
	sent := coherence.Now()
	found, err := c.store.GetMany(ctx, names)
	if err != nil {
		err = c.explain(ctx, err)
		if readErr = err; ctx.Err() != nil {
			readErr = errGivenUp
		}
		return nil, err
	}
	readErr = nil
	rows := make(map[localcache.Key]store.Row, len(found))
	for i, k := range keys {
		if entries[i] = v.entry(k, &found[i], sent); entries[i] != nil && interest[k] > 0 {
			entries[i].Inherit(interest[k] - 1)
		}
		rows[k] = found[i]
	}
	if len(found) > 0 {
		c.checkServer(found[0].Server)
	}
	return rows, nil
}

// checkDst refuses what a value can't be decoded into.
func checkDst(dst any) error {
	if v := reflect.ValueOf(dst); v.Kind() != reflect.Pointer || v.IsNil() {
		return fmt.Errorf("dst must be a non-nil pointer, not %T", dst)
	}
	return nil
}

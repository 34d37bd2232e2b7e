package pgcache

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/window"
	"github.com/pgcache/go/localcache"
)

// Set stores value under key. When it has returned, this Cache returns nothing older. The other nodes know within the
// InvalidationWindow and the time that a notification takes: see P2.
// After an error the outcome is unknown where the connection was lost or ctx ended; memory then holds nothing of the key.
func (c *Cache) Set(ctx context.Context, key string, value any, opts ...Option) error {
	return c.base.set(ctx, "set", key, value, opts)
}

func (v *view) set(ctx context.Context, op, key string, value any, opts []Option) (err error) {
	if err := v.enter(op, key); err != nil {
		return err
	}
	k := v.key(key)
	with, err := v.apply(opts)
	if err != nil {
		return fail(op, k.Row(), err)
	}
	data, err := with.encode(k, value)
	if err != nil {
		return fail(op, k.Row(), err)
	}
	if v.c.null {
		return nil
	}
	defer v.observe(&ctx, op, 1).end(nil, &err)
	err = with.write(ctx, []write{{k, data}})
	if err == nil {
		v.stats.sets.Add(1)
	}
	return fail(op, k.Row(), err)
}

// setMany stores values, of which each is written or not: several statements where they are many. A value that can't be
// stored is refused before anything is written.
func (v *view) setMany(ctx context.Context, values map[string]any, opts []Option) (err error) {
	const op = "set many"
	with, err := v.apply(opts)
	if err != nil {
		return fail(op, "", err)
	}
	ws := make([]write, 0, len(values))
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if err := v.enter(op, key); err != nil {
			return err
		}
		data, err := with.encode(v.key(key), values[key])
		if err != nil {
			return fail(op, v.key(key).Row(), err)
		}
		ws = append(ws, write{v.key(key), data})
	}
	if v.c.null || len(ws) == 0 {
		return v.c.closedErr(op)
	}
	defer v.observe(&ctx, op, len(ws)).end(nil, &err)
	if err := with.write(ctx, ws); err != nil {
		return fail(op, "", err)
	}
	v.stats.sets.Add(uint64(len(ws)))
	return nil
}

// write is a key and its new value; nil data deletes.
type write struct {
	key  localcache.Key
	data []byte
}

// write writes rows and logs or publishes the change, and keeps the rows in memory unless others have written them meanwhile.
func (v *view) write(ctx context.Context, ws []write) (err error) {
	c := v.c
	if err := c.check(ctx); err != nil {
		return err
	}
	rows := make([]store.Write, len(ws))
	versions := make([]int64, len(ws))
	writers := make([]*coherence.Writer, len(ws))
	_, over := v.life()
	for i, w := range ws {
		if rows[i] = v.newWrite(w.key, w.data); w.data == nil || over {
			makeTombstone(&rows[i])
		}
		writers[i], versions[i] = c.local.BeginWrite(w.key, rows[i].Version, nil), rows[i].Version
	}
	var out store.Written
	written := false
	inline := c.beginWrite(false, versions...)
	sent := coherence.Now()
	defer func() {
		// Also if a driver panics. Without a reply memory keeps nothing: the write may have been done, or may still be.
		for i, w := range writers {
			var e *localcache.Entry
			if written {
				e = v.entry(ws[i].key, storedRow(rows[i]), sent)
			}
			w.Finish(e, out.Server, rows[i].Tags...)
			if written {
				v.noteStale(ws[i].key, &rows[i], sent)
			}
		}
		c.endWrite(versions, out, err)
	}()
	if out, err = c.store.Put(ctx, rows, inline); err != nil {
		return c.explain(ctx, err)
	}
	written = true
	c.checkServer(out.Server)
	return nil
}

// beginWrite is called before a statement is sent that writes these versions, and endWrite after it. inline says that the statement
// has to publish them itself, which forceInline asks for.
func (c *Cache) beginWrite(forceInline bool, versions ...int64) (inline bool) {
	c.late.began(versions)
	return c.window.Begin(forceInline, versions...)
}

// endWrite says what came of a write that beginWrite began.
func (c *Cache) endWrite(versions []int64, out store.Written, err error) {
	c.late.replied(versions, !out.Published && (len(out.Logged) == 0 || !out.Logged[0]))
	for i, version := range versions {
		outcome := window.Silent
		switch {
		case i < len(out.Logged) && out.Logged[i]:
			outcome = window.Logged
		case out.Published:
			outcome = window.Published
		case i >= len(out.Logged) && !refused(err):
			outcome = window.Unknown
		}
		c.window.End(version, outcome)
	}
}

// refused says that the server has answered, and has not done what it was asked.
func refused(err error) bool { return sqlerr.State(err) != "" && !sqlerr.Connection(err) }

// life is the TTL of what the view writes now. over says that ExpiresAt has passed; the TTL is then a microsecond.
func (v *view) life() (d time.Duration, over bool) {
	if v.until.IsZero() {
		return v.ttl, false
	}
	if d = time.Until(v.until); d <= 0 {
		return time.Microsecond, true
	}
	d, _ = ttl(d) // a positive one is never refused
	return d, false
}

// newWrite is the row that the view writes under k now, with a version of its own.
func (v *view) newWrite(k localcache.Key, data []byte) store.Write {
	life, _ := v.life()
	return store.Write{Key: k.Row(), Value: data, Version: store.NewVersion(v.localNever), TTL: life, Codec: v.codecName, Stale: v.staleFor(), Tags: v.tags}
}

// makeTombstone makes w the row that a Delete leaves.
func makeTombstone(w *store.Write) { w.Value, w.Tags, w.Stale, w.TTL = nil, nil, 0, tombstoneGrace }

// storedRow is the row that w has become.
func storedRow(w store.Write) *store.Row {
	return &store.Row{Key: w.Key, Value: w.Value, Version: w.Version, Codec: w.Codec, Remaining: remaining(w.TTL), Tags: w.Tags}
}

// remaining is how long a row lives that was just written with this TTL.
func remaining(ttl time.Duration) time.Duration {
	if ttl == store.Never {
		return 1<<63 - 1
	}
	return ttl
}

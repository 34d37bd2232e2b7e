package pgcache

import (
	"context"
	"errors"
	"maps"
	"slices"

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
	data, err := with.encode(v.key(key), value)
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

// write is one row to be written: data nil deletes.
type write struct {
	key  localcache.Key
	data []byte
}

// write writes rows and publishes them, and keeps them in memory unless they were written by others meanwhile.
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
		if rows[i] = v.row(w.key, w.data); w.data == nil || over {
			rows[i].Value, rows[i].Stale, rows[i].Tags = nil, 0, nil
			rows[i].TTL, rows[i].PublishNew = tombstoneGrace, true
		}
		writers[i], versions[i] = c.local.BeginWrite(w.key, rows[i].Version, nil), rows[i].Version
	}
	var out store.Written
	written := false
	inline := c.beginWrite(false, versions...)
	sent := coherence.Now()
	defer func() {
		// Also if a driver panics. Without the reply, memory holds nothing: the write may still come to pass.
		for i, w := range writers {
			var e *localcache.Entry
			if written {
				e = v.entry(ws[i].key, &store.Row{
					Value: rows[i].Value, Version: rows[i].Version, Codec: rows[i].Codec, Remaining: remaining(rows[i].TTL),
				}, sent)
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

// refused says that the server has answered, and that it did not do what it was asked.
func refused(err error) bool { return sqlerr.State(err) != "" && !sqlerr.Connection(err) }

// Delete removes keys; a key without an entry is no error. When it has returned, this Cache returns nothing older; the other
// nodes know within the InvalidationWindow and the time that a notification takes: see P2. No loader that began before can
// store what it read. The delete of several keys is one statement up to a thousand of them.
func (c *Cache) Delete(ctx context.Context, keys ...string) error { return c.base.delete(ctx, keys) }

func (v *view) delete(ctx context.Context, keys []string) (err error) {
	const op = "delete"
	ws := make([]write, 0, len(keys))
	seen := make(map[string]bool, len(keys))
	for _, key := range keys {
		if err := v.enter(op, key); err != nil {
			return err
		}
		if !seen[key] {
			seen[key] = true
			ws = append(ws, write{key: v.key(key)})
		}
	}
	if v.err != nil || v.c.null || len(ws) == 0 {
		return errors.Join(fail(op, "", v.err), v.c.closedErr(op))
	}
	name := ""
	if len(ws) == 1 {
		name = ws[0].key.Row()
	}
	defer v.observe(&ctx, op, len(ws)).end(nil, &err)
	if err := v.write(ctx, ws); err != nil {
		return fail(op, name, err)
	}
	v.stats.deletes.Add(uint64(len(ws)))
	return nil
}

// Clear removes every entry under this Prefix, on every node. No loader that began before can store what it read. It keeps
// no writer waiting, and waits itself for the transactions that are writing to the table when it begins, for Options.Timeout
// at the most. It empties the table at once; where a dump or a report is reading it, in batches, which takes longer with a
// large one than Options.Timeout may allow. After an error some entries may be left: none older than those that are gone is
// stored again, and Clear may be called again.
func (c *Cache) Clear(ctx context.Context) (err error) {
	if c.null {
		return c.closedErr("clear")
	}
	if err := c.check(ctx); err != nil {
		return fail("clear", "", err)
	}
	defer c.base.observe(&ctx, "clear", 0).end(nil, &err)
	// Before, so that no read that is under way stays; after, so that none that began meanwhile does; and also after an
	// error, because the outcome may be unknown.
	c.local.Forget()
	defer c.local.Forget()
	statement, cancel := c.statement(ctx)
	defer cancel()
	return fail("clear", "", c.explain(ctx, c.store.Clear(statement)))
}

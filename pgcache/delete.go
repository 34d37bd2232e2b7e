package pgcache

import (
	"context"
	"errors"
)

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
	// Forget before, so that no read that is under way is kept; and after, so that none that began meanwhile is, also after an error,
	// because the outcome may be unknown.
	c.local.Forget()
	defer c.local.Forget()
	statement, cancel := c.statement(ctx)
	defer cancel()
	return fail("clear", "", c.explain(ctx, c.store.Clear(statement)))
}

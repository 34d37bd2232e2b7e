package pgcache

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/pgcache/go/internal/store"
)

// Entry is a value with what the database knows of it.
type Entry[T any] struct {
	Key       string // as the view has it, without the namespace
	Value     T
	ExpiresIn time.Duration // from when it was read; NoExpiry: never
	Tags      []string
}

func entryOf[T any](key string, row store.Entry) Entry[T] {
	e := Entry[T]{Key: key, ExpiresIn: row.Remaining, Tags: row.Tags}
	if row.Forever {
		e.ExpiresIn = NoExpiry
	}
	return e
}

// GetEntry returns the value under key with its tags and how long it lives, from the database, and whether there is one. Like Get
// it says no of a value that does not decode as a T. It neither asks memory nor leaves anything there.
func (t *Typed[T]) GetEntry(ctx context.Context, key string) (_ Entry[T], found bool, err error) {
	const op = "get entry"
	if err := t.enter(op, key); err != nil {
		return Entry[T]{}, false, err
	}
	k, c := t.key(key), t.c
	if c.null {
		return Entry[T]{}, false, nil
	}
	if err := c.check(ctx); err != nil {
		return Entry[T]{}, false, fail(op, k.Row(), err)
	}
	defer t.observe(&ctx, op, 1).end(&found, &err)
	row, err := bounded(ctx, c, func(ctx context.Context) (store.Entry, error) { return c.store.Entry(ctx, k.Row()) })
	if err != nil {
		return Entry[T]{}, false, fail(op, k.Row(), c.explain(ctx, err))
	}
	c.checkServer(row.Server)
	e := entryOf[T](key, row)
	if !t.take(k, row.Row, &e.Value) {
		return Entry[T]{}, false, nil
	}
	return e, true, nil
}

// Entries are the entries of the view's namespace, in the order of their keys (byte by byte); of a view without one all entries of
// the Cache, whatever their namespace. They are read in pages of at most 500, each in a statement of its own: no transaction stays
// open between them, so what is written meanwhile may be among them or not. A page takes at most 8 MiB of values, or one.
//
// An entry that does not decode as a T comes with an error and its key alone, and the next ones follow. After an error of the
// database, which has no key, there is nothing more.
func (t *Typed[T]) Entries(ctx context.Context) iter.Seq2[Entry[T], error] {
	return func(yield func(Entry[T], error) bool) {
		const op = "entries"
		start := ""
		if t.namespace != "" {
			start = t.namespace + ":"
		}
		err := walk(ctx, &t.view, op, start, t.c.store.EntriesPage, func(row store.Entry) (more bool) {
			if !strings.HasPrefix(row.Key, start) {
				return false
			}
			key := strings.TrimPrefix(row.Key, start)
			e := entryOf[T](key, row)
			k := t.key(key)
			var err error
			if row.TooLarge() {
				err = fmt.Errorf("%w: it is larger than MaxValueBytes", ErrValueTooLarge)
			} else {
				err = t.unmarshal(k, row.Codec, row.Value, &e.Value)
			}
			if err != nil {
				e = Entry[T]{Key: key}
			}
			return yield(e, fail(op, row.Key, err))
		})
		if err != nil {
			yield(Entry[T]{}, err)
		}
	}
}

// Keys are the keys that begin with prefix, with their namespaces, of the values that there are, in order (byte by byte). Like
// Entries they are read in pages of at most 500, without a transaction. After an error there is nothing more.
func (c *Cache) Keys(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		const op = "keys"
		if prefix != "" {
			if err := checkKey("", prefix); err != nil {
				yield("", fail(op, prefix, fmt.Errorf("the prefix: %w", err)))
				return
			}
		}
		err := walk(ctx, &c.base, op, prefix, c.store.KeysPage, func(key string) (more bool) {
			return strings.HasPrefix(key, prefix) && yield(key, nil)
		})
		if err != nil {
			yield("", err)
		}
	}
}

// walk calls each with the rows from start on, a page after the other, until it says that there shall be no more. Keys with a common
// prefix follow each other: the first without it ends the walk, which reads one page beyond at most.
func walk[T any](ctx context.Context, v *view, op, start string, page func(ctx context.Context, start, after string) (store.Page[T], error), each func(T) (more bool)) error {
	c := v.c
	for after := ""; ; {
		if v.err != nil {
			return fail(op, "", v.err)
		}
		if err := c.closedErr(op); err != nil || c.null {
			return err
		}
		if err := c.check(ctx); err != nil {
			return fail(op, "", err)
		}
		// Of a page: the time that the caller takes between two of them is not the cache's.
		reading := ctx
		o := v.observe(&reading, op, 0)
		p, err := bounded(reading, c, func(ctx context.Context) (store.Page[T], error) { return page(ctx, start, after) })
		o.end(nil, &err)
		if err != nil {
			return fail(op, "", c.explain(ctx, err))
		}
		for _, row := range p.Rows {
			if !each(row) {
				return nil
			}
		}
		if p.Last == "" || !strings.HasPrefix(p.Last, start) {
			return nil
		}
		after = p.Last
	}
}

package pgcache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/store"
)

// MaxTags is how many tags an entry may have, MaxTagBytes how long one may be.
const (
	MaxTags     = 32
	MaxTagBytes = 256
)

// Tags puts entries that are stored into groups, which DeleteTags removes as a whole. The tags of a call are added to those of its
// view. An entry that is stored again belongs to the groups of the last call alone.
func Tags(tags ...string) Option { return Option{kind: optionTags, tags: tags} }

// withTags is have and more, each once.
func withTags(have, more []string) ([]string, error) {
	out := slices.Clone(have)
	for _, tag := range more {
		if err := checkTag(tag); err != nil {
			return nil, err
		}
		if !slices.Contains(out, tag) {
			out = append(out, tag)
		}
	}
	if len(out) > MaxTags {
		return nil, fmt.Errorf("%w: %d tags, at most %d are allowed", ErrInvalidTag, len(out), MaxTags)
	}
	return out, nil
}

func checkTag(tag string) error {
	switch {
	case tag == "":
		return fmt.Errorf("%w: it is empty", ErrInvalidTag)
	case len(tag) > MaxTagBytes:
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrInvalidTag, len(tag), MaxTagBytes)
	case strings.IndexByte(tag, 0) >= 0:
		return fmt.Errorf("%w: it has a NUL", ErrInvalidTag)
	case !utf8.ValidString(tag):
		return fmt.Errorf("%w: it is not valid UTF-8", ErrInvalidTag)
	}
	return nil
}

// DeleteTags removes all entries that have one of the tags, in the time of one small statement however many they are: it writes down
// that the groups were removed, and what was stored before counts as none. It waits for no row that anybody holds. When it has
// returned, this Cache returns nothing older, and no loader that began before can store a value with one of the tags; the other
// nodes know when the notification arrives.
func (c *Cache) DeleteTags(ctx context.Context, tags ...string) error {
	return c.removeGroups(ctx, "delete tags", "", removal{tags: tags})
}

// DeletePrefix removes all entries whose keys, with their namespaces, begin with prefix, like DeleteTags. prefix is no pattern, and
// must not be empty: that is Clear. In memory it costs a look at every entry.
func (c *Cache) DeletePrefix(ctx context.Context, prefix string) error {
	return c.removeGroups(ctx, "delete prefix", prefix, removal{prefix: prefix})
}

// Clear removes the entries of this view's namespace, like Cache.DeletePrefix. For a view without a namespace it is an error.
func (t *Typed[T]) Clear(ctx context.Context) error {
	const op = "clear"
	if t.err != nil {
		return fail(op, "", t.err)
	}
	if t.namespace == "" {
		return fail(op, "", errNoNamespace)
	}
	return t.c.removeGroups(ctx, op, "", removal{prefix: t.namespace + ":"})
}

var errNoNamespace = errors.New("the view has no namespace: its entries are those of the whole cache, which Cache.Clear removes")

// removal is of tags or, if there are none, of a prefix.
type removal struct {
	tags   []string
	prefix string
}

// valid checks it, and says whether there is anything to remove.
func (r *removal) valid(op string) (some bool, err error) {
	if op == "delete tags" {
		for _, tag := range r.tags {
			if err := checkTag(tag); err != nil {
				return false, err
			}
		}
		return len(r.tags) > 0, nil
	}
	if err := checkKey("", r.prefix); err != nil {
		return false, fmt.Errorf("the prefix: %w", err)
	}
	return true, nil
}

// maxNames bounds the tags of one statement.
const maxNames = 1000

// send sends the statements of a removal.
func (r *removal) send(statement func(kind store.GroupKind, names []string) error) error {
	if r.prefix != "" {
		return statement(store.Prefix, []string{r.prefix})
	}
	for names := range slices.Chunk(r.tags, maxNames) {
		if err := statement(store.Tag, names); err != nil {
			return err
		}
	}
	return nil
}

func (r *removal) count(c *Cache) {
	c.stats.groups.Add(uint64(max(len(r.tags), 1)))
}

// removeGroups removes groups.
func (c *Cache) removeGroups(ctx context.Context, op, key string, r removal) (err error) {
	some, err := r.valid(op)
	if err != nil {
		return fail(op, key, err)
	}
	if c.null || !some {
		return c.closedErr(op)
	}
	if err := c.check(ctx); err != nil {
		return fail(op, key, err)
	}
	defer c.base.observe(&ctx, op, 0).end(nil, &err)
	// Before, so that no read that is under way stays; after, so that none that began meanwhile does; and also after an error,
	// because the outcome may be unknown.
	forget := func() {
		c.local.RemoveTags(r.tags)
		if r.prefix != "" {
			c.local.RemovePrefix(r.prefix)
		}
	}
	forget()
	defer forget()
	err = r.send(func(kind store.GroupKind, names []string) error {
		statement, cancel := c.statement(ctx) // each has the Timeout: there may be many
		defer cancel()
		out, err := c.store.Remove(statement, kind, names)
		if err != nil {
			return c.explain(ctx, err)
		}
		c.checkServer(out.Server)
		return nil
	})
	if err != nil {
		return fail(op, key, err)
	}
	r.count(c)
	return nil
}

// DeleteTags removes all entries that have one of the tags when the transaction commits, but for what the transaction stores after
// this call. See Cache.DeleteTags.
func (x *Tx) DeleteTags(ctx context.Context, tags ...string) error {
	return x.remove(ctx, "delete tags", "", removal{tags: tags})
}

// DeletePrefix removes all entries whose keys begin with prefix when the transaction commits, but for what the transaction stores
// after this call. See Cache.DeletePrefix.
func (x *Tx) DeletePrefix(ctx context.Context, prefix string) error {
	return x.remove(ctx, "delete prefix", prefix, removal{prefix: prefix})
}

// DeleteTags removes all entries that have one of the tags when the transaction commits, of whatever view. See Tx.DeleteTags.
func (x *TypedTx[T]) DeleteTags(ctx context.Context, tags ...string) error {
	return x.txView.remove(ctx, "delete tags", "", removal{tags: tags})
}

// DeletePrefix removes all entries whose keys, with their namespaces, begin with prefix when the transaction commits, of whatever
// view. See Tx.DeletePrefix.
func (x *TypedTx[T]) DeletePrefix(ctx context.Context, prefix string) error {
	return x.txView.remove(ctx, "delete prefix", prefix, removal{prefix: prefix})
}

func (x txView) remove(ctx context.Context, op, key string, r removal) error {
	c := x.c
	if err := x.usable(op); err != nil {
		return err
	}
	some, err := r.valid(op)
	if err != nil {
		return fail(op, key, err)
	}
	if c.null || !some {
		return nil
	}
	if err := c.check(ctx); err != nil {
		return fail(op, key, err)
	}
	err = r.send(func(kind store.GroupKind, names []string) error {
		var tags []string
		if kind == store.Tag {
			tags = names
		}
		begun := c.local.BeginTxRemoval(tags, r.prefix)
		sent := false
		defer func() {
			if !sent { // also if a driver panics
				begun.End()
			}
		}()
		out, err := c.store.RemoveTx(ctx, x.tx, kind, names)
		if err != nil {
			return err
		}
		sent = true
		begun.Sent(out.IDs)
		c.txs.add(c, out.XID, []txPart{begun})
		return nil
	})
	if err != nil {
		return fail(op, key, c.explainTx(err))
	}
	r.count(c)
	return nil
}

// txPart is what a transaction of the caller's keeps out of memory until its outcome is known.
type txPart interface {
	Done() bool
	End()
}

var (
	_ txPart = (*coherence.TxWrite)(nil)
	_ txPart = (*coherence.TxRemoval)(nil)
)

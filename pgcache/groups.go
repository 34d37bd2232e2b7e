package pgcache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

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

// DeleteTags removes all entries that have one of the tags, by one small statement however many they are: it writes a removal record, and
// from then on nobody finds what was stored before. It waits for no row that anybody holds. When it has
// returned, this Cache returns nothing older, and no loader that began before can store a value with one of the tags, or of an entry that had one;
// the other nodes know when the notification arrives.
func (c *Cache) DeleteTags(ctx context.Context, tags ...string) error {
	return c.removeGroups(ctx, "delete tags", "", ofTags(tags))
}

// DeletePrefix removes all entries whose keys, with their namespaces, begin with prefix, like DeleteTags. prefix is no pattern, and
// must not be empty: that is Clear. In memory it costs a look at every entry.
func (c *Cache) DeletePrefix(ctx context.Context, prefix string) error {
	return c.removeGroups(ctx, "delete prefix", prefix, ofPrefix(prefix))
}

// Clear removes the entries of this view's namespace, like [Cache.DeletePrefix]. For a view without a namespace it is an error.
func (t *Typed[T]) Clear(ctx context.Context) error {
	const op = "clear"
	if t.err != nil {
		return fail(op, "", t.err)
	}
	if t.namespace == "" {
		return fail(op, "", errNoNamespace)
	}
	return t.c.removeGroups(ctx, op, "", ofPrefix(t.namespace+":"))
}

var errNoNamespace = errors.New("the view has no namespace: its entries are those of the whole cache, which Cache.Clear removes")

// removal is what a call of DeleteTags, DeletePrefix or Clear of a view removes.
type removal struct {
	kind   store.GroupKind
	tags   []string // of kind Tag
	prefix string   // of kind Prefix
}

func ofTags(tags []string) removal { return removal{kind: store.Tag, tags: tags} }

func ofPrefix(prefix string) removal { return removal{kind: store.Prefix, prefix: prefix} }

// valid checks the tags or the prefix, and says whether there is anything to remove.
func (r *removal) valid() (some bool, err error) {
	if r.kind == store.Prefix {
		if err := checkKey("", r.prefix); err != nil {
			return false, fmt.Errorf("the prefix: %w", err)
		}
		return true, nil
	}
	for _, tag := range r.tags {
		if err := checkTag(tag); err != nil {
			return false, err
		}
	}
	return len(r.tags) > 0, nil
}

// statementTags bounds the tags of one statement.
const statementTags = 1000

// send calls statement with the tags, statementTags of them at a time, or with the prefix.
func (r *removal) send(statement func(names []string) error) error {
	if r.kind == store.Prefix {
		return statement([]string{r.prefix})
	}
	for names := range slices.Chunk(r.tags, statementTags) {
		if err := statement(names); err != nil {
			return err
		}
	}
	return nil
}

// count counts the removal in Stats.Groups.
func (r *removal) count(c *Cache) {
	c.stats.groups.Add(uint64(max(len(r.tags), 1)))
}

// removeGroups does the removal r for the method that op names. key is what an error names: the prefix, if there is one.
func (c *Cache) removeGroups(ctx context.Context, op, key string, r removal) (err error) {
	some, err := r.valid()
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
	// Before the statements, for the reads that are under way, and after them, for those that began meanwhile: neither is to be
	// kept. Also after an error, because the removal may have been done.
	forget := func() {
		if r.kind == store.Prefix {
			c.local.RemovePrefix(r.prefix)
		} else {
			c.local.RemoveTags(r.tags)
		}
	}
	forget()
	defer forget()
	err = r.send(func(names []string) error {
		statement, cancel := c.statement(ctx) // each has the Timeout: there may be many
		defer cancel()
		out, err := c.store.Remove(statement, r.kind, names)
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
// this call. See [Cache.DeleteTags].
func (x *Tx) DeleteTags(ctx context.Context, tags ...string) error {
	return x.remove(ctx, "delete tags", "", ofTags(tags))
}

// DeletePrefix removes all entries whose keys begin with prefix when the transaction commits, but for what the transaction stores
// after this call. See [Cache.DeletePrefix].
func (x *Tx) DeletePrefix(ctx context.Context, prefix string) error {
	return x.remove(ctx, "delete prefix", prefix, ofPrefix(prefix))
}

// DeleteTags removes all entries that have one of the tags when the transaction commits, of whatever view. See [Tx.DeleteTags].
func (x *TypedTx[T]) DeleteTags(ctx context.Context, tags ...string) error {
	return x.remove(ctx, "delete tags", "", ofTags(tags))
}

// DeletePrefix removes all entries whose keys, with their namespaces, begin with prefix when the transaction commits, of whatever
// view. See [Tx.DeletePrefix].
func (x *TypedTx[T]) DeletePrefix(ctx context.Context, prefix string) error {
	return x.remove(ctx, "delete prefix", prefix, ofPrefix(prefix))
}

// remove is removeGroups within the transaction.
func (x txView) remove(ctx context.Context, op, key string, r removal) error {
	c := x.c
	if err := x.usable(op); err != nil {
		return err
	}
	some, err := r.valid()
	if err != nil {
		return fail(op, key, err)
	}
	if c.null || !some {
		return nil
	}
	if err := c.check(ctx); err != nil {
		return fail(op, key, err)
	}
	err = r.send(func(names []string) error {
		var tags []string
		if r.kind == store.Tag {
			tags = names
		}
		begun := c.local.BeginTxRemoval(tags, r.prefix)
		sent := false
		defer func() {
			if !sent { // also if a driver panics
				begun.End()
			}
		}()
		inline := c.window.InlineTx()
		out, err := c.store.RemoveTx(ctx, x.tx, r.kind, names, inline)
		if err != nil {
			return err
		}
		sent = true
		begun.Sent(out.IDs)
		c.checkTxServer(out.Server)
		c.txs.add(c, out.XID, []txPart{begun}, inline)
		return nil
	})
	if err != nil {
		return fail(op, key, c.explainTx(err))
	}
	r.count(c)
	return nil
}

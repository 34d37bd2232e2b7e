package pgcache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/store"
)

// DefaultMaxKeys is TableWatch.MaxKeys where it is 0.
const DefaultMaxKeys = 1000

// mostMaxKeys is the largest MaxKeys. The SQL function cache_watch has the same bound.
const mostMaxKeys = 10000

// TableWatch says which entries a table's rows are in.
//
// A template is text in which {column} stands for the value of a column, as it was before a change and as it is after; {{ and
// }} stand for braces. So "user:{id}" names the entry "user:42" of the row whose id is 42. Columns are named as the catalogs
// have them, and are integers, numeric, text, uuid, boolean, date (as 2026-11-28) or enums. A NULL in a column that a template
// names makes it name nothing for that row. Keys that HashKey has changed can't be named.
type TableWatch struct {
	Table string   // as it stands in SQL: public.users, or public."Users"
	Keys  []string // templates of the keys of entries
	Tags  []string // templates of tags, see Tags

	// MaxKeys is how many keys, and how many tags, one transaction removes one by one: 1 to 10000, 0 for DefaultMaxKeys. One that
	// names more keys removes, for each template of Keys, all entries whose keys begin with the template's text before its first
	// column; one that names more tags clears the whole cache. TRUNCATE does the same.
	MaxKeys int
}

// WatchTable makes every change of a table, whoever makes it, remove the entries that w names, in the same commit: psql, COPY,
// other services, migrations. What they removed stays removed as after a Delete: no loader that read the table before the
// commit can store what it read. It installs triggers of statements; a watch that is there already is changed if it differs.
//
// It is for the role that migrates, which must own the table too. It tries again and again, as long as ctx allows but at most half a
// minute, until no open transaction has used the table; each try keeps the table's writers waiting for a moment.
//
// A partitioned table is watched with all its partitions; call it again after a partition was attached or created. ALTER TABLE,
// DROP TABLE and DETACH PARTITION fire no triggers. See docs/watch.md.
func (c *Cache) WatchTable(ctx context.Context, w TableWatch) error {
	const op = "watch table"
	if c.null || c.ctx.Err() != nil {
		return c.closedErr(op)
	}
	watch, err := w.checked()
	if err != nil {
		return fail(op, w.Table, err)
	}
	if err := c.check(ctx); err != nil {
		return fail(op, w.Table, err)
	}
	waiting, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	_, err = c.store.WatchTable(waiting, watch)
	if err == nil && c.opts.Listener != nil {
		c.wakePulse()
	}
	return fail(op, w.Table, c.explainWatch(ctx, err))
}

// UnwatchTable ends what WatchTable began and leaves nothing behind. A table that is not watched, or is gone, is no error.
func (c *Cache) UnwatchTable(ctx context.Context, table string) error {
	const op = "unwatch table"
	if c.null || c.ctx.Err() != nil {
		return c.closedErr(op)
	}
	if err := c.check(ctx); err != nil {
		return fail(op, table, err)
	}
	waiting, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	_, err := c.store.UnwatchTable(waiting, table)
	return fail(op, table, c.explainWatch(ctx, err))
}

// WatchSQL returns the statement that does what WatchTable does, for those who migrate with a tool of their own. It fails
// rather than keep the table's writers waiting: try it again then. Only Schema and Prefix of opts count.
func WatchSQL(opts Options, w TableWatch) (string, error) {
	names, err := store.Names{Schema: opts.Schema, Prefix: opts.Prefix}.Resolve()
	if err != nil {
		return "", fmt.Errorf("pgcache: option %w", err)
	}
	watch, err := w.checked()
	if err != nil {
		return "", fail("watch table", w.Table, err)
	}
	return watch.SQL(names), nil
}

// watchTimeout is how long WatchTable and UnwatchTable try.
const watchTimeout = 30 * time.Second

// checked returns w as the statement takes it.
func (w TableWatch) checked() (store.Watch, error) {
	for _, s := range append(append([]string{w.Table}, w.Keys...), w.Tags...) {
		if s == "" || strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s) {
			return store.Watch{}, fmt.Errorf("the table and its templates must be valid UTF-8 without NUL, and not empty: %q", s)
		}
	}
	if len(w.Keys)+len(w.Tags) == 0 {
		return store.Watch{}, errors.New("a watch needs Keys or Tags")
	}
	if w.MaxKeys < 0 || w.MaxKeys > mostMaxKeys {
		return store.Watch{}, fmt.Errorf("MaxKeys is %d: must be 1 to %d, or 0 for the default", w.MaxKeys, mostMaxKeys)
	}
	return store.Watch{Table: w.Table, Keys: w.Keys, Tags: w.Tags, Most: cmp.Or(w.MaxKeys, DefaultMaxKeys)}, nil
}

// explainWatch says what keeps a table from being watched.
func (c *Cache) explainWatch(ctx context.Context, err error) error {
	switch {
	case sqlerr.Locked(err):
		return fmt.Errorf("transactions that write or read the table were open for as long as this waited: try again: %w", err)
	case sqlerr.Denied(err):
		return fmt.Errorf("tables are watched by the role that migrates, see docs/watch.md: %w", err)
	}
	return c.explain(ctx, err)
}

package pgcache

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pgcache/go/internal/migrate"
	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/store"
)

// RightsError says which rights the pool's role lacks for what the cache does. docs/rights.md has them all, as GRANTs.
type RightsError struct {
	Role  string
	Lacks []string // "DELETE on public.cache_entries"
	reads bool     // the role has no right to write, but every right that a cache needs which only reads
}

// Error lists them.
func (e *RightsError) Error() string {
	s := fmt.Sprintf("role %q lacks: %s; docs/rights.md has the GRANTs", e.Role, strings.Join(e.Lacks, ", "))
	if e.reads {
		s += "; a cache that only Gets is ready without them once CleanupInterval is negative: the janitor writes"
	}
	return s
}

// SQLState is what the server says to a statement that lacks a right.
func (e *RightsError) SQLState() string { return sqlerr.InsufficientPrivilege }

// prove looks whether the role has every right that the cache will need, and whether the table is as Durable says. It is called even if
// check has failed, because the catalogs may say more than a statement that was refused. schemaErr is the error of check, which prove
// returns if it finds nothing wrong itself, or no tables.
func (c *Cache) prove(ctx context.Context, schemaErr error) error {
	statement, cancel := c.statement(ctx)
	defer cancel()
	held, err := c.store.Rights(statement)
	switch {
	case err != nil && schemaErr == nil:
		return c.explain(ctx, err)
	case err != nil, !slices.ContainsFunc(held, func(h store.Held) bool { return h.There }):
		return schemaErr
	}
	readOnly, err := c.judge(held)
	if err != nil {
		return err
	}
	if schemaErr == nil {
		c.schema.proven.Store(true)
		if was := c.schema.readOnly.Swap(readOnly); readOnly && !was {
			c.log.Warn("pgcache: this role may only read: every Set, Delete and Clear, and a GetOrSet that must load, will fail", "role", held[0].Role)
		}
	}
	return schemaErr
}

// judge returns what is wrong with the rights that the role holds, and whether the cache may only read: it has no janitor and its role has
// no right to write at all. A role with any right to write, or a cache with a janitor, must have all of them: if some were missing, that
// would show much later, as a flush that fails.
func (c *Cache) judge(held []store.Held) (readOnly bool, err error) {
	mayWrite := false
	for _, h := range held {
		if !h.There {
			return false, fmt.Errorf("%w (%s is missing)", ErrNotMigrated, h.Name)
		}
		mayWrite = mayWrite || h.Held && h.Use == store.ToWrite && h.Privilege != "SELECT"
	}
	readOnly = c.opts.CleanupInterval < 0 && !mayWrite
	lacks := &RightsError{Role: held[0].Role, reads: !mayWrite}
	for _, h := range held {
		if !h.Usable {
			if use := "USAGE on schema " + h.Home; !slices.Contains(lacks.Lacks, use) {
				lacks.Lacks = slices.Insert(lacks.Lacks, 0, use)
			}
		}
		toRead := h.Use == store.ToRead || h.Use == store.ToListen && c.opts.Listener != nil
		if toRead && !(h.Held && h.Usable) {
			lacks.reads = false
		}
		needed := h.Use == store.ToWrite // all, for a cache that writes: see store.Use
		if readOnly {
			needed = toRead
		}
		if needed && !h.Held {
			lacks.Lacks = append(lacks.Lacks, h.String())
		}
	}
	if len(lacks.Lacks) > 0 {
		return false, lacks
	}
	return readOnly, migrate.Persistence(held, c.store.Names)
}

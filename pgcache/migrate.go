package pgcache

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/pgcache/go/internal/migrate"
	"github.com/pgcache/go/internal/panics"
	"github.com/pgcache/go/internal/store"
)

// schemaVersion is what this release works with.
var schemaVersion = migrate.Latest()

// schema is what this node knows of the tables.
type schema struct {
	known    atomic.Bool               // they are there and fit this release and the options
	proven   atomic.Bool               // the role has the rights that it needs
	readOnly atomic.Bool               // the role may only read
	id       atomic.Pointer[string]    // the cache's, which its messages carry; nil: nobody has read it yet
	looking  atomic.Pointer[stateRead] // the one that is under way; nil: none is
}

// stateRead is one reading of the state, for all callers that ask while it is under way.
type stateRead struct {
	done chan struct{}
	err  error
}

// look returns nil once the schema is known: it reads the state, or waits for the caller that is reading it.
func (s *schema) look(ctx context.Context, c *Cache) error {
	for !s.known.Load() {
		mine := &stateRead{done: make(chan struct{})}
		if s.looking.CompareAndSwap(nil, mine) {
			return s.readFor(ctx, c, mine)
		}
		if other := s.looking.Load(); other != nil {
			select {
			case <-other.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			if !errors.Is(other.err, errGivenUp) {
				return other.err
			}
		}
	}
	return nil
}

// readFor reads the state for all who wait for mine. They try again if the caller's own context ended, or a driver panicked.
func (s *schema) readFor(ctx context.Context, c *Cache, mine *stateRead) (err error) {
	mine.err = errGivenUp
	defer func() {
		s.looking.Store(nil)
		close(mine.done)
	}()
	err = s.read(ctx, c)
	if ctx.Err() == nil {
		mine.err = err
	}
	return err
}

// read reads the state and compares it with the options. Unlike look it does so also where the schema is known.
func (s *schema) read(ctx context.Context, c *Cache) (err error) {
	defer panics.Recover(&err)
	statement, cancel := c.statement(ctx)
	defer cancel()
	state, err := c.store.State(statement)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%w: %s is empty, its row was removed by hand", ErrNotMigrated, c.store.Names.State())
	}
	if err != nil {
		return c.explain(ctx, err)
	}
	if err := c.fits(state); err != nil {
		return err
	}
	if state.Encoding != "" {
		return fmt.Errorf("%w: sessions of the pool have client_encoding %s", errEncoding, state.Encoding)
	}
	s.id.Store(&state.ID)
	s.known.Store(true)
	c.wakePulse()
	return nil
}

// fits compares what is in the database with what this release and the options ask for.
func (c *Cache) fits(have store.State) error {
	if have.Version == schemaVersion && have.Channel == c.store.Names.Channel {
		if c.opts.HideKeys && !have.Hidden {
			return errors.New("the option HideKeys is set, and the database does not hide keys yet: run Migrate")
		}
		return nil
	}
	return &SchemaError{Have: have.Version, Want: schemaVersion, HaveChannel: have.Channel, WantChannel: c.store.Names.Channel}
}

// unknown makes the next operation look again.
func (s *schema) unknown() {
	s.known.Store(false)
	s.proven.Store(false)
}

// Migrate creates or updates the cache's tables, and the schema that holds them if it is missing. It is idempotent and
// safe from any number of processes at once. A database that a newer release has migrated, or that publishes on
// another channel, is left alone: SchemaError.
func (c *Cache) Migrate(ctx context.Context) error {
	if c.null || c.ctx.Err() != nil {
		return c.closedErr("migrate")
	}
	if err := migrate.Run(ctx, c.db, c.store.Names); err != nil {
		return fail("migrate", "", err)
	}
	return fail("migrate", "", c.schema.read(ctx, c))
}

// MigrationState is what there is and what there should be.
type MigrationState struct {
	Have    int      // the version in the database; 0: no tables yet
	Want    int      // the version that this release works with
	Pending []string // the names of the migrations between the two, in their order
}

// MigrationState reads how far the database is. It writes nothing and takes no lock.
func (c *Cache) MigrationState(ctx context.Context) (MigrationState, error) {
	if c.null || c.ctx.Err() != nil {
		return MigrationState{Have: schemaVersion, Want: schemaVersion}, c.closedErr("migration state")
	}
	have, err := migrate.Have(ctx, c.store)
	if err != nil {
		return MigrationState{}, fail("migration state", "", err)
	}
	state := MigrationState{Have: have, Want: schemaVersion}
	for _, m := range migrate.All(c.store.Names) {
		if m.Version > have {
			state.Pending = append(state.Pending, m.Name)
		}
	}
	return state, nil
}

// MigrationSQL returns the SQL of all migrations for a cache with opts, for those who migrate with a tool of their own.
// Run each part once and in order; each begins with a comment that names it. Only Schema, Prefix, Channel, Durable and HideKeys of
// opts count.
func MigrationSQL(opts Options) (string, error) {
	names, err := store.Names{Schema: opts.Schema, Prefix: opts.Prefix, Channel: opts.Channel, Durable: opts.Durable, Hidden: opts.HideKeys}.Resolve()
	if err != nil {
		return "", fmt.Errorf("pgcache: option %w", err)
	}
	var b strings.Builder
	for _, m := range migrate.All(names) {
		fmt.Fprintf(&b, "-- pgcache migration %d: %s\nBEGIN;\n%s\nCOMMIT;\n\n", m.Version, m.Name, strings.TrimSpace(m.SQL))
	}
	return b.String(), nil
}

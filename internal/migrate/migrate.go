// Package migrate brings the objects of one cache up to date: numbered migrations, each in a transaction of its own,
// under an advisory lock, so that any number of processes may start at once.
package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/sqlc"
)

// Migration is one numbered step.
type Migration struct {
	Version int
	Name    string
	SQL     string // for this cache: all templates are filled in
	state   string // the end of SQL, which may be run again
}

// What begins every migration, so that the printed SQL is bounded too. A migration that waits for a table keeps everybody
// behind it waiting, and one whose process is frozen keeps what it has locked:
//
//	a report holds cache_entries      ALTER TABLE waits for it      every Get and Set waits behind the ALTER TABLE
const (
	lockTimeout = "5s"
	boundLocks  = "SET LOCAL lock_timeout = '" + lockTimeout + "'"
	boundIdle   = "SET LOCAL idle_in_transaction_session_timeout = '30s'"
	bounds      = boundIdle + ";\n" + boundLocks + ";\n"
)

// All returns the migrations of the cache that n names, in their order. They are embedded, and their names are checked
// by a test: there is nothing that could fail at run time.
func All(n store.Names) []Migration {
	files, err := fs.Glob(sqlc.Migrations, "migrations/*.sql")
	if err != nil {
		panic(err)
	}
	var all []Migration
	for _, f := range files {
		text, err := fs.ReadFile(sqlc.Migrations, f)
		if err != nil {
			panic(err)
		}
		base := strings.TrimSuffix(strings.TrimPrefix(f, "migrations/"), ".sql")
		number, name, _ := strings.Cut(base, "_")
		version, err := strconv.Atoi(number)
		if err != nil || version != len(all)+1 {
			panic("migrations are not numbered 1, 2, 3: " + f)
		}
		state := n.Render(recordState(version, n))
		all = append(all, Migration{version, name, bounds + n.Render(string(text)) + "\n" + state, state})
	}
	return all
}

// Latest is the version that this release works with.
func Latest() int { return len(All(store.Names{})) }

// recordState ends every migration: so the state is right too where people run the printed SQL with a tool of their own.
// It also publishes "forget everything": the rows of tables that were dropped by hand went without an invalidation.
func recordState(version int, n store.Names) string {
	state := fmt.Sprintf("UPDATE /* TEMPLATE: prefix */cache_state SET schema_version = %d;\n", version)
	if version == 1 {
		state = fmt.Sprintf("INSERT INTO /* TEMPLATE: prefix */cache_state (schema_version, channel) VALUES (1, '%s')\n"+
			"    ON CONFLICT (one) DO UPDATE SET schema_version = 1;\n", n.Channel)
	}
	if n.Hidden {
		state += "UPDATE /* TEMPLATE: prefix */cache_state SET key_secret = decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex')\n" +
			"    WHERE key_secret IS NULL;\n"
	}
	return state + fmt.Sprintf("SELECT pg_notify('%s', '%c%s%s');\n", n.Channel, notify.Inline, notify.AnyCache, notify.All)
}

// lockID is the second number of the migration's advisory lock; the first is the schema's.
const lockID = -1

// Run applies what is missing. It is idempotent, and leaves a database that is ahead of this release as it is.
func Run(ctx context.Context, db *sql.DB, n store.Names) error {
	for {
		done, err := step(ctx, db, n)
		if sqlerr.Locked(err) {
			return fmt.Errorf("a transaction held a table of the cache for longer than Migrate waits (%s), because everybody would wait behind it: "+
				"this step has changed nothing, try again when that transaction has ended: %w", lockTimeout, err)
		}
		if err != nil || done {
			return err
		}
	}
}

// step applies the next missing migration in one transaction, and says whether none is missing.
func step(ctx context.Context, db *sql.DB, n store.Names) (done bool, err error) {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return false, err
	}
	defer tx.Rollback() //nolint:errcheck // after a Commit it does nothing, before one the first error counts
	if _, err := tx.ExecContext(ctx, boundIdle); err != nil {
		return false, err
	}

	// Two at once would meet in the catalogs (23505 pg_type_typname_nsp_index, XX000 tuple concurrently updated).
	// The lock is the schema's, not the cache's: caches of other prefixes create the same schema. This wait has no
	// lock_timeout: this transaction holds nothing yet, and every wait of the one that has the lock is bounded.
	if _, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1::int, $2::int)", store.Hash("migrate "+n.Schema), lockID); err != nil {
		return false, err
	}
	if _, err := tx.ExecContext(ctx, boundLocks); err != nil {
		return false, err
	}
	if n.Schema != "" {
		// IF NOT EXISTS asks for the right to create schemas even where it exists.
		var there bool
		if err := tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1::text)", n.Schema).Scan(&there); err != nil {
			return false, err
		}
		if !there {
			if _, err := tx.ExecContext(ctx, `CREATE SCHEMA "`+n.Schema+`"`); err != nil {
				return false, err
			}
		}
	}
	have, err := current(ctx, tx, n)
	if err != nil {
		return false, err
	}
	all := All(n)
	if have > 0 {
		objects, err := store.AskRights(ctx, tx, n)
		if err == nil {
			err = Persistence(objects, n)
		}
		if err != nil {
			return false, err
		}
		if have == len(all) {
			// Objects that were dropped by hand are made again: what is there stays as it is.
			lacks := slices.ContainsFunc(objects, func(o store.Held) bool { return !o.There })
			if !lacks {
				if lacks, err = store.GuardsGone(ctx, tx, n); err != nil {
					return false, err
				}
			}
			if !lacks {
				return true, hide(ctx, tx, n, all[have-1])
			}
			have = 0
		}
	}
	if have > len(all) {
		return true, nil
	}
	if have == 0 {
		if err := foreign(ctx, tx, n); err != nil {
			return false, err
		}
	}
	next := all[have]
	if err := run(ctx, tx, next.SQL); err != nil {
		return false, fmt.Errorf("migration %d (%s): %w", next.Version, next.Name, err)
	}
	return have+1 == len(all), nil
}

// run runs text and commits.
func run(ctx context.Context, tx *sql.Tx, text string) error {
	for _, statement := range split(text) {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// hide makes a secret for a cache that was migrated before it was to hide its keys.
func hide(ctx context.Context, tx *sql.Tx, n store.Names, last Migration) error {
	if !n.Hidden {
		return nil
	}
	var hidden bool
	err := tx.QueryRowContext(ctx, "SELECT key_secret IS NOT NULL FROM "+n.State()).Scan(&hidden) //nolint:gosec // a quoted, checked identifier
	if err != nil || hidden {
		return err
	}
	return run(ctx, tx, last.state)
}

// current is the version that tx finds, 0 for a database without our tables.
func current(ctx context.Context, tx *sql.Tx, n store.Names) (int, error) {
	var there bool
	if err := tx.QueryRowContext(ctx, "SELECT to_regclass($1::text) IS NOT NULL", n.State()).Scan(&there); err != nil || !there {
		return 0, err
	}
	var version int
	err := tx.QueryRowContext(ctx, "SELECT schema_version FROM "+n.State()).Scan(&version) //nolint:gosec // a quoted, checked identifier
	if errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("%s is empty: its row was removed by hand; drop the cache's tables and migrate again", n.State())
	}
	return version, err
}

// PersistenceError says that the table of entries, or that of removed groups, survives a crash and should not, or the other way round.
// Nobody's data is rewritten unasked: with a large table that takes long, and keeps everybody out.
type PersistenceError struct {
	Table   string
	Groups  string // the table that goes with it
	Durable bool   // it is; the option is not
}

// Error says how to change it.
func (e *PersistenceError) Error() string {
	is, should := "UNLOGGED", "LOGGED"
	if e.Durable {
		is, should = should, is
	}
	return fmt.Sprintf("%s is %s, and the option Durable asks for %s: run ALTER TABLE %s SET %s; ALTER TABLE %s SET %s, which rewrites them and keeps everybody out meanwhile",
		e.Table, is, should, e.Table, should, e.Groups, should)
}

// Persistence returns an error if the table of entries or that of removed groups is of another persistence than n says: rows
// that outlive the records of removals would be back.
func Persistence(objects []store.Held, n store.Names) error {
	for _, o := range objects {
		if !o.There || o.Durable == n.Durable {
			continue
		}
		switch o.Object {
		case "cache_entries":
			return &PersistenceError{n.Table(), n.Groups(), o.Durable}
		case "cache_groups":
			return &PersistenceError{n.Groups(), n.Table(), o.Durable}
		}
	}
	return nil
}

// foreign returns an error if a table has one of our names and is not ours.
func foreign(ctx context.Context, tx *sql.Tx, n store.Names) error {
	// In the order of Names.Tables.
	columns := [...]string{"key, value, version, stamp, expires_at, codec, written_at", "key, version, logged_at", "xid, part, payload, published_at", "kind, name, id, xid", "id, owner, until"}
	for i, table := range n.Tables() {
		var there bool
		if err := tx.QueryRowContext(ctx, "SELECT to_regclass($1::text) IS NOT NULL", table).Scan(&there); err != nil {
			return err
		}
		if !there {
			continue
		}
		if _, err := tx.ExecContext(ctx, "SELECT "+columns[i]+" FROM "+table+" LIMIT 0"); err != nil {
			return fmt.Errorf("there is a table %s that is not a cache's: choose another Prefix or Schema: %w", table, err)
		}
	}
	return nil
}

// Have reads the version without writing anything or taking a lock: 0 if there are no tables yet.
func Have(ctx context.Context, s *store.Store) (int, error) {
	state, err := s.State(ctx)
	if sqlerr.NoObject(err) {
		return 0, nil
	}
	return state.Version, err
}

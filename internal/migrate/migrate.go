// Package migrate brings the tables and functions of one cache up to date. It runs numbered migrations, each in a transaction of
// its own, under an advisory lock, so that any number of processes may start at once.
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
	state   string // the end of SQL, see recordState; it may be run again by itself
}

// These settings begin every migration, and are part of its text, so that they hold too where people run the printed SQL. They bound
// how long a migration waits for a table, since others wait behind it, and how long a frozen process keeps its locks:
//
//	a report holds cache_entries      ALTER TABLE waits for it      every Get and Set waits behind the ALTER TABLE
const (
	lockTimeout = "5s"
	boundLocks  = "SET LOCAL lock_timeout = '" + lockTimeout + "'"
	boundIdle   = "SET LOCAL idle_in_transaction_session_timeout = '30s'"
	bounds      = boundIdle + ";\n" + boundLocks + ";\n"
)

// All returns the migrations of the cache that n names, in their order. It panics if a file's name has no number or a wrong one: the
// files are embedded, and a test checks their names, so that can't happen at run time.
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

// Latest returns the schema version that this release works with.
func Latest() int { return len(All(store.Names{})) }

// recordState returns the statements that end every migration. They record the version, also where people run the printed SQL with
// a tool of their own, and make the secret of a cache that hides its keys. They also publish inline that every node forgets
// everything, because nothing invalidated the rows of tables that were dropped by hand.
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

// lockID is the second number of the advisory lock of migrations; the first is a hash of the schema's name.
const lockID = -1

// Run applies the migrations that are missing, each in a transaction of its own: after an error the ones before it stay, and
// the next Run goes on with the one that failed. It is idempotent, and changes nothing in a database that is ahead of this
// release.
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

// step applies the next missing migration in one transaction. done says that no further one is missing. What it does depends on
// the version of the database:
//
//	none                       the first migration, unless tables of others have the names of the cache's
//	older than this release    the next migration
//	that of this release       nothing; the first migration if objects were dropped by hand; a secret if one is lacking, see hide
//	newer                      nothing
func step(ctx context.Context, db *sql.DB, n store.Names) (done bool, err error) {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return false, err
	}
	defer tx.Rollback() //nolint:errcheck // after a Commit it does nothing, before one the first error counts
	if _, err := tx.ExecContext(ctx, boundIdle); err != nil {
		return false, err
	}

	// Two migrations at once would fail in the catalogs (23505 pg_type_typname_nsp_index, XX000 tuple concurrently updated).
	// The lock is on the schema, not on the cache: caches of other prefixes create the same schema. The wait for it has no
	// lock_timeout: this transaction holds no lock yet, and every wait of the one that has the lock is bounded.
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
			// Where objects were dropped by hand, all migrations are run again: what is there stays as it is.
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

// run runs the statements of text and commits.
func run(ctx context.Context, tx *sql.Tx, text string) error {
	for _, statement := range split(text) {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// hide makes the secret of a cache that is to hide its keys and has none, because it was migrated without that option. It runs
// recordState of the last migration.
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

// current returns the schema version of the database, 0 if there are no tables of the cache. It is Have within a migration.
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

// PersistenceError says that the table of entries, or that of removed groups, is LOGGED and should be UNLOGGED, or the other way round.
// Migrations do not change that: a large table takes long to rewrite, and nobody can use it meanwhile.
type PersistenceError struct {
	Table   string // the one that is wrong
	Groups  string // the other one of the two, which must be changed with it
	Durable bool   // Table is LOGGED, and the option Durable is not set; false: the other way round
}

// Error says what is wrong, and by which statements to change it.
func (e *PersistenceError) Error() string {
	is, should := "UNLOGGED", "LOGGED"
	if e.Durable {
		is, should = should, is
	}
	return fmt.Sprintf("%s is %s, and the option Durable asks for %s: run ALTER TABLE %s SET %s; ALTER TABLE %s SET %s, which rewrites them and keeps everybody out meanwhile",
		e.Table, is, should, e.Table, should, e.Groups, should)
}

// Persistence returns a *PersistenceError if the table of entries or that of removed groups is of another persistence than n says.
// If entries survived a crash and the records of removed groups did not, entries that were removed would be found again.
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

// foreign returns an error if a table has a name of the cache's tables, but not their columns.
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

// Have returns the schema version of the database, 0 if there are no tables of the cache. It only reads, and takes no advisory lock.
func Have(ctx context.Context, s *store.Store) (int, error) {
	state, err := s.State(ctx)
	if sqlerr.NoObject(err) {
		return 0, nil
	}
	return state.Version, err
}

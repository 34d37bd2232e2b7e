package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgcache/go/internal/redact"
	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/pgcache"
)

// The exit codes. docs/cli.md and the help list them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2   // an unknown command, a bad flag, a value or a key that is refused
	exitNoKey       = 3   // there is no such entry
	exitNoServer    = 4   // no connection: the server is down, or refuses this role
	exitNotMigrated = 5   // the tables are missing, or of another version
	exitInterrupted = 130 // by a signal, in the middle
)

const exitHelp = `Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no such entry, 4 no connection, 5 tables missing or of another
version, 130 interrupted.`

// usageError is a mistake in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// connectError says that there is no connection.
type connectError struct{ error }

func (e connectError) Unwrap() error { return e.error }

// errNoTables says it in the words of this command.
var errNoTables = errors.New("the cache's tables are not in this database: 'pgcache migrate up' creates them; --schema and --prefix say where they are")

var errNoKey = errors.New("no such entry")

// errBehind is the error of `migrate status` where migrations are pending.
var errBehind = errors.New("the tables are not of the version that this release works with")

func exitCode(ctx context.Context, err error) int {
	var schema *pgcache.SchemaError
	switch {
	case errors.As(err, new(usageError)), errors.Is(err, pgcache.ErrInvalidKey), errors.Is(err, pgcache.ErrInvalidTTL), errors.Is(err, pgcache.ErrInvalidTag),
		errors.Is(err, pgcache.ErrValueTooLarge):
		return exitUsage
	case errors.Is(err, errNoKey):
		return exitNoKey
	case ctx.Err() != nil && (errors.Is(err, context.Canceled) || sqlerr.Canceled(err)):
		return exitInterrupted
	case errors.As(err, new(connectError)):
		return exitNoServer
	case errors.Is(err, pgcache.ErrNotMigrated), errors.Is(err, errNoTables), errors.Is(err, errBehind), errors.As(err, &schema):
		return exitNotMigrated
	}
	return exitFailed
}

// shown is err without what a server or a driver tells of values and passwords.
func shown(err error) error { return redact.Database(err) }

// globals are the flags of all commands.
type globals struct {
	dsn, schema, prefix string
	timeout             time.Duration
	json, noColor       bool
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "pgcache",
		Short: "Look after a cache in Postgres",
		Long: `pgcache looks after a cache in Postgres.

The server is the one that --dsn names, else PGCACHE_DSN, else the PG* variables (PGHOST, PGUSER, PGPASSWORD, PGSERVICE, ...).
A password belongs in the environment or in ~/.pgpass: what is on a command line, other users of the machine can read.

` + exitHelp,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.global.timeout <= 0 {
				return usageError{errors.New("--timeout must be positive")}
			}
			return nil
		},
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.errs)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	flags := root.PersistentFlags()
	flags.StringVar(&a.global.dsn, "dsn", "", "the server: a URL or key=value pairs (PGCACHE_DSN)")
	flags.StringVar(&a.global.schema, "schema", "", "the schema of the cache's tables; empty follows search_path")
	flags.StringVar(&a.global.prefix, "prefix", "", "what the names of the cache's tables begin with")
	flags.DurationVar(&a.global.timeout, "timeout", 10*time.Second, "how long a statement may take")
	flags.BoolVar(&a.global.json, "json", false, "print JSON, for programs")
	flags.BoolVar(&a.global.noColor, "no-color", false, "print no colors (NO_COLOR); none are printed into a pipe or a file")

	root.AddGroup(
		&cobra.Group{ID: "entries", Title: "Entries:"},
		&cobra.Group{ID: "look", Title: "Looking:"},
		&cobra.Group{ID: "setup", Title: "Setting up:"},
		&cobra.Group{ID: "try", Title: "Trying:"},
	)
	for group, commands := range map[string][]*cobra.Command{
		"entries": {getCommand(a), setCommand(a), delCommand(a), inspectCommand(a), keysCommand(a), tagsCommand(a), clearCommand(a)},
		"look":    {tailCommand(a), topCommand(a), doctorCommand(a)},
		"setup":   {migrateCommand(a), watchCommand(a), unwatchCommand(a)},
		"try":     {benchCommand(a), demoCommand(a)},
	} {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	checkArgs(root)
	return root
}

// checkArgs makes wrong arguments, and a group without its command, errors of usage.
func checkArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	if c.HasSubCommands() {
		c.Args = func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{errors.New("unknown command " + quote(args[0]) + " for " + quote(c.CommandPath()))}
			}
			return nil
		}
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	}
	for _, sub := range c.Commands() {
		checkArgs(sub)
	}
}

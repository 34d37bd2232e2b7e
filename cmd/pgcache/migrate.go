package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgcache/go/pgcache"
)

type migrationJSON struct {
	Have    int      `json:"have"`
	Want    int      `json:"want"`
	Pending []string `json:"pending"`
	Done    []string `json:"done,omitempty"`
}

func migrateCommand(a *app) *cobra.Command {
	var o pgcache.Options
	flags := func(c *cobra.Command) *cobra.Command {
		c.Flags().BoolVar(&o.Durable, "durable", false, "logged tables, which outlive a crash of the server and cost WAL")
		c.Flags().BoolVar(&o.HideKeys, "hide-keys", false, "invalidations name keys by hashes")
		c.Flags().StringVar(&o.Channel, "channel", "", "where changes are published; all nodes need the same")
		return c
	}
	c := &cobra.Command{
		Use:   "migrate",
		Short: "Create and update the cache's tables",
		Example: `  pgcache migrate up --schema app
  pgcache migrate status || echo "not up to date"
  pgcache migrate sql --schema app > cache.sql`,
	}
	c.AddCommand(flags(&cobra.Command{
		Use:   "up",
		Short: "Create the tables, or bring them up to date",
		Long:  "Create the tables, and the schema that --schema names, or bring them up to date. It is safe from many processes at once.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			t, err := a.look(c.Context())
			if err != nil {
				return err
			}
			defer t.close()
			cache, err := a.cache(t, o)
			if err != nil {
				return err
			}
			defer cache.Close()
			before, err := cache.MigrationState(c.Context())
			if err == nil {
				err = cache.Migrate(c.Context())
			}
			if err != nil {
				return err
			}
			if a.global.json {
				return writeJSON(a.out, migrationJSON{Have: before.Want, Want: before.Want, Pending: []string{}, Done: before.Pending})
			}
			if len(before.Pending) == 0 {
				fmt.Fprintf(a.out, "up to date: version %d\n", before.Want)
				return nil
			}
			fmt.Fprintf(a.out, "migrated from version %d to %d: %s\n", before.Have, before.Want, strings.Join(before.Pending, ", "))
			return nil
		},
	}), &cobra.Command{
		Use:   "status",
		Short: "Say which version the tables have, and what is pending",
		Long:  "Say which version the tables have, and what is pending. It writes nothing, takes no lock, and exits with 5 if they are not of this release's version.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			t, err := a.look(c.Context())
			if err != nil {
				return err
			}
			defer t.close()
			cache, err := a.cache(t, pgcache.Options{})
			if err != nil {
				return err
			}
			defer cache.Close()
			s, err := cache.MigrationState(c.Context())
			if err != nil {
				return err
			}
			if a.global.json {
				pending := s.Pending
				if pending == nil {
					pending = []string{}
				}
				err = writeJSON(a.out, migrationJSON{Have: s.Have, Want: s.Want, Pending: pending})
			} else {
				fmt.Fprintf(a.out, "version %d of %d\n", s.Have, s.Want)
				for _, name := range s.Pending {
					fmt.Fprintf(a.out, "pending: %s\n", name)
				}
			}
			if err == nil && s.Have != s.Want {
				err = fmt.Errorf("%w: version %d, this release needs %d", errBehind, s.Have, s.Want)
			}
			return err
		},
	}, flags(&cobra.Command{
		Use:   "sql",
		Short: "Print the SQL of all migrations, for a tool of your own",
		Long:  "Print the SQL of all migrations, for a tool of your own. It needs no server.",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			o.Schema, o.Prefix = a.global.schema, a.global.prefix
			text, err := pgcache.MigrationSQL(o)
			if err != nil {
				return usageError{errors.Unwrap(err)}
			}
			if a.global.json {
				return writeJSON(a.out, map[string]string{"sql": text})
			}
			_, err = fmt.Fprint(a.out, text)
			return err
		},
	}))
	return c
}

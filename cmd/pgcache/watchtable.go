package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/pgcache"
)

// refused is the SQLSTATE of a table or a template that can't be watched.
const refused = "PC002"

type watchJSON struct {
	Table   string   `json:"table"`
	Keys    []string `json:"keys"`
	Tags    []string `json:"tags"`
	MaxKeys int      `json:"max_keys"`
	Faults  []string `json:"faults"`
}

func watchCommand(a *app) *cobra.Command {
	var w pgcache.TableWatch
	var printSQL bool
	c := &cobra.Command{
		Use:   "watch [TABLE]",
		Short: "Let every change of a table remove the entries that its rows are in",
		Long: `Let every change of TABLE, whoever makes it, remove the entries that its rows are in, in the same commit. In a template {column}
stands for the value of a column; {{ and }} stand for braces. It is for the role that migrates, which must own the table
too, and waits up to half a minute for a moment at which no transaction has written the table. A table that is watched
already gets the new templates in place of the old ones.

Without TABLE it lists the tables that are watched, and what is wrong with them. --sql prints the statement for a migration tool
of your own, and needs no server.`,
		Example: `  pgcache watch public.users --key 'user:{id}' --tag 'org:{org_id}'
  pgcache watch public.users --key 'user:{id}' --sql
  pgcache watch`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				if c.Flags().Changed("key") || c.Flags().Changed("tag") || printSQL {
					return usageError{errors.New("name the TABLE")}
				}
				return a.watches(c.Context())
			}
			w.Table = args[0]
			if len(w.Keys)+len(w.Tags) == 0 {
				return usageError{errors.New("a watch needs a template: --key 'user:{id}' or --tag 'org:{org_id}'")}
			}
			// What is wrong with the templates by themselves is a mistake in the command line.
			text, err := pgcache.WatchSQL(pgcache.Options{Schema: a.global.schema, Prefix: a.global.prefix}, w)
			if err != nil {
				return usageError{err}
			}
			if printSQL {
				if a.global.json {
					return writeJSON(a.out, map[string]string{"sql": text})
				}
				_, err := fmt.Fprintln(a.out, text)
				return err
			}
			return a.withCache(c.Context(), pgcache.Options{}, func(cache *pgcache.Cache, _ *table) error {
				if err := cache.WatchTable(c.Context(), w); err != nil {
					return watchError(err)
				}
				if a.global.json {
					return writeJSON(a.out, map[string]string{"watched": w.Table})
				}
				fmt.Fprintf(a.out, "watching %s\n", printable(w.Table))
				return nil
			})
		},
	}
	c.Flags().StringArrayVar(&w.Keys, "key", nil, "a template of keys, such as user:{id}; may be given again")
	c.Flags().StringArrayVar(&w.Tags, "tag", nil, "a template of tags, such as org:{org_id}; may be given again")
	c.Flags().IntVar(&w.MaxKeys, "max-keys", pgcache.DefaultMaxKeys, "how many keys a transaction removes one by one; beyond it whole prefixes go")
	c.Flags().BoolVar(&printSQL, "sql", false, "print the statement instead of sending it")
	c.ValidArgsFunction = cobra.NoFileCompletions
	noFileCompletion(c, "key", "tag", "max-keys")
	return c
}

func unwatchCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "unwatch TABLE",
		Short:             "End what watch began",
		Long:              "End what watch began: its triggers and their function are dropped. A table that is not watched is no error.",
		Example:           "  pgcache unwatch public.users",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeWatched,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withCache(c.Context(), pgcache.Options{}, func(cache *pgcache.Cache, _ *table) error {
				if err := cache.UnwatchTable(c.Context(), args[0]); err != nil {
					return watchError(err)
				}
				if a.global.json {
					return writeJSON(a.out, map[string]string{"unwatched": args[0]})
				}
				fmt.Fprintf(a.out, "%s is not watched\n", printable(args[0]))
				return nil
			})
		},
	}
}

func watchError(err error) error {
	if sqlerr.State(err) == refused {
		return usageError{err}
	}
	return err
}

// watches lists the watched tables.
func (a *app) watches(ctx context.Context) error {
	t, err := a.table(ctx)
	if err != nil {
		return err
	}
	defer t.close()
	ctx, cancel := context.WithTimeout(ctx, a.global.timeout)
	defer cancel()
	list, err := t.ListWatches(ctx)
	if err != nil {
		return err
	}
	if a.global.json {
		all := make([]watchJSON, len(list))
		for i, w := range list {
			all[i] = watchJSON{w.Table, w.Keys, w.Tags, w.Most, w.Faults}
		}
		return writeJSON(a.out, map[string]any{"watches": all})
	}
	s := style(a.colors())
	for _, w := range list {
		fmt.Fprintln(a.out, s.bold(printable(w.Table)))
		line := func(name string, templates []string) {
			for _, text := range templates {
				fmt.Fprintf(a.out, "  %s  %s\n", s.dim(name), printable(text))
			}
		}
		line("key", w.Keys)
		line("tag", w.Tags)
		if len(w.Faults) > 0 {
			fmt.Fprintf(a.out, "  %s\n", s.red(printable(strings.Join(w.Faults, "; "))))
		}
	}
	return nil
}

// completeWatched offers the watched tables to the shell.
func (a *app) completeWatched(c *cobra.Command, args []string, begun string) (tables []string, _ cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	ctx, cancel := context.WithTimeout(c.Context(), completeTimeout)
	defer cancel()
	t, err := a.table(ctx)
	if err != nil {
		return nil, none
	}
	defer t.close()
	list, err := t.ListWatches(ctx)
	if err != nil || len(args) > 0 {
		return nil, none
	}
	for _, w := range list {
		if strings.HasPrefix(w.Table, begun) && printable(w.Table) == w.Table {
			tables = append(tables, w.Table)
		}
	}
	return tables, none
}

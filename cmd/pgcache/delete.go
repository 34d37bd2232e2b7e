package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pgcache/go/pgcache"
)

// deletedJSON is what del has deleted.
type deletedJSON struct {
	Keys      []string `json:"deleted"`
	Tags      []string `json:"tags,omitempty"`
	Beginning string   `json:"beginning,omitempty"`
}

func delCommand(a *app) *cobra.Command {
	var tags []string
	var beginning string
	c := &cobra.Command{
		Use:   "del [KEY...]",
		Short: "Delete entries by key, by tag or by how their keys begin",
		Long: `Delete entries, and publish the change to all nodes in the same statement. A key without an entry is no error: nodes forget it
all the same, and loads under way do not store it. A tag, or a beginning of keys, costs the same however many entries
have it. Keys, tags and the beginning are deleted one after the other, not in one transaction.`,
		Example: `  pgcache del user:42 user:43
  pgcache del --tag org:7 --tag org:8
  pgcache del --beginning user:`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeKeys,
		RunE: func(c *cobra.Command, args []string) error {
			byBeginning := c.Flags().Changed("beginning")
			switch {
			case len(args) == 0 && len(tags) == 0 && !byBeginning:
				return usageError{errors.New("name a KEY, --tag or --beginning")}
			case byBeginning && beginning == "":
				return usageError{errors.New("--beginning must not be empty: pgcache clear removes everything")}
			}
			return a.withCache(c.Context(), pgcache.Options{}, func(cache *pgcache.Cache, _ *table) error {
				if err := deleteAll(c.Context(), cache, args, tags, beginning); err != nil {
					return err
				}
				if a.global.json {
					return writeJSON(a.out, deletedJSON{Keys: append([]string{}, args...), Tags: tags, Beginning: beginning})
				}
				return nil
			})
		},
	}
	c.Flags().StringArrayVar(&tags, "tag", nil, "delete all entries with this tag; may be given again")
	c.Flags().StringVar(&beginning, "beginning", "", "delete all entries whose keys begin so; no pattern")
	noFileCompletion(c, "tag", "beginning")
	return c
}

// deleteAll deletes nothing where any key, tag or beginning is not valid: DeleteTags looks at all tags before it deletes one.
func deleteAll(ctx context.Context, cache *pgcache.Cache, keys, tags []string, beginning string) error {
	for _, key := range keys {
		if err := checkKey(key); err != nil {
			return err
		}
	}
	if err := checkBeginning(beginning); err != nil {
		return err
	}
	if err := cache.DeleteTags(ctx, tags...); err != nil {
		return err
	}
	if beginning != "" {
		if err := cache.DeletePrefix(ctx, beginning); err != nil {
			return err
		}
	}
	if len(keys) == 0 {
		return nil
	}
	return cache.Delete(ctx, keys...)
}

func clearCommand(a *app) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "clear",
		Short: "Remove all entries, and publish it",
		Long:  "Remove all entries; every node forgets what it has in memory. It asks first, unless --yes is given.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withCache(c.Context(), pgcache.Options{}, func(cache *pgcache.Cache, t *table) error {
				what := fmt.Sprintf("%s in the database %s", t.Names.Table(), quote(t.config.Database))
				if !yes {
					if !isTerminal(a.in) {
						return usageError{errors.New("nobody can be asked here: give --yes to remove all entries of " + what)}
					}
					fmt.Fprintf(a.errs, "Remove all entries of %s? [y/N] ", what)
					var answer string
					fmt.Fscanln(a.in, &answer) //nolint:errcheck // no answer is no
					if answer != "y" && answer != "yes" {
						return errors.New("nothing was removed")
					}
				}
				if err := cache.Clear(c.Context()); err != nil {
					return err
				}
				if a.global.json {
					return writeJSON(a.out, map[string]bool{"cleared": true})
				}
				fmt.Fprintln(a.out, "removed all entries of", what)
				return nil
			})
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

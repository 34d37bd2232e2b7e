package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/pgcache/go/pgcache"
)

type tagJSON struct {
	Tag     string `json:"tag"`
	Entries int64  `json:"entries"`
	Bytes   int64  `json:"bytes"`
}

// checkBeginning refuses what no key and no tag can begin with, before a server does.
func checkBeginning(s string) error {
	if len(s) > pgcache.MaxKeyBytes || !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		return usageError{errors.New("the BEGINNING must be UTF-8 without NUL, and no longer than a key")}
	}
	return nil
}

func tagsCommand(a *app) *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use:   "tags [BEGINNING]",
		Short: "List tags, and how many live entries have them",
		Long: `List the tags that begin with BEGINNING, those of most entries first, with the number of live entries that have them and the size
of their values. It reads the rows of the whole table, as there is no index of tags; --timeout ends it. Entries of a tag are
deleted with 'pgcache del --tag'.`,
		Example: "  pgcache tags org: --limit 10",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if limit < 1 || limit > 100_000 {
				return usageError{errors.New("--limit must be 1 to 100000")}
			}
			beginning := ""
			if len(args) == 1 {
				beginning = args[0]
			}
			if err := checkBeginning(beginning); err != nil {
				return err
			}
			t, err := a.table(c.Context())
			if err != nil {
				return err
			}
			defer t.close()
			ctx, cancel := context.WithTimeout(c.Context(), a.global.timeout)
			defer cancel()
			list, err := t.ListTags(ctx, beginning, limit+1)
			if err != nil {
				return err
			}
			more := len(list) > limit
			list = list[:min(len(list), limit)]
			if a.global.json {
				page := struct {
					Tags []tagJSON `json:"tags"`
					More bool      `json:"more"`
				}{Tags: make([]tagJSON, len(list)), More: more}
				for i, tag := range list {
					page.Tags[i] = tagJSON(tag)
				}
				return writeJSON(a.out, page)
			}
			if len(list) == 0 {
				return nil
			}
			rows := make([][]string, len(list))
			for i, tag := range list {
				rows[i] = []string{countText(tag.Entries), bytesText(tag.Bytes), printable(tag.Tag)}
			}
			a.grid([]string{"ENTRIES", "SIZE", "TAG"}, "rrl", rows)
			if more {
				fmt.Fprintf(a.errs, "There are more: --limit %d\n", min(10*limit, 100_000))
			}
			return nil
		},
	}
	c.Flags().IntVar(&limit, "limit", 100, "the most tags to list")
	return c
}

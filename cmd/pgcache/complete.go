package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

const (
	completeTimeout = 2 * time.Second
	mostOffered     = 50
)

// completeKeys offers keys to the shell.
func (a *app) completeKeys(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	if len(args) > 0 && c.Name() != "del" || checkBeginning(begun) != nil {
		return nil, none
	}
	ctx, cancel := context.WithTimeout(c.Context(), completeTimeout)
	defer cancel()
	t, err := a.table(ctx)
	if err != nil {
		return nil, none
	}
	defer t.close()
	list, err := t.List(ctx, begun, "", false, mostOffered)
	if err != nil {
		return nil, none
	}
	var keys []string
	for _, e := range list {
		if printable(e.Key) == e.Key {
			keys = append(keys, e.Key)
		}
	}
	return keys, none
}

// noFileCompletion says that the values of flags are no names of files.
func noFileCompletion(c *cobra.Command, flags ...string) {
	for _, name := range flags {
		if err := c.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions); err != nil {
			panic(err) // the flag is not there
		}
	}
}

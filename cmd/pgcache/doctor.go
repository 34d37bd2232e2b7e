package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/spf13/cobra"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
	"github.com/pgcache/go/pgcache"
)

type findingJSON struct {
	ID       string `json:"id"`
	Severity string `json:"severity"` // note, warning or fault
	What     string `json:"what"`
	Remedy   string `json:"remedy"`
}

func doctorCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Look for what keeps the cache from working well",
		Long: `Look at the server, the tables, the rights of the role, and whether notifications arrive, for what keeps the cache from working
well, and say what to do about it. Give it the DSN of the application, so that it sees what the application sees: it joins
as a node for a moment, listens, and stores nothing. Exits with 1 if there is a warning or a fault; a note is only
shown. docs/operating.md lists all findings.`,
		Example: "  pgcache doctor\n  pgcache doctor --json | jq -r '.findings[].id'",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			found, err := a.findings(c.Context())
			if err != nil {
				return err
			}
			if a.global.json {
				out := make([]findingJSON, len(found))
				for i, f := range found {
					out[i] = findingJSON{f.ID, f.Severity.String(), a.scrub(f.What), a.scrub(f.Remedy)}
				}
				err = writeJSON(a.out, map[string]any{"findings": out})
			} else {
				a.diagnosis(found)
			}
			if bad := slices.IndexFunc(found, func(f pgcache.Finding) bool { return f.Severity > pgcache.Note }); err == nil && bad >= 0 {
				err = errFindings
			}
			return err
		},
	}
}

// errFindings is the error of doctor where something is wrong.
var errFindings = errors.New("there is something to mend")

// findings asks Doctor as a node that listens; the worst come first.
func (a *app) findings(ctx context.Context) ([]pgcache.Finding, error) {
	t, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer t.close()
	if err := t.read(ctx); err != nil && !sqlerr.Denied(err) { // which rights are lacking, Doctor says
		return nil, err
	}
	o := pgcache.Options{
		Schema: a.global.schema, Prefix: a.global.prefix, Channel: t.state.Channel, Timeout: a.global.timeout,
		Listener: pgxdriver.Listener(t.db), Local: localcache.None(), Guard: pgcache.NoGuard(), CleanupInterval: -1,
		Logger: slog.New(slog.DiscardHandler),
	}
	if o.Durable, err = a.durable(ctx, t); err != nil {
		return nil, err
	}
	cache, err := pgcache.New(t.db, o)
	if err != nil {
		return nil, usageError{err}
	}
	defer cache.Close()
	ready, cancel := context.WithTimeout(ctx, a.global.timeout)
	cache.Ready(ready) //nolint:errcheck // what keeps it from being ready is among the findings
	cancel()
	found, err := cache.Doctor(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(found, func(x, y pgcache.Finding) int { return int(y.Severity) - int(x.Severity) })
	return found, nil
}

// durable says which kind of tables there are: which there should be, the options of the program say.
func (a *app) durable(ctx context.Context, t *table) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, a.global.timeout)
	defer cancel()
	held, err := t.Rights(ctx)
	return slices.ContainsFunc(held, func(h store.Held) bool { return h.Object == "cache_entries" && h.Durable }), err
}

// diagnosis prints the findings for people.
func (a *app) diagnosis(found []pgcache.Finding) {
	s := style(a.colors())
	if len(found) == 0 {
		fmt.Fprintln(a.out, s.green("nothing found"))
		return
	}
	paint := map[pgcache.Severity]func(string) string{pgcache.Note: s.cyan, pgcache.Warning: s.yellow, pgcache.Fault: s.red}
	for i, f := range found {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		fmt.Fprintf(a.out, "%s  %s\n", paint[f.Severity](f.Severity.String()), s.bold(f.ID))
		fmt.Fprintf(a.out, "  %s\n", printable(a.scrub(f.What)))
		if f.Remedy != "" {
			fmt.Fprintf(a.out, "  %s %s\n", s.dim("->"), printable(a.scrub(f.Remedy)))
		}
	}
}

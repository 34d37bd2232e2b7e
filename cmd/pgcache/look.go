package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgcache/go/internal/store"
)

// entryJSON is an entry for programs.
type entryJSON struct {
	Key       string   `json:"key"`
	State     string   `json:"state"` // live, expired, deleted, removed (with a tag or a prefix), or nothing (a loader found nothing)
	Codec     string   `json:"codec"`
	Bytes     int64    `json:"bytes"`
	Stored    *int64   `json:"stored_bytes,omitempty"`
	ExpiresIn *float64 `json:"expires_in_seconds"` // null: never
	Age       float64  `json:"age_seconds"`
	WrittenAt string   `json:"written_at,omitempty"`
	Version   string   `json:"version,omitempty"` // in hex, as messages have it
	Tags      []string `json:"tags,omitempty"`
	StaleFor  float64  `json:"stale_for_seconds,omitempty"`
	*valueJSON
}

func state(e store.Inspected) string {
	switch {
	case e.Tombstone:
		return "deleted"
	case e.Dead:
		return "removed"
	case e.Negative() && (e.Forever || e.Remaining > 0):
		return "nothing"
	case e.Gone():
		return "expired"
	}
	return "live"
}

func expires(e store.Inspected) string {
	switch {
	case e.Forever:
		return "never"
	case e.Remaining <= 0:
		return spanText(e.Remaining) + " ago"
	}
	return "in " + spanText(e.Remaining)
}

func brief(e store.Inspected) entryJSON {
	j := entryJSON{Key: e.Key, State: state(e), Codec: e.Codec, Bytes: e.Bytes, Age: e.Age.Seconds()}
	if !e.Forever {
		s := e.Remaining.Seconds()
		j.ExpiresIn = &s
	}
	return j
}

func inspectCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect KEY",
		Short: "Show all that is stored of an entry",
		Long: `Show all that is stored of an entry: its codec, sizes, version, age, expiry, and the beginning of its value. It shows rows
too that no Get returns, which remain for some minutes: expired, deleted, removed with a tag or a prefix. Exits with 3 if there is no row.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeKeys,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkKey(args[0]); err != nil {
				return err
			}
			t, err := a.table(c.Context())
			if err != nil {
				return err
			}
			defer t.close()
			ctx, cancel := context.WithTimeout(c.Context(), a.global.timeout)
			defer cancel()
			e, found, err := t.Inspect(ctx, args[0], largest)
			if err == nil && !found {
				err = fmt.Errorf("%w: %s", errNoKey, printable(args[0]))
			}
			if err != nil {
				return err
			}
			if a.global.json {
				j, v := brief(e), valueOf(e)
				j.Stored, j.WrittenAt, j.Version, j.Tags, j.StaleFor = &e.Stored, e.Written.UTC().Format(time.RFC3339Nano), fmt.Sprintf("%016x", e.Version), e.Tags, e.Stale.Seconds()
				j.valueJSON = &v
				return writeJSON(a.out, j)
			}
			a.show(e)
			return nil
		},
	}
}

// show prints an entry for people.
func (a *app) show(e store.Inspected) {
	s := style(a.colors())
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(a.out, "%s  %s\n", s.dim(fmt.Sprintf("%-8s", name)), value)
		}
	}
	paint := s.green
	if e.Gone() {
		paint = s.yellow
	}
	line("key", s.bold(printable(e.Key)))
	line("state", paint(state(e)))
	line("codec", printable(e.Codec))
	size := bytesText(e.Bytes)
	if e.Stored != e.Bytes {
		size += ", " + bytesText(e.Stored) + " in the table"
	}
	if !e.Tombstone {
		line("size", size)
	}
	line("written", spanText(e.Age)+" ago, "+e.Written.UTC().Format("2006-01-02 15:04:05.000Z"))
	line("expires", expires(e))
	if e.Stale > 0 {
		line("stale", "for "+spanText(e.Stale)+", where a load fails or is slow")
	}
	line("version", fmt.Sprintf("%016x", e.Version))
	line("tags", printable(strings.Join(e.Tags, ", ")))
	if e.Value != nil {
		line("value", preview(e))
	}
}

// preview is the beginning of a value, on one line.
func preview(e store.Inspected) string {
	const most = 200
	data, isJSON, ok := text(e)
	more := ""
	if len(data) > most {
		data, more = data[:most], " ..."
	}
	if !ok {
		return hex.EncodeToString(data[:min(len(data), 32)]) + " ... (hex)"
	}
	if isJSON {
		return printable(strings.ToValidUTF8(string(data), "")) + more
	}
	return quote(string(data)) + more
}

func keysCommand(a *app) *cobra.Command {
	var limit int
	var after string
	var all, long bool
	c := &cobra.Command{
		Use:   "keys [BEGINNING]",
		Short: "List keys in their order",
		Long: `List the keys that begin with BEGINNING, in the order of their bytes, along the primary key: it reads no more rows than it
prints, but for those that have expired. --after continues where the last page ended.`,
		Example:           "  pgcache keys user: --long\n  pgcache keys --after user:7 --limit 1000",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeKeys,
		RunE: func(c *cobra.Command, args []string) error {
			if limit < 1 || limit > 100_000 {
				return usageError{errors.New("--limit must be 1 to 100000")}
			}
			beginning := ""
			if len(args) == 1 {
				beginning = args[0]
			}
			if err := errors.Join(checkBeginning(beginning), checkBeginning(after)); err != nil {
				return err
			}
			t, err := a.table(c.Context())
			if err != nil {
				return err
			}
			defer t.close()
			ctx, cancel := context.WithTimeout(c.Context(), a.global.timeout)
			defer cancel()
			list, err := t.List(ctx, beginning, after, all, limit+1)
			if err != nil {
				return err
			}
			more := len(list) > limit
			list = list[:min(len(list), limit)]
			switch {
			case a.global.json:
				page := struct {
					Keys []entryJSON `json:"keys"`
					Next string      `json:"next,omitempty"` // for --after; absent: that was all
				}{Keys: make([]entryJSON, len(list))}
				for i, e := range list {
					page.Keys[i] = brief(e)
				}
				if more {
					page.Next = list[limit-1].Key
				}
				return writeJSON(a.out, page)
			case long:
				rows := make([][]string, len(list))
				for i, e := range list {
					rows[i] = []string{bytesText(e.Bytes), printable(e.Codec), spanText(e.Age), state(e), expires(e), printable(e.Key)}
				}
				a.grid([]string{"SIZE", "CODEC", "AGE", "STATE", "EXPIRES", "KEY"}, "rlrlll", rows)
			default:
				for _, e := range list {
					fmt.Fprintln(a.out, printable(e.Key))
				}
			}
			if more {
				fmt.Fprintf(a.errs, "There are more: --after %s\n", quote(list[limit-1].Key))
			}
			return nil
		},
	}
	c.Flags().IntVar(&limit, "limit", 100, "the most keys to list")
	c.Flags().StringVar(&after, "after", "", "list what comes after this key")
	c.Flags().BoolVar(&all, "all", false, "list rows too that no Get returns: expired, deleted, removed with a tag or a prefix")
	c.Flags().BoolVarP(&long, "long", "l", false, "show size, codec, age and expiry")
	return c
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/compress"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/pgcache"
)

// largest is the largest value that is read.
const largest = 64 << 20

// text decodes the value of a row for people. ok is false where only programs with the same codec can.
func text(e store.Inspected) (data []byte, isJSON, ok bool) {
	switch e.Codec {
	case "raw":
		return e.Value, false, true
	case "raw.z":
		err := compress.New(codec.Raw{}, compress.MaxBytes(largest)).Unmarshal(e.Value, &data)
		return data, false, err == nil
	case "json":
		return e.Value, json.Valid(e.Value), true
	case "json.z":
		var doc json.RawMessage
		err := compress.New(codec.JSON{}, compress.MaxBytes(largest)).Unmarshal(e.Value, &doc)
		return doc, true, err == nil
	}
	return e.Value, false, false
}

// valueJSON is a value in JSON: the document itself, a text, or bytes in base64.
type valueJSON struct {
	Value  json.RawMessage `json:"value,omitempty"`
	Text   *string         `json:"text,omitempty"`
	Base64 []byte          `json:"base64,omitempty"`
}

func valueOf(e store.Inspected) (v valueJSON) {
	if e.Value == nil {
		return v
	}
	data, isJSON, ok := text(e)
	switch {
	case isJSON:
		v.Value = data
	case ok && utf8.Valid(data):
		s := string(data)
		v.Text = &s
	default:
		v.Base64 = e.Value
	}
	return v
}

// live reads an entry that a Get would find.
func (a *app) live(ctx context.Context, t *table, key string) (store.Inspected, error) {
	ctx, cancel := context.WithTimeout(ctx, a.global.timeout)
	defer cancel()
	e, found, err := t.Inspect(ctx, key, largest)
	switch {
	case err != nil:
		return e, err
	case !found || e.Gone():
		return e, fmt.Errorf("%w: %s", errNoKey, printable(key))
	case e.Value == nil:
		return e, fmt.Errorf("the value of %s has %s, more than is read here", printable(key), bytesText(e.Bytes))
	}
	return e, nil
}

func checkKey(key string) error {
	if key == "" || len(key) > pgcache.MaxKeyBytes || !utf8.ValidString(key) || strings.IndexByte(key, 0) >= 0 {
		return fmt.Errorf("%w: 1 to %d bytes of UTF-8 without NUL", pgcache.ErrInvalidKey, pgcache.MaxKeyBytes)
	}
	return nil
}

func getCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "get KEY",
		Short: "Print the value of an entry",
		Long: `Print the value of an entry, as it is stored: JSON and text with a line break behind, anything else byte for byte. Compressed
JSON and text are decompressed. Exits with 3 if there is no such entry. The key of a typed view is NAMESPACE:KEY.`,
		Example:           "  pgcache get user:42 | jq .name",
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
			e, err := a.live(c.Context(), t, args[0])
			if err != nil {
				return err
			}
			if a.global.json {
				return writeJSON(a.out, struct {
					Key   string `json:"key"`
					Codec string `json:"codec"`
					valueJSON
				}{e.Key, e.Codec, valueOf(e)})
			}
			data, isJSON, ok := text(e)
			switch watched := isTerminal(a.out); {
			case watched && !ok:
				return fmt.Errorf("the value is of the codec %s, which this program can't read: redirect it into a file, or use --json", printable(e.Codec))
			case watched && !utf8.Valid(data):
				return errors.New("the value is not text: redirect it into a file, or use --json")
			case watched:
				_, err = fmt.Fprintln(a.out, harmless(data))
			case isJSON:
				_, err = fmt.Fprintf(a.out, "%s\n", data)
			default:
				_, err = a.out.Write(data)
			}
			return err
		},
	}
}

func setCommand(a *app) *cobra.Command {
	var ttl, file string
	var raw, str bool
	var tags []string
	c := &cobra.Command{
		Use:   "set KEY [VALUE]",
		Short: "Store an entry, and publish the change",
		Long: `Store an entry, and publish the change to all nodes in the same statement. VALUE is JSON, as a Cache with the codec JSON reads
it; --string makes a JSON string of it, --raw stores the bytes for the codec Raw. Without VALUE it is read from the
standard input, or from --file.`,
		Example: `  pgcache set user:42 '{"name": "Ann"}' --ttl 10m
  pgcache set greeting hello --string
  pgcache set page:/ --raw --file index.html`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: a.completeKeys,
		RunE: func(c *cobra.Command, args []string) error {
			if raw && str {
				return usageError{errors.New("--raw and --string exclude each other")}
			}
			if err := checkKey(args[0]); err != nil {
				return err
			}
			lives, err := parseTTL(ttl)
			if err != nil {
				return err
			}
			data, err := a.value(args, file)
			if err != nil {
				return err
			}
			var value any = json.RawMessage(data)
			o := pgcache.Options{Codec: codec.JSON{}}
			switch {
			case raw:
				value, o.Codec = data, codec.Raw{}
			case str:
				value = string(data)
			case !json.Valid(data):
				return usageError{errors.New("the value is not JSON; --string stores it as a JSON string, --raw as it is")}
			}
			return a.withCache(c.Context(), o, func(cache *pgcache.Cache, _ *table) error {
				if err := cache.Set(c.Context(), args[0], value, pgcache.TTL(lives), pgcache.Tags(tags...)); err != nil {
					return err
				}
				if a.global.json {
					return writeJSON(a.out, map[string]any{"set": args[0], "codec": o.Codec.Name()})
				}
				return nil
			})
		},
	}
	c.Flags().StringVar(&ttl, "ttl", "5m", `how long the entry lives, such as 90s or 24h, or "forever"`)
	c.Flags().BoolVar(&raw, "raw", false, "store the bytes as they are, for the codec Raw")
	c.Flags().BoolVar(&str, "string", false, "store the value as a JSON string")
	c.Flags().StringVar(&file, "file", "", "read the value from a file")
	c.Flags().StringArrayVar(&tags, "tag", nil, "put the entry into a group; may be given again")
	noFileCompletion(c, "ttl", "tag")
	return c
}

func parseTTL(s string) (time.Duration, error) {
	if s == "forever" {
		return pgcache.NoExpiry, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, usageError{fmt.Errorf("--ttl %s: want a positive duration such as 90s or 24h, or forever", quote(s))}
	}
	return d, nil
}

// value is what is to be stored.
func (a *app) value(args []string, file string) ([]byte, error) {
	from := a.in
	switch {
	case len(args) == 2 && file != "":
		return nil, usageError{errors.New("a VALUE and --file exclude each other")}
	case len(args) == 2:
		return []byte(args[1]), nil
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return nil, usageError{err}
		}
		defer f.Close()
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, pgcache.DefaultMaxValueBytes+1))
	if len(data) > pgcache.DefaultMaxValueBytes {
		return nil, fmt.Errorf("%w: more than %d bytes", pgcache.ErrValueTooLarge, pgcache.DefaultMaxValueBytes)
	}
	return data, err
}

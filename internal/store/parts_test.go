package store_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestPartsAgree: parts that several statements have in common are the same in all of them. They are not functions: on Gets and
// Sets every call would cost some microseconds, and a row that comes from a function has no xmax.
func TestPartsAgree(t *testing.T) {
	t.Parallel()
	statements := queries(t)
	const bits, single, many = "PutEntryNeverKept PutEntryAndPublish", "PutEntry PutEntryNeverKept PutEntryAndPublish", "PutEntries PutEntriesAndPublish"
	const conditional, changing = "PutAbsent ReplaceEntry TouchEntry", "PutAbsent ReplaceEntry TouchEntry Increment StoreLoaded"
	for _, part := range []struct {
		what       string
		begin, end string // of the part, which has both
		in         string // the statements
	}{
		{"what takes the place of a row", "DO UPDATE SET value = EXCLUDED.value", "stale_until = EXCLUDED.stale_until", bits + " " + many + " StoreLoaded"},
		{"what takes the place of a row in a transaction", "DO UPDATE SET value = EXCLUDED.value", "stale_until = EXCLUDED.stale_until", "PutEntryTx PutEntriesTx"},
		{"what nobody else can hold is silent", "RETURNING key, version & ", "AS changed", bits + " " + many},
		{"the row of a lone write", "SELECT @key::text, sqlc.narg", "cache_seen(@key::text, NULL) END", single + " PutEntryTx"},
		{"the level of a lone write", "cache_seen(@key::text, NULL) END", "'read committed'", single},
		{"the rows of a list", "SELECT i.key, CASE WHEN i.size", "THEN /* TEMPLATE: prefix */cache_seen(i.key, i.tags::text[]) END", many + " PutEntriesTx"},
		{"the columns of a list", "ROWS FROM (", `ORDER BY i.key COLLATE "C"`, many + " PutEntriesTx"},
		{"patience", "WITH patience", "'read committed'", many + " Increment " + conditional},
		{"left for the next flush", "logged AS (", "w.changed\n)", "PutEntry PutEntryNeverKept PutEntries"},
		{"logged while somebody polls", "SELECT w.key, w.version FROM w\n    WHERE w.changed AND (SELECT", "cache_state s)", "PutEntryAndPublish PutEntriesAndPublish"},
		{"logged unless inline", "logged AS (", "RETURNING version", changing},
		{"published by the statement", "published AS (", "(SELECT FROM logged)\n)", changing + " PutEntriesAndPublish"},
		{"the answer", "SELECT (SELECT count(*) FROM w)", "FROM patience, published;", conditional},
		{"what a Get returns", "(CASE WHEN octet_length(e.value) > @largest", "AS remaining_us,", "GetEntry GetEntries GetWholeEntry"},
	} {
		cuts := map[string][]string{} // the statements that have a text
		for _, name := range strings.Fields(part.in) {
			_, after, ok := strings.Cut(statements[name], part.begin)
			text, _, closed := strings.Cut(after, part.end)
			if !ok || !closed {
				t.Errorf("%s: %s has no such part", part.what, name)
				continue
			}
			cuts[text] = append(cuts[text], name)
		}
		for text, names := range cuts {
			if len(cuts) > 1 {
				t.Errorf("%s: only %v have\n%s", part.what, names, text)
			}
		}
	}
	// And nobody writes a row, or the change log, in a way that is not looked at above.
	for name, text := range statements {
		writes := strings.Contains(text, "INTO /* TEMPLATE: prefix */cache_entries") || strings.Contains(text, "UPDATE /* TEMPLATE: prefix */cache_entries")
		if writes && !slices.Contains(strings.Fields(single+" "+many+" PutEntryTx PutEntriesTx "+changing), name) {
			t.Errorf("%s writes entries, and is not compared with the others that do", name)
		}
	}
}

// queries are the texts of sqlc/queries by the names of the statements, without comments at their beginnings.
func queries(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../../sqlc/queries/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	head := regexp.MustCompile(`(?m)^-- name: (\w+) :\w+\n(?:--.*\n)*`)
	texts := map[string]string{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		heads := head.FindAllStringSubmatchIndex(text, -1)
		for i, at := range heads {
			end := len(text)
			if i+1 < len(heads) {
				end = heads[i+1][0]
			}
			texts[text[at[2]:at[3]]] = text[at[1]:end]
		}
	}
	return texts
}

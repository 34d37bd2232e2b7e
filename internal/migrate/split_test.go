package migrate

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/internal/store"
)

func TestSplit(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"":                                      nil,
		" \n\t":                                 nil,
		"SELECT 1":                              {"SELECT 1"},
		"SELECT 1;":                             {"SELECT 1;"},
		"SELECT 1; SELECT 2;\n":                 {"SELECT 1;", "SELECT 2;"},
		"SELECT ';'; SELECT ''';''';":           {"SELECT ';';", "SELECT ''';''';"},
		"-- a; b\nSELECT 1; -- c;\nSELECT 2":    {"-- a; b\nSELECT 1;", "-- c;\nSELECT 2"},
		"SELECT /* ; */ 1; SELECT 2":            {"SELECT /* ; */ 1;", "SELECT 2"},
		"DO $$ BEGIN x; y; END $$; SELECT 1":    {"DO $$ BEGIN x; y; END $$;", "SELECT 1"},
		"DO $a$ x; $$ y; $b$ z; $a$; SELECT 1":  {"DO $a$ x; $$ y; $b$ z; $a$;", "SELECT 1"},
		"DO $_b1$ ' $_b1$; SELECT $1; SELECT 2": {"DO $_b1$ ' $_b1$;", "SELECT $1;", "SELECT 2"},
		"SELECT 'it -- is; '; SELECT 2":         {"SELECT 'it -- is; ';", "SELECT 2"},
		"SELECT '/*;'; SELECT 2; -- */":         {"SELECT '/*;';", "SELECT 2;", "-- */"},
	} {
		if got := split(text); !cmp.Equal(got, want) {
			t.Errorf("%q: %q", text, got)
		}
	}
	// Nothing is lost of our own, and every statement begins like one.
	for _, m := range All(store.Names{Channel: "c"}) {
		statements := split(m.SQL)
		squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
		if got := squeeze(strings.Join(statements, "\n")); got != squeeze(m.SQL) {
			t.Errorf("%s: %s", m.Name, cmp.Diff(squeeze(m.SQL), got))
		}
		for _, s := range statements {
			for strings.HasPrefix(s, "--") {
				_, s, _ = strings.Cut(s, "\n")
				s = strings.TrimSpace(s)
			}
			word, _, _ := strings.Cut(s, " ")
			switch word {
			case "CREATE", "INSERT", "UPDATE", "ALTER", "DO", "COMMENT", "SELECT", "DROP", "REVOKE", "SET":
			default:
				t.Errorf("%s: a statement begins %.40q", m.Name, s)
			}
		}
	}
}

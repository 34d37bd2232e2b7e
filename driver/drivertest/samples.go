package drivertest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// raw is a codec that leaves bytes as they are, so that tests decide what the database is given. Unlike codec.Raw it returns nil for no
// bytes, which a driver could take for NULL.
type raw struct{}

func (raw) Name() string { return "raw" }

func (raw) Marshal(v any) ([]byte, error) {
	if b, ok := v.([]byte); ok {
		return append([]byte(nil), b...), nil
	}
	return nil, fmt.Errorf("raw takes []byte, not %T", v)
}

func (raw) Unmarshal(data []byte, v any) error {
	dst, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("raw fills a *[]byte, not a %T", v)
	}
	*dst = append([]byte{}, data...)
	return nil
}

// awkwardKeys are those that some quoting, escaping, collation or parser on the way could trip over. No two are equal.
func awkwardKeys() []string {
	return []string{
		"k", "K", "k ", " k", " ", "  ", "\t", "\n", "\r\n", "a\nb", "\u00a0", "\u200b", "\ufeff",
		"'", "''", "a'b", `"`, `""`, `a"b`, `\`, `\\`, `a\b`, `\"`, `\n`, `\x00ff`, `E'\x41'`, "`", "´",
		"{}", "{", "}", "{a,b}", `{"a","b"}`, ",", "a,b", "(a,b)", "[1:2]={a,b}", "NULL", "null", `"NULL"`, "true", "0", "-1",
		"\x01", "\x1f", "a\x1fb", "\x7f", "%", "%s", "_", "?", "$1", "$$", "@key", ":key", "--", "/* */", ";", "; DROP TABLE x",
		"/* TEMPLATE: prefix */cache_entries",
		"שלום", "مرحبا", "\u202eabc", "é", "e\u0301", "ß", "😀", "a😀b", "\U0010ffff",
		"2*", "p", "1:k0000000000000001;", "21:k0000000000000001;",
		strings.Repeat("k", 1000), strings.Repeat(`\`, 1000), strings.Repeat(`"`, 1000), strings.Repeat("😀", 250),
	}
}

// longestKeys have as many bytes as a key may have without a namespace.
func longestKeys() []string {
	return []string{strings.Repeat("x", 1024), strings.Repeat(`"`, 1024), strings.Repeat("€", 341) + "x", strings.Repeat("😀", 256)}
}

// valueOf is a value that says which key and which write it belongs to.
func valueOf(key string, write int) []byte { return fmt.Appendf(nil, "%d %s", write, key) }

// awkwardValues are bytes that some text format on the way could take for something else.
func awkwardValues() map[string][]byte {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	big := make([]byte, 1<<20)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(big) // never fails
	return map[string][]byte{
		"empty": {}, "NUL": {0}, "NULs": make([]byte, 1000), "all bytes": all, "1 MB": big,
		"invalid UTF-8": []byte("\xff\xfe\xc0\xaf"), "half a rune": []byte("abc\xe2\x82"),
		"hex bytea": []byte(`\x00ff`), "escaped bytea": []byte(`\000\\`), "backslash": []byte(`\`), "quote": []byte(`'`),
		"NULL": []byte("NULL"), "braces": []byte("{}"), "spaces": []byte("  "), "newline": []byte("\n"),
	}
}

// person is a value with a bit of everything that codecs and drivers may treat in their own ways.
type person struct {
	ID      int64
	Name    string
	Photo   []byte
	Born    time.Time
	Parents map[string]*person
	Scores  []float64
	Note    *string
}

func somebody() person {
	note := "né\x01e \\ ' \" 😀"
	return person{
		ID: -1 << 62, Name: "Ann 'O\\Neil'", Photo: []byte{0, 255, '\\', 'x'},
		Born:    time.Date(1969, 12, 31, 23, 59, 59, 123456789, time.UTC),
		Parents: map[string]*person{"mother": {ID: 1<<62 + 1, Name: "Eve", Born: time.Unix(0, 0).UTC()}},
		Scores:  []float64{0, 1.5, -1e300}, Note: &note,
	}
}

package codec_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/codectest"
)

func BenchmarkJSON(b *testing.B) { codectest.Benchmark(b, codec.JSON{}) }

// BenchmarkReplaced compares codec.JSON with encoding/json: the difference is the search for bytes that encoding/json replaced.
func BenchmarkReplaced(b *testing.B) {
	for name, v := range map[string]any{
		"text": strings.Repeat("An analyst and metaphysician. ", 300), "escapes": strings.Repeat("a\"b\n", 1500),
		"Japanese": strings.Repeat("\u65e5\u672c\u8a9e", 1000), "U+FFFD": []string{strings.Repeat("x", 9000), "\ufffd"}, "numbers": make([]int, 5000),
	} {
		for _, c := range []struct {
			name    string
			marshal func(v any) ([]byte, error)
		}{{"encoding/json", json.Marshal}, {"codec", codec.JSON{}.Marshal}} {
			b.Run(name+"/"+c.name, func(b *testing.B) {
				for b.Loop() {
					if _, err := c.marshal(v); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkGob(b *testing.B) { codectest.Benchmark(b, codec.Gob{}) }

// A page of 30 kB, as a hit in memory or a row decodes it.
func BenchmarkString30kB(b *testing.B) {
	page := strings.Repeat("<p>30 kB</p>\n", 30_000/13)
	for _, c := range []codec.Codec{codec.Raw{}, codec.JSON{}} {
		data, err := c.Marshal(page)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(c.Name(), func(b *testing.B) {
			b.ReportAllocs()
			var got string
			for b.Loop() {
				if err := c.Unmarshal(data, &got); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

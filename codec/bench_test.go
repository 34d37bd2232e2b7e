package codec_test

import (
	"strings"
	"testing"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/codectest"
)

func BenchmarkJSON(b *testing.B) { codectest.Benchmark(b, codec.JSON{}) }

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

package codectest

import (
	"testing"

	"github.com/pgcache/go/codec"
)

// user is what Benchmark encodes: a small, flat struct of about 200 bytes, as caches often hold.
type user struct {
	ID      int64
	Name    string
	Email   string
	Country string
	Roles   []string
	Active  bool
	Balance float64
	Bio     string
}

// Benchmark measures c with a small struct, and reports how many bytes it takes.
func Benchmark(b *testing.B, c codec.Codec) {
	put := user{
		ID: 123_456_789, Name: "Ada Lovelace", Email: "ada@example.com", Country: "GB", Roles: []string{"admin", "author"},
		Active: true, Balance: 1815.12, Bio: "An analyst and metaphysician who wrote the first program, for an engine of brass.",
	}
	data, err := c.Marshal(&put)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Marshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Marshal(&put); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(data)), "bytes")
	})
	b.Run("Unmarshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var got user
			if err := c.Unmarshal(data, &got); err != nil {
				b.Fatal(err)
			}
		}
	})
}

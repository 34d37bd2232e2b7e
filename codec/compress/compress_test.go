package compress_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/codectest"
	"github.com/pgcache/go/codec/compress"
	"github.com/pgcache/go/codec/encrypt"
)

func TestCodec(t *testing.T) {
	t.Parallel()
	sealed, err := encrypt.New(codec.JSON{}, encrypt.Key{ID: "k", Secret: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]codec.Codec{
		"s2": compress.New(codec.JSON{}, compress.Above(0)), "zstd": compress.New(codec.JSON{}, compress.Above(0), compress.Zstd()),
	} {
		t.Run(name, func(t *testing.T) { codectest.Test(t, c, "../../testdata/codec/compress-"+name) })
	}
	codectest.TestValues(t, compress.New(codec.Raw{}), "short", strings.Repeat("long ", 1000), []byte(strings.Repeat("x", 9000)))
	codectest.TestValues(t, compress.New(sealed), "short", strings.Repeat("long ", 1000))
}

func FuzzCodec(f *testing.F) { codectest.Fuzz(f, compress.New(codec.JSON{}, compress.Above(0))) }

// Bytes that claim or decompress to more than MaxBytes are refused without allocating that much.
func TestBomb(t *testing.T) {
	huge := make([]byte, 64<<20)
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	frame := w.EncodeAll(huge, nil)
	sized := func(n uint64) []byte { return append(binary.AppendUvarint([]byte{2}, n), frame...) }
	bombs := map[string][]byte{
		"s2": append([]byte{1}, s2.Encode(nil, huge)...), "zstd": sized(64 << 20), "zstd that lies": sized(1000), "zstd that claims all": sized(1 << 63),
	}
	c := compress.New(codec.Raw{}, compress.MaxBytes(1<<20))
	for name, bomb := range bombs {
		_ = c.Unmarshal(sized(10), new([]byte)) // makes the decoder
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := c.Unmarshal(bomb, new([]byte))
		runtime.ReadMemStats(&after)
		if plain := codec.PlainError(""); !errors.As(err, &plain) {
			t.Errorf("%s: a cache would not show why: %v", name, err)
		}
		if grown := after.TotalAlloc - before.TotalAlloc; err == nil || grown > 2<<20 {
			t.Errorf("%s: %v, with %d bytes of memory", name, err, grown)
		}
	}
	if _, err := c.Marshal(make([]byte, 1<<20+1)); err == nil {
		t.Error("a value was written that can't be read")
	}
}

func document(size int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	b.WriteString(`[`)
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, `{"id":%d,"name":"user %x","email":"%x@example.com","active":%v,"score":%.3f},`, r.IntN(1e9), r.Uint32(), r.Uint64(), i%3 == 0, r.Float64())
	}
	return []byte(b.String()[:size])
}

func Benchmark(b *testing.B) {
	for _, size := range []int{200, 1000, 10_000, 100_000} {
		doc := document(size)
		for name, c := range map[string]codec.Codec{"s2": compress.New(codec.Raw{}, compress.Above(0)), "zstd": compress.New(codec.Raw{}, compress.Above(0), compress.Zstd())} {
			data, _ := c.Marshal(doc)
			b.Run(fmt.Sprintf("%s/%d/Marshal", name, size), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					_, _ = c.Marshal(doc)
				}
				b.ReportMetric(float64(len(data)), "bytes")
			})
			b.Run(fmt.Sprintf("%s/%d/Unmarshal", name, size), func(b *testing.B) {
				b.ReportAllocs()
				var got []byte
				for b.Loop() {
					_ = c.Unmarshal(data, &got)
				}
			})
		}
	}
}

func ExampleNew() {
	c := compress.New(codec.JSON{})
	data, err := c.Marshal(strings.Repeat("a cache ", 1000))
	fmt.Println(c.Name(), len(data) < 1000, err)
	// Output: json.z true <nil>
}

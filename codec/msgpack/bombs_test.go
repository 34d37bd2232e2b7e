package msgpack_test

import (
	"bytes"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	pgmsgpack "github.com/pgcache/go/codec/msgpack"
)

// malformed are short inputs that made the library allocate gigabytes or read past the end.
func malformed() map[string][]byte {
	return map[string][]byte{
		"empty":                 {},
		"array16":               {0xdc, 0xff, 0xff, 0xc0},
		"array32":               {0xdd, 0xff, 0xff, 0xff, 0xff},
		"map32":                 {0xdf, 0xff, 0xff, 0xff, 0xff},
		"map32 past 2^32":       {0xdf, 0x80, 0x00, 0x00, 0x01, 0xc0, 0xc0},
		"str32":                 {0xdb, 0xff, 0xff, 0xff, 0xff, 'x'},
		"bin32":                 {0xc6, 0xff, 0xff, 0xff, 0xff, 'x'},
		"ext32":                 {0xc9, 0xff, 0xff, 0xff, 0xff, 0xff, 'x'},
		"many arrays":           bytes.Repeat([]byte{0xdd, 0x00, 0x01, 0x00, 0x00}, 20_000),
		"deep arrays":           bytes.Repeat([]byte{0x91}, 5_000_000),
		"deep maps":             bytes.Repeat([]byte{0x81, 0xc0}, 2_000_000),
		"deep maps of strings":  bytes.Repeat([]byte{0x81, 0xa1, 'A'}, 2_000_000),
		"deep structs":          bytes.Repeat([]byte("\x81\xa5Inner\x91"), 1_000_000),
		"interned as map32":     {0xd4, 0x80, 0xdf, 0xff, 0xff, 0xff, 0xff},
		"ext8 of one as map32":  {0xc7, 0x01, 0x05, 0xdf, 0x7f, 0xff, 0xff, 0xff},
		"ext8 of none as map32": {0xc7, 0x00, 0x05, 0xdf, 0x7f, 0xff, 0xff, 0xff},
		"half a length":         {0xdd, 0xff},
		"half an extension":     {0xd4},
		"half an ext8":          {0xc7, 0x00},
		"code never used":       {0xc1},
		"two values":            {0xc0, 0xc0},
	}
}

// mistakable are valid MessagePack that the library, where it wants a map, takes for a map with billions of entries.
func mistakable(t testing.TB) map[string][]byte {
	t.Helper()
	aTime, err := msgpack.Marshal(time.Unix(0x3_df00_0000, 0xdfff_ffff>>2))
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"a time":             aTime,
		"an ext":             {0xd6, 0x05, 0xdf, 0xff, 0xff, 0xff},
		"a long ext":         {0xc7, 0x06, 0x05, 0xdf, 0xff, 0xff, 0xff, 0xff, 0x00},
		"hidden in an ext":   {0xd8, 0x05, 0x81, 0xa1, 'A', 0xdf, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0},
		"an interned string": {0x92, 0xd4, 0x80, 0xdf, 0xdb, 0x00, 0x00, 0x00, 0x01, 'x'},
	}
}

// Not parallel: it counts what the process allocates.
func TestBombs(t *testing.T) {
	try := func(name string, bomb []byte, v any) error {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := pgmsgpack.Codec{}.Unmarshal(bomb, v)
		runtime.ReadMemStats(&after)
		if used, most := after.TotalAlloc-before.TotalAlloc, uint64(64*len(bomb)+64<<10); used > most {
			t.Errorf("%s into %T: allocated %d bytes for %d, want at most %d", name, v, used, len(bomb), most)
		}
		return err
	}
	type row struct{ A any }
	for name, bomb := range malformed() {
		for _, v := range []any{
			new(any), new([]any), new([]int64), new([]string), new([]byte), new(string), new([8]byte), new(deep),
			new(map[string]any), new(map[string]string), new(map[any]any), new(map[string][]map[string]any), new(row),
			new(everything), new(msgpack.RawMessage),
		} {
			if err := try(name, bomb, v); err == nil {
				t.Errorf("%s into %T: got %v, want an error", name, v, reflect.ValueOf(v).Elem())
			}
		}
	}
	for name, bomb := range mistakable(t) {
		for _, v := range []any{
			new(map[string]any), new(map[string]string), new(map[any]any), new(map[string][]map[string]any),
			new([]map[string]any), new(struct{ A map[string]any }),
		} {
			if err := try(name, bomb, v); err == nil {
				t.Errorf("%s into %T: got %v, want an error", name, v, reflect.ValueOf(v).Elem())
			}
		}
	}
}

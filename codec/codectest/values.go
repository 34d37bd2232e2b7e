package codectest

import (
	"bytes"
	"reflect"
	"sync"
	"testing"

	"github.com/pgcache/go/codec"
)

// TestValues checks what package codec promises of a Codec that can carry values of some types only, such as codec.Raw:
// values are examples, each decoded into a new variable of its own type.
func TestValues(t *testing.T, c codec.Codec, values ...any) {
	t.Helper()
	testName(t, c)
	for _, value := range values {
		typ := reflect.TypeOf(value)
		decode := func(data []byte) (any, error) {
			got := reflect.New(typ)
			err := c.Unmarshal(data, got.Interface())
			return got.Elem().Interface(), err
		}
		check := func(got any, err error, when string) {
			if difference := diff(value, got); err != nil || difference != "" {
				t.Errorf("%s %s: %v (-put +got):\n%s", typ, when, err, difference)
			}
		}

		data := marshal(t, c, value)
		got, err := decode(data)
		check(got, err, "came back different")
		scribble(data[:cap(data)])
		check(got, nil, "shares memory with the bytes")
		check(value, nil, "was changed through the bytes")

		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 20 {
					data, err := c.Marshal(value)
					if err == nil {
						var got any
						got, err = decode(data)
						check(got, err, "came back different to one of many")
					} else {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()

		data = marshal(t, c, value)
		for i := range min(len(data), 200) {
			_, _ = decode(data[:i])
			for _, flip := range []byte{0x01, 0x10, 0x80, 0xff} {
				damaged := bytes.Clone(data)
				damaged[i] ^= flip
				_, _ = decode(damaged)
			}
		}
		nothing := reflect.Zero(reflect.PointerTo(typ)).Interface()
		for _, dst := range []any{nil, nothing, value} {
			if err := c.Unmarshal(data, dst); err == nil {
				t.Errorf("Unmarshal of a %s into %T returned no error", typ, dst)
			}
		}
	}
}

package codectest

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pgcache/go/codec"
)

// Fuzz feeds arbitrary bytes to c's Unmarshal, to be decoded into types of all kinds and into those of more. No bytes
// may make it panic. Bytes that are a value must become stable: the value can be encoded again, and after that it comes back equal.
func Fuzz(f *testing.F, c codec.Codec, more ...reflect.Type) {
	for _, s := range samples() {
		data, err := c.Marshal(s.value)
		if err != nil {
			f.Fatalf("Marshal of a %T: %v", s.value, err)
		}
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
	types := append([]reflect.Type{
		reflect.TypeFor[any](), reflect.TypeFor[purchase](), reflect.TypeFor[*money](), reflect.TypeFor[[]money](),
		reflect.TypeFor[string](), reflect.TypeFor[[]byte](), reflect.TypeFor[int32](), reflect.TypeFor[float64](),
		reflect.TypeFor[bool](), reflect.TypeFor[time.Time](), reflect.TypeFor[[][]string](), reflect.TypeFor[[2]any](),
		reflect.TypeFor[map[string]any](), reflect.TypeFor[map[string]string](), reflect.TypeFor[map[int8][]uint16](),
	}, more...)

	f.Fuzz(func(t *testing.T, data []byte) {
		for _, typ := range types {
			first := reflect.New(typ)
			if c.Unmarshal(data, first.Interface()) != nil {
				continue
			}
			second, _ := again(t, c, first)
			third, data2 := again(t, c, second)
			_, data3 := again(t, c, third)
			if bytes.Equal(data2, data3) || reflect.DeepEqual(second.Interface(), third.Interface()) {
				continue
			}
			// A map in another order, or a NaN. Not cmp alone: it takes ages for slices 100 levels deep.
			options := []cmp.Option{
				cmpopts.EquateEmpty(), cmpopts.EquateNaNs(), cmp.Exporter(func(reflect.Type) bool { return true }),
			}
			if diff := cmp.Diff(second.Interface(), third.Interface(), options...); diff != "" {
				t.Errorf("%x decoded into a %s does not come to rest (-second +third):\n%s", data, typ, diff)
			}
		}
	})
}

// again encodes the value that v points to. It returns a pointer to what that decodes to, and the bytes in between.
func again(t *testing.T, c codec.Codec, v reflect.Value) (reflect.Value, []byte) {
	t.Helper()
	data := marshal(t, c, v.Interface())
	got := reflect.New(v.Type().Elem())
	unmarshal(t, c, data, got.Interface())
	return got, data
}

package codec_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/codectest"
)

type page []byte

func TestRaw(t *testing.T) {
	t.Parallel()
	codectest.TestValues(t, codec.Raw{}, "", "text", named("n"), []byte{}, []byte{0, 0xff}, page("p"), json.RawMessage(`{}`))
	for _, v := range []any{1, struct{}{}, []string{"a"}, new(int)} {
		_, err := codec.Raw{}.Marshal(v)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%T", v)) {
			t.Errorf("Marshal of a %T: %v", v, err)
		}
	}
	if err := (codec.Raw{}).Unmarshal([]byte("x"), new(int)); err == nil || !strings.Contains(err.Error(), "*int") {
		t.Error(err)
	}
}

// Bytes and text as they are: no quotes, no base64.
func ExampleRaw() {
	data, err := codec.Raw{}.Marshal("<html>")
	fmt.Println(string(data), err)
	_, err = codec.Raw{}.Marshal(42)
	fmt.Println(err)
	// Output:
	// <html> <nil>
	// pgcache: codec raw: marshal int: want []byte, string, or a type made of one of them; use another codec for this type
}

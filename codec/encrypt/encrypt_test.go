package encrypt_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/codectest"
	"github.com/pgcache/go/codec/compress"
	"github.com/pgcache/go/codec/encrypt"
)

func key(id string, size int) encrypt.Key {
	return encrypt.Key{ID: id, Secret: bytes.Repeat([]byte("\x53\x45\x43\x52"), size/4)}
}

func seal(t testing.TB, inner codec.Codec, keys ...encrypt.Key) *encrypt.Codec {
	t.Helper()
	c, err := encrypt.New(inner, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCodec(t *testing.T) {
	t.Parallel()
	codectest.Test(t, seal(t, codec.JSON{}, key("k", 32)), "../../testdata/codec/encrypt")
	codectest.TestValues(t, seal(t, compress.New(codec.JSON{}), key("k", 16)), "a", strings.Repeat("long ", 1000), map[string]int{"a": 1})
	codectest.TestValues(t, seal(t, codec.Raw{}, key("k", 24)), "a", []byte("b"))
}

func FuzzCodec(f *testing.F) { codectest.Fuzz(f, seal(f, codec.JSON{}, key("k", 32))) }

func TestBinding(t *testing.T) {
	t.Parallel()
	old, later := key("old", 32), encrypt.Key{ID: "later", Secret: make([]byte, 32)}
	before, after := seal(t, codec.JSON{}, old), seal(t, compress.New(codec.JSON{}), later, old)
	data, err := before.MarshalKeyed("row", "private")
	if err != nil || bytes.Contains(data, []byte("private")) {
		t.Fatal(err)
	}
	var got string
	if err := codec.Unmarshal(after.ReaderOf("json.aes"), "row", data, &got); err != nil || got != "private" {
		t.Errorf("a row from before the rotation and the compression: %q, %v", got, err)
	}
	if before.ReaderOf("json") != nil || after.ReaderOf("json") != nil || after.ReaderOf("json.z") != nil {
		t.Error("plain rows are accepted")
	}
	if err := before.UnmarshalKeyed("row2", data, &got); err == nil || strings.Contains(err.Error(), "private") || !isPlain(err) {
		t.Errorf("a moved value: %v", err)
	}
	if err := seal(t, codec.JSON{}, later).UnmarshalKeyed("row", data, &got); err == nil || !strings.Contains(err.Error(), `"old"`) || !isPlain(err) {
		t.Errorf("an unknown key: %v", err)
	}
	for i := range data {
		data[i] ^= 1
		if err := before.UnmarshalKeyed("row", data, &got); err == nil {
			t.Errorf("byte %d changed: no error", i)
		}
		data[i] ^= 1
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	for name, keys := range map[string][]encrypt.Key{
		"none": nil, "no id": {key("", 32)}, "bad id": {key("a b", 32)}, "short": {key("a", 12)}, "twice": {key("a", 32), key("a", 16)},
	} {
		c, err := encrypt.New(codec.JSON{}, keys...)
		if err == nil || strings.Contains(err.Error(), "SECR") || codec.Validate(c) == nil {
			t.Errorf("%s: %v, %v", name, c, err)
		}
	}
	if _, err := encrypt.New(nil, key("a", 32)); err == nil {
		t.Error("nil inner codec")
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	k := key("k", 32)
	c := seal(t, codec.JSON{}, k)
	text, _ := json.Marshal([]any{k, &k})
	var b strings.Builder
	b.Write(text)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		fmt.Fprintf(&b, verb+verb+verb+verb+verb, k, &k, []encrypt.Key{k}, c, *c)
	}
	b.WriteString(k.LogValue().String() + c.LogValue().String())
	for _, secret := range []string{"SECR", "53454352", "83 69 67", "0x53, 0x45", "U0VDU"} {
		if strings.Contains(b.String(), secret) {
			t.Errorf("%q in %s", secret, b.String())
		}
	}
}

func ExampleNew() {
	c, err := encrypt.New(compress.New(codec.JSON{}), encrypt.Key{ID: "2026", Secret: make([]byte, 32)})
	fmt.Println(c.Name(), err)
	// Output: json.z.aes <nil>
}

// isPlain says whether err has a codec.PlainError in it, whose text a Cache shows.
func isPlain(err error) bool {
	var plain codec.PlainError
	return errors.As(err, &plain)
}

package codectest

import (
	"bytes"
	"slices"
	"testing"

	"github.com/pgcache/go/codec"
)

// This file tests what a codec has to refuse: bytes that are not a value, values that it cannot carry, and destinations that cannot
// take one.

// testTrailing appends bytes to values. Accepting them would let bytes of another format pass for a small number with
// something behind it.
func testTrailing(t *testing.T, c codec.Codec) {
	for _, s := range samples() {
		data := marshal(t, c, s.value)
		for _, tail := range []string{"\x00", "x", "{}", "\xc0", "\xff\xff\xff\xff"} {
			if got, err := s.decode(c, slices.Concat(data, []byte(tail))); err == nil {
				t.Errorf("%s: with %q after it, it decoded to %.100v, want an error", s.name, tail, got)
			}
		}
	}
}

// testDamaged cuts values off at every length and flips bits of every byte. A codec may decode a value from
// that. It must not panic, hang or exhaust the memory; each of these ends the test run without a check here.
func testDamaged(t *testing.T, c codec.Codec) {
	all := samples()
	damaged := func(data []byte) {
		for _, s := range all {
			_, _ = s.decode(c, data)
		}
		var anything any
		_ = c.Unmarshal(data, &anything)
	}
	for _, s := range all {
		data := marshal(t, c, s.value)
		for n := range data {
			_, _ = s.decode(c, data[:n])
		}
		damaged(data) // the bytes of one type, decoded into every other
		for i := range data {
			for _, flip := range []byte{0x01, 0x10, 0x80, 0xff} {
				data[i] ^= flip
				_, _ = s.decode(c, data)
				data[i] ^= flip
			}
		}
	}
	for b := range 256 {
		damaged([]byte{byte(b)})
		damaged(bytes.Repeat([]byte{byte(b)}, 100))
	}
	damaged([]byte{})
	damaged(nil)
}

func testUnsupported(t *testing.T, c codec.Codec) {
	for _, v := range []any{
		make(chan int), func() {},
		[]chan int{make(chan int)},
		map[string]func(){"f": func() {}},
		struct{ C chan int }{make(chan int)},
		struct{ F func() }{func() {}},
	} {
		if data, err := c.Marshal(v); err == nil {
			t.Errorf("Marshal of a %T returned %q, want an error", v, data)
		}
	}

	type node struct {
		Name string
		Next *node
	}
	loop := &node{Name: "loop"}
	loop.Next = loop
	if _, err := c.Marshal(loop); err == nil {
		t.Error("Marshal of a value that contains itself returned no error")
	}
}

func testDestinations(t *testing.T, c codec.Codec) {
	data := marshal(t, c, aPurchase())
	for name, v := range map[string]any{"nil": nil, "a nil pointer": (*purchase)(nil), "a value": purchase{}} {
		if err := c.Unmarshal(data, v); err == nil {
			t.Errorf("Unmarshal into %s returned no error", name)
		}
	}
	var number int
	if err := c.Unmarshal(data, &number); err == nil {
		t.Errorf("a struct decoded into the int %d, want an error", number)
	}
}

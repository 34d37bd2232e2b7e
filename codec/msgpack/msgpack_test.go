package msgpack_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vmihailenco/msgpack/v5"
	"go.uber.org/goleak"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/codectest"
	pgmsgpack "github.com/pgcache/go/codec/msgpack"
)

func TestMain(m *testing.M) {
	// The library's, for structs that are embedded by pointer.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/vmihailenco/msgpack/v5.cachedValue.func1"))
}

func TestCodec(t *testing.T) {
	t.Parallel()
	codectest.Test(t, pgmsgpack.Codec{}, "../../testdata/codec/msgpack")
}

// everything has the kinds of fields that only this format has.
type everything struct {
	Any      any
	Raw      msgpack.RawMessage
	Interned string `msgpack:",intern"`
	Word     any    `msgpack:"word,intern"`
	Array    struct {
		_msgpack struct{} `msgpack:",as_array"`
		A, B     any
	}
	Renamed map[any]any `msgpack:"m,omitempty"`
	Left    chan int    `msgpack:"-"`
	Inner   []everything
}

type deep []deep

func FuzzCodec(f *testing.F) {
	for _, bombs := range []map[string][]byte{malformed(), mistakable(f)} {
		for _, bomb := range bombs {
			f.Add(bomb[:min(len(bomb), 1000)])
		}
	}
	codectest.Fuzz(f, pgmsgpack.Codec{}, reflect.TypeFor[everything](), reflect.TypeFor[deep]())
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	data, err := pgmsgpack.Codec{}.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func unmarshal[T any](t *testing.T, data []byte) (v T) {
	t.Helper()
	if err := (pgmsgpack.Codec{}).Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestFormat(t *testing.T) {
	t.Parallel()
	put := everything{
		Any: int64(5), Interned: "interned", Word: "interned", Renamed: map[any]any{"k": uint8(1)},
		Left: make(chan int), Inner: []everything{{Interned: "interned", Word: "more"}, {Word: "more", Interned: "more"}},
	}
	put.Array.A = "a"
	data := marshal(t, put)
	library, err := msgpack.Marshal(put)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data, library) {
		t.Errorf("Marshal wrote %x, want the library's %x", data, library)
	}
	got := unmarshal[everything](t, data)
	var want everything
	if err := msgpack.Unmarshal(library, &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want the library's %+v", got, want)
	}
	if got.Inner[1].Interned != "more" || got.Inner[1].Word != "more" {
		t.Errorf("got %+v, want the values that were put", got)
	}
}

// An interned string is written as an extension with an index; indexes up to 300 include every byte that could start a map or be
// a length.
func TestManyInternedStrings(t *testing.T) {
	t.Parallel()
	type row struct {
		S string `msgpack:",intern"`
	}
	var rows []row
	for range 2 {
		for i := range 300 {
			rows = append(rows, row{fmt.Sprintf("string %d", i)})
		}
	}
	if diff := cmp.Diff(rows, unmarshal[[]row](t, marshal(t, rows))); diff != "" {
		t.Errorf("came back different (-put +got):\n%s", diff)
	}
}

func TestAny(t *testing.T) {
	t.Parallel()
	instant := time.Date(2024, time.February, 29, 23, 59, 58, 1, time.UTC)
	put := map[string]any{
		"int": 200, "uint": uint(1 << 20), "int64": int64(5), "uint32": uint32(5), "float32": float32(0.5),
		"bytes": []byte("b"), "time": instant, "nil": nil, "array": []string{"a"}, "struct": struct{ X bool }{true},
		"big": int64(1<<53 + 1),
	}
	want := map[string]any{
		"int": uint8(200), "uint": uint32(1 << 20), "int64": int64(5), "uint32": uint32(5), "float32": float32(0.5),
		"bytes": []byte("b"), "time": instant, "nil": nil, "array": []any{"a"}, "struct": map[string]any{"X": true},
		"big": int64(1<<53 + 1),
	}
	data := marshal(t, put)
	if diff := cmp.Diff(any(want), unmarshal[any](t, data)); diff != "" {
		t.Errorf("into an any (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, unmarshal[map[string]any](t, data)); diff != "" {
		t.Errorf("into a map (-want +got):\n%s", diff)
	}
	var got any
	if err := (pgmsgpack.Codec{}).Unmarshal(marshal(t, map[int]int{1: 2}), &got); err == nil {
		t.Errorf("a map of int decoded into the any %v, want an error", got)
	}
	if got := unmarshal[time.Time](t, marshal(t, instant)); got.Location() != time.Local {
		t.Errorf("a time came back in %v, want the local zone", got.Location())
	}
}

// Nesting as deep as is allowed works in both directions, so that nothing is written that is never read.
func TestDepth(t *testing.T) {
	t.Parallel()
	var v any
	for range 5_000 {
		v = []any{v}
	}
	if _, err := (pgmsgpack.Codec{}).Marshal(v); err != nil {
		t.Errorf("Marshal: %v", err)
	}
	unmarshal[any](t, marshal(t, v))
	deepest := append(bytes.Repeat([]byte{0x91}, 10_000), 0xc0)
	unmarshal[any](t, deepest)
	var got any
	if err := (pgmsgpack.Codec{}).Unmarshal(append([]byte{0x91}, deepest...), &got); err == nil {
		t.Error("10,001 levels decoded without an error")
	}
}

// Bytes of another format often start with what is a small number here.
func TestOtherFormats(t *testing.T) {
	t.Parallel()
	c := pgmsgpack.Codec{}
	for _, v := range []any{map[string]int{"a": 1}, "text", 12, -1.5, true, []string{"a"}, [2]bool{}} {
		for _, other := range []codec.Codec{codec.JSON{}, codec.Gob{}} {
			data, err := other.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			for _, got := range []any{new(any), new(int), new(string), new([]byte), new(map[string]int), new([]string)} {
				if err := c.Unmarshal(data, got); err == nil {
					t.Errorf("the %s of %v decoded to %v", other.Name(), v, reflect.ValueOf(got).Elem())
				}
				if err := other.Unmarshal(marshal(t, v), got); err == nil {
					t.Errorf("the MessagePack of %v decoded as %s to %v", v, other.Name(), reflect.ValueOf(got).Elem())
				}
			}
		}
	}
}

var errBroken = errors.New("broken")

type panicky struct{}

func (panicky) MarshalMsgpack() ([]byte, error) { panic(errBroken) }
func (*panicky) UnmarshalMsgpack([]byte) error  { panic("no reason") }

func TestErrors(t *testing.T) {
	t.Parallel()
	c := pgmsgpack.Codec{}
	check := func(err error, wants ...string) {
		t.Helper()
		for _, want := range append(wants, "pgcache: codec msgpack: ") {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want one with %q", err, want)
			}
		}
	}
	_, err := c.Marshal(make(chan int))
	check(err, "marshal chan int")
	_, err = c.Marshal([]uintptr{1}) // the library has no encoder for it and calls nil
	check(err, "marshal []uintptr", "panic: ")
	_, err = c.Marshal(panicky{})
	if check(err, "marshal msgpack_test.panicky", "panic: broken"); !errors.Is(err, errBroken) {
		t.Errorf("error %v does not wrap what the panic was about", err)
	}
	check(c.Unmarshal([]byte{1}, &panicky{}), "unmarshal *msgpack_test.panicky", "panic: no reason")
	check(c.Unmarshal([]byte{0x81, 0x90, 0xc0}, new(map[any]any)), "unmarshal *map[interface {}]interface {}")
	check(c.Unmarshal([]byte{1, 2}, new(int)), "unmarshal *int", "trailing")
}

// Failures of every kind leave nothing behind for the next value.
func TestAfterErrors(t *testing.T) {
	t.Parallel()
	c := pgmsgpack.Codec{}
	put := everything{Any: "a", Interned: "interned", Word: "interned"}
	data := marshal(t, put)
	want := unmarshal[everything](t, data)
	random := rand.New(rand.NewPCG(1, 2))
	for range 2_000 {
		_ = c.Unmarshal(data[:random.IntN(len(data))], new(everything))
		_ = c.Unmarshal([]byte{1}, &panicky{})
		_, _ = c.Marshal([]any{put, panicky{}})
		_, _ = c.Marshal([]any{put, make(chan int)})
		if again := marshal(t, put); !bytes.Equal(again, data) {
			t.Fatalf("Marshal wrote %x, then %x", data, again)
		}
		if got := unmarshal[everything](t, data); !reflect.DeepEqual(got, want) {
			t.Fatalf("decoded to %+v, then to %+v", want, got)
		}
	}
}

func BenchmarkCodec(b *testing.B) { codectest.Benchmark(b, pgmsgpack.Codec{}) }

type plain struct{}

func (plain) Name() string                       { return "plain" }
func (plain) Marshal(v any) ([]byte, error)      { return msgpack.Marshal(v) }
func (plain) Unmarshal(data []byte, v any) error { return msgpack.Unmarshal(data, v) }

// BenchmarkLibrary is the library alone, to see what bounding it costs.
func BenchmarkLibrary(b *testing.B) { codectest.Benchmark(b, plain{}) }

package codec_test

import (
	"encoding/gob"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/codectest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestJSON(t *testing.T) {
	t.Parallel()
	codectest.Test(t, codec.JSON{}, "../testdata/codec/json")
}

func TestGob(t *testing.T) {
	t.Parallel()
	codectest.Test(t, codec.Gob{}, "../testdata/codec/gob")
}

func FuzzJSON(f *testing.F) { codectest.Fuzz(f, codec.JSON{}) }

func FuzzGob(f *testing.F) { codectest.Fuzz(f, codec.Gob{}) }

// The documented ways in which JSON is less than exact.
func TestJSONAny(t *testing.T) {
	t.Parallel()
	type row struct {
		Number int64
		Any    any
	}
	const big = int64(1<<53 + 1)
	data, err := codec.JSON{}.Marshal(row{Number: big, Any: big})
	if err != nil {
		t.Fatal(err)
	}
	var got row
	if err := (codec.JSON{}).Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if want := (row{Number: big, Any: float64(1 << 53)}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if _, err := (codec.JSON{}).Marshal(math.NaN()); err == nil {
		t.Error("Marshal of NaN returned no error")
	}
}

type (
	words   string
	texter  struct{ s string }
	itself  struct{ s string }
	textKey string // its method is not called where it is the key of a map
	jsonKey string // likewise
	letter  byte
	dash    struct {
		Name string `json:"-,"` // in JSON its name is "-"
	}
	embedded struct{ Inner string }
	tagged   struct {
		Out  string `json:"-"`
		Name string `json:"name,omitempty"`
		Text string `json:",string"`
		embedded
		Tex    *texter
		hidden string
	}
)

func (t texter) MarshalText() ([]byte, error) { return []byte(t.s), nil }
func (textKey) MarshalText() ([]byte, error)  { return []byte("key"), nil }
func (jsonKey) MarshalJSON() ([]byte, error)  { return []byte(`"key"`), nil }
func (l letter) MarshalText() ([]byte, error) { return []byte{byte(l)}, nil }
func (i itself) MarshalJSON() ([]byte, error) { return []byte(`"` + i.s + `"`), nil }

// encoding/json replaces what is not UTF-8 and says nothing: what comes back would not be what was stored.
func TestJSONNotUTF8(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"\xff", "a\xc3", "\xed\xa0\x80", "\ufffd\xff", "\\ufffd\xff"} {
		s := bad
		for _, v := range []any{
			bad, &s, words(bad),
			[]string{"a", bad},
			[1]any{bad},
			map[string]int{bad: 1},
			map[string]string{"a": bad},
			map[words]any{"a": map[string]any{"b": []any{bad}}},
			tagged{Name: bad},
			&tagged{Text: bad},
			tagged{embedded: embedded{bad}},
			texter{bad},
			&texter{bad},
			map[texter]int{{bad}: 1},
			[]texter{{bad}},
			tagged{Tex: &texter{bad}},
			map[textKey]int{textKey(bad): 1},
			map[jsonKey]int{jsonKey(bad): 1},
			[]letter{0xff},
			dash{bad},
		} {
			data, err := codec.JSON{}.Marshal(v)
			if f := codec.PlainError(""); err == nil || !errors.As(err, &f) || !strings.Contains(err.Error(), "UTF-8") {
				t.Errorf("%#v became %s, %v", v, data, err)
			}
		}
	}
	for _, v := range []any{
		"\ufffd", `\ufffd`, `\\ufffd`,
		[]string{"\ufffd", words2},
		map[string]string{"\ufffd": `\ufffd`},
		[]byte{0xff, 0xfd},
		[2]byte{0xff, 1},
		map[string]any{"\ufffd": []byte("\xff")},
		map[textKey]jsonKey{"\ufffd": "\xff"},
		[]letter{'a'},
		&tagged{Out: "\xff", Name: "\ufffd", hidden: "\xff"},
		itself{"\ufffd"},
		itself{`\ufffd`},
		[]any{itself{"a"}, "\ufffd"},
		json.RawMessage(`"\ud800\ufffd"`),
		texter{"\ufffd"},
		(*texter)(nil),
		[]any{nil, (*string)(nil), "\ufffd", 1, true},
		json.Number("1"),
	} {
		data, err := codec.JSON{}.Marshal(v)
		plain, errPlain := json.Marshal(v)
		if err != nil || errPlain != nil || string(data) != string(plain) {
			t.Errorf("%#v became %s, %v; encoding/json has %s, %v", v, data, err, plain, errPlain)
		}
	}
}

const words2 = "\u2028 \U0010ffff \uffff"

// FuzzJSONString: a string comes back as it was, or is refused.
func FuzzJSONString(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string) {
		for _, v := range []any{s, map[string]string{s: s}, []string{s}} {
			data, err := codec.JSON{}.Marshal(v)
			if (err == nil) != utf8.ValidString(s) {
				t.Fatalf("%q: %v", s, err)
			}
			if err != nil {
				continue
			}
			got := reflect.New(reflect.TypeOf(v))
			if err := (codec.JSON{}).Unmarshal(data, got.Interface()); err != nil || !reflect.DeepEqual(got.Elem().Interface(), v) {
				t.Errorf("%q came back as %q, %v", v, got.Elem(), err)
			}
		}
	})
}

type (
	registered   struct{ Name string }
	unregistered struct{ Name string }
)

func TestGobInterfaces(t *testing.T) {
	t.Parallel()
	gob.Register(registered{})
	type row struct{ Any any }
	put := row{Any: registered{Name: "ann"}}
	data, err := codec.Gob{}.Marshal(put)
	if err != nil {
		t.Fatal(err)
	}
	var got row
	if err := (codec.Gob{}).Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(put, got); diff != "" {
		t.Errorf("came back different (-put +got):\n%s", diff)
	}
	if _, err := (codec.Gob{}).Marshal(row{Any: unregistered{}}); err == nil {
		t.Error("a type that was never registered went into an interface")
	}

	// Into an any goes only what was an any.
	var target any
	if data, err = (codec.Gob{}).Marshal("text"); err != nil {
		t.Fatal(err)
	}
	if err := (codec.Gob{}).Unmarshal(data, &target); err == nil {
		t.Errorf("a string decoded into the any %v, want an error", target)
	}
	source := any("text")
	if data, err = (codec.Gob{}).Marshal(&source); err != nil {
		t.Fatal(err)
	}
	if err := (codec.Gob{}).Unmarshal(data, &target); err != nil || target != "text" {
		t.Errorf("an any came back as %v, %v; want text", target, err)
	}
}

// gob itself reads one flipped bit in the length of a map as an order for gigabytes of memory.
func TestGobNoticesEveryChange(t *testing.T) {
	t.Parallel()
	data, err := codec.Gob{}.Marshal(map[string]int{"a": 1, "b": 2})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]int
	for i := range data {
		for bit := range 8 {
			data[i] ^= 1 << bit
			if err := (codec.Gob{}).Unmarshal(data, &got); err == nil || !strings.Contains(err.Error(), "checksum") {
				t.Errorf("bit %d of byte %d flipped: got %v, %v; want an error about the checksum", bit, i, got, err)
			}
			data[i] ^= 1 << bit
		}
		if err := (codec.Gob{}).Unmarshal(data[:i], &got); err == nil {
			t.Errorf("%d of %d bytes decoded to %v, want an error", i, len(data), got)
		}
	}
}

var errBroken = errors.New("broken")

// panicky is a type whose own methods panic.
type panicky struct{ With any }

func (p panicky) MarshalJSON() ([]byte, error) { panic(p.With) }
func (p *panicky) UnmarshalJSON([]byte) error  { panic(errBroken) }
func (p panicky) GobEncode() ([]byte, error)   { panic(p.With) }
func (p *panicky) GobDecode(data []byte) error { panic(errBroken) }

type calm struct{ X int }

// text encodes as a string in JSON and as bytes of its own in gob, both of which panicky accepts and calm does not.
type text struct{}

func (text) MarshalJSON() ([]byte, error) { return []byte(`"x"`), nil }
func (text) GobEncode() ([]byte, error)   { return []byte("x"), nil }

func TestErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []codec.Codec{codec.JSON{}, codec.Gob{}} {
		t.Run(c.Name(), func(t *testing.T) {
			t.Parallel()
			check := func(err error, wants ...string) {
				t.Helper()
				for _, want := range append(wants, "pgcache: codec "+c.Name()+": ") {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("error %v, want one with %q", err, want)
					}
				}
			}
			_, err := c.Marshal(make(chan int))
			check(err, "marshal chan int")
			_, err = c.Marshal(panicky{With: "no reason"})
			check(err, "marshal codec_test.panicky", "panic: no reason")
			_, err = c.Marshal(panicky{With: errBroken})
			if check(err, "panic: broken"); !errors.Is(err, errBroken) {
				t.Errorf("error %v does not wrap what the panic was about", err)
			}

			data, err := c.Marshal(text{})
			if err != nil {
				t.Fatal(err)
			}
			check(c.Unmarshal(data, &panicky{}), "unmarshal *codec_test.panicky", "panic: broken")
			check(c.Unmarshal(data, &calm{}), "unmarshal *codec_test.calm")
			check(c.Unmarshal(nil, &calm{}), "unmarshal *codec_test.calm")
			check(c.Unmarshal(data, nil), "unmarshal <nil>")
		})
	}
}

type named string

func (n named) Name() string              { return string(n) }
func (named) Marshal(any) ([]byte, error) { return nil, nil }
func (named) Unmarshal([]byte, any) error { return nil }

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, good := range []named{"json", "a", "Row_v1.2-beta", named(strings.Repeat("x", 32))} {
		if err := codec.Validate(good); err != nil {
			t.Errorf("Validate refused the name %q: %v", good, err)
		}
	}
	for _, bad := range []named{"", " ", "a b", "a/b", "é", "a\x00", "a\n", named(strings.Repeat("x", 33))} {
		if err := codec.Validate(bad); err == nil || !strings.HasPrefix(err.Error(), "pgcache: codec: name ") {
			t.Errorf("Validate of the name %q returned %v", bad, err)
		}
	}
	if err := codec.Validate(nil); err == nil {
		t.Error("Validate(nil) returned no error")
	}
}

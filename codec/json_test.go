package codec_test

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/codectest"
)

func TestJSON(t *testing.T) {
	t.Parallel()
	codectest.Test(t, codec.JSON{}, "../testdata/codec/json")
}

func FuzzJSON(f *testing.F) { codectest.Fuzz(f, codec.JSON{}) }

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
		//lint:ignore SA5008 people write this, and in JSON the name is "-"
		Name string `json:"-,"` //nolint:staticcheck // see above
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

package codec_test

import (
	"encoding/gob"
	"errors"
	"math"
	"strings"
	"testing"

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

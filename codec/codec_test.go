package codec_test

import (
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/pgcache/go/codec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBroken = errors.New("broken")

// panicky is a type whose own methods panic.
type panicky struct{ With any }

func (p panicky) MarshalJSON() ([]byte, error) { panic(p.With) }
func (p *panicky) UnmarshalJSON([]byte) error  { panic(errBroken) }
func (p panicky) GobEncode() ([]byte, error)   { panic(p.With) }
func (p *panicky) GobDecode(data []byte) error { panic(errBroken) }

type calm struct{ X int }

// text encodes as a string in JSON and as bytes of its own in gob. panicky can be decoded from both, so that its methods are
// called; calm cannot.
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

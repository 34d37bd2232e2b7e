package codec_test

import (
	"encoding/gob"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/codectest"
)

func TestGob(t *testing.T) {
	t.Parallel()
	codectest.Test(t, codec.Gob{}, "../testdata/codec/gob")
}

func FuzzGob(f *testing.F) { codectest.Fuzz(f, codec.Gob{}) }

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

	// A value decodes into an any only if it was encoded as an any.
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

// Without the checksum, one flipped bit in the length of a map can make gob allocate gigabytes.
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

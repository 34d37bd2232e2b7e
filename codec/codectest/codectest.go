// Package codectest is the test suite that every codec.Codec has to pass: Test for one that carries values of any type, TestValues for
// one that carries some types only, and Fuzz and Benchmark for both.
package codectest

import (
	"bytes"
	"math"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pgcache/go/codec"
)

// Test checks what package codec promises of a Codec for values of any type: they come back equal, share no memory with
// the bytes, and no bytes make it panic.
//
// golden is a folder of files NAME.golden that each hold a known value, as the codec encoded it when the file was
// written. They have to decode to that value for ever: rows that an older program wrote are still there. A missing file
// fails the test; go test -codectest.update writes it. To change what the bytes mean, give the codec a new name.
//
// Formats differ a little, and the test allows for it: an empty slice or map may come back nil, a time may change its
// zone but not its instant, and NaN and infinities may be errors.
func Test(t *testing.T, c codec.Codec, golden string) {
	// reflect.DeepEqual looks into time.Local, which the time package fills when it is first used.
	_, _ = time.Now().Zone()
	t.Helper()
	for name, test := range map[string]func(*testing.T, codec.Codec){
		"Name":         testName,
		"RoundTrip":    testRoundTrip,
		"Nil":          testNil,
		"Floats":       testFloats,
		"Any":          testAny,
		"Aliasing":     testAliasing,
		"Concurrent":   testConcurrent,
		"Trailing":     testTrailing,
		"Damaged":      testDamaged,
		"Unsupported":  testUnsupported,
		"Destinations": testDestinations,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, c)
		})
	}
	t.Run("Golden", func(t *testing.T) {
		t.Parallel()
		testGolden(t, c, golden)
	})
}

func testName(t *testing.T, c codec.Codec) {
	if err := codec.Validate(c); err != nil {
		t.Error(err)
	}
}

func testRoundTrip(t *testing.T, c codec.Codec) {
	for _, s := range append(samples(), hugeSamples()...) {
		data := marshal(t, c, s.value)
		got, err := s.decode(c, data)
		if err != nil {
			t.Errorf("%s: Unmarshal: %v", s.name, err)
		} else if diff := diff(s.value, got); diff != "" {
			t.Errorf("%s: came back different (-put +got):\n%s", s.name, diff)
		}
	}

	now := time.Now() // the only way to a monotonic reading, which means nothing in another process
	var got time.Time
	unmarshal(t, c, marshal(t, c, now), &got)
	if !got.Equal(now) || strings.Contains(got.String(), "m=") {
		t.Errorf("time.Now() %v came back as %v, want the same instant without a monotonic reading", now, got)
	}
}

// testNil checks that each nil value can be stored, and comes back as the zero value of whatever it is decoded into.
func testNil(t *testing.T, c codec.Codec) {
	var nilPointer *purchase
	for _, v := range []any{nil, nilPointer, &nilPointer, []int(nil), map[string]int(nil), []byte(nil), (*int)(nil)} {
		data := marshal(t, c, v)
		isNil[any](t, c, v, data)
		isNil[*purchase](t, c, v, data)
		isNil[**purchase](t, c, v, data)
		isNil[*int](t, c, v, data)
		isNil[[]int](t, c, v, data)
		isNil[[]byte](t, c, v, data)
		isNil[map[string]int](t, c, v, data)
		isNil[int](t, c, v, data)
		isNil[string](t, c, v, data)
		isNil[time.Time](t, c, v, data)
		isNil[purchase](t, c, v, data)
	}
}

// isNil checks that data, the bytes of the nil value v, decode to the zero value of T.
func isNil[T any](t *testing.T, c codec.Codec, v any, data []byte) {
	t.Helper()
	var got, zero T
	if err := c.Unmarshal(data, &got); err != nil {
		t.Errorf("a nil %T decoded into a %T: %v", v, got, err)
	} else if diff := cmp.Diff(zero, got); diff != "" {
		t.Errorf("a nil %T decoded into a %T is not zero (-want +got):\n%s", v, got, diff)
	}
}

func testFloats(t *testing.T, c codec.Codec) {
	for _, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1)} {
		data, err := c.Marshal(f)
		if err != nil {
			if f == 0 {
				t.Errorf("Marshal(%v): %v", f, err)
			}
			continue
		}
		var got float64
		unmarshal(t, c, data, &got)
		if math.IsNaN(f) != math.IsNaN(got) || !math.IsNaN(f) && math.Float64bits(got) != math.Float64bits(f) {
			t.Errorf("%v came back as %v", f, got)
		}
	}
}

// testAny decodes into an any. A codec may refuse that with an error, and may decode to any type, but not to nil.
func testAny(t *testing.T, c codec.Codec) {
	for _, s := range samples() {
		var got any
		if err := c.Unmarshal(marshal(t, c, s.value), &got); err == nil && got == nil {
			t.Errorf("%s: came back as nil, without an error", s.name)
		}
	}
}

func testAliasing(t *testing.T, c codec.Codec) {
	others := samples()
	for _, s := range append(samples(), hugeSamples()...) {
		// Bytes that were handed out stay as they are while the codec works on.
		data := marshal(t, c, s.value)
		before := bytes.Clone(data)
		for _, other := range others {
			marshal(t, c, other.value)
		}
		if !bytes.Equal(data, before) {
			t.Errorf("%s: the bytes changed while other values were encoded", s.name)
		}

		// The caller owns the bytes up to their capacity.
		scribble(data[:cap(data)])
		again := marshal(t, c, s.value)
		got, err := s.decode(c, again)
		if diff := diff(s.value, got); err != nil || diff != "" {
			t.Errorf("%s: scribbling on the bytes changed the next ones: %v\n%s", s.name, err, diff)
		}

		// A decoded value shares no memory with the bytes.
		scribble(again[:cap(again)])
		if diff := diff(s.value, got); diff != "" {
			t.Errorf("%s: scribbling on the bytes changed the decoded value:\n%s", s.name, diff)
		}
	}

	// Neither the value that was encoded nor the decoded one shares memory with the bytes.
	put, got := aPurchase(), purchase{}
	data := marshal(t, c, put)
	before := bytes.Clone(data)
	unmarshal(t, c, data, &got)
	for _, o := range []*purchase{&put, &got} {
		scribble(o.Signature)
		o.Tags["new"], o.Lines[0].Product, o.Discount.Units = "tag", "changed", 99
	}
	if !bytes.Equal(data, before) {
		t.Error("changing a value changed the bytes")
	}
	var again purchase
	unmarshal(t, c, data, &again)
	if diff := diff(aPurchase(), again); diff != "" {
		t.Errorf("changing a value changed what the bytes decode to (-want +got):\n%s", diff)
	}
}

func testConcurrent(t *testing.T, c codec.Codec) {
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			put := aPurchase()
			for i := range 50 {
				put.ID, put.Signature = int64(worker), bytes.Repeat([]byte{byte(worker)}, i)
				data, err := c.Marshal(put)
				if err != nil {
					t.Errorf("Marshal: %v", err)
					return
				}
				var got purchase
				if err := c.Unmarshal(data, &got); err != nil {
					t.Errorf("Unmarshal: %v", err)
					return
				}
				if diff := diff(put, got); diff != "" {
					t.Errorf("came back different (-put +got):\n%s", diff)
					return
				}
			}
		})
	}
	wg.Wait()
}

func marshal(t *testing.T, c codec.Codec, v any) []byte {
	t.Helper()
	data, err := c.Marshal(v)
	if err != nil {
		t.Fatalf("Marshal of a %T: %v", v, err)
	}
	return data
}

func unmarshal(t *testing.T, c codec.Codec, data []byte, v any) {
	t.Helper()
	if err := c.Unmarshal(data, v); err != nil {
		t.Fatalf("Unmarshal into a %T: %v", v, err)
	}
}

func diff(want, got any) string {
	if reflect.DeepEqual(want, got) { // the quick answer for huge values
		return ""
	}
	return cmp.Diff(want, got, cmpopts.EquateEmpty())
}

// scribble writes junk over b.
func scribble(b []byte) {
	for i := range b {
		b[i] ^= 0xa5
	}
}

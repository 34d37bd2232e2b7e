package codectest

import (
	"math"
	"strings"
	"time"

	"github.com/pgcache/go/codec"
)

// A sample is a value that every codec can carry, and how to decode it into a new variable of its type.
type sample struct {
	name   string // also the name of its golden file
	value  any
	decode func(c codec.Codec, data []byte) (any, error)
}

func sampleOf[T any](name string, value T) sample {
	return sample{name: name, value: value, decode: func(c codec.Codec, data []byte) (any, error) {
		var got T
		err := c.Unmarshal(data, &got)
		return got, err
	}}
}

// The types below make up a purchase: structs in structs, embedded by value and by pointer, in slices, arrays and maps,
// behind pointers, and a purchase inside a purchase.

// Base is embedded by value. It and Origin are exported because formats leave unexported embedded types out.
type Base struct {
	ID      int64
	Created time.Time
}

// Origin is embedded by pointer.
type Origin struct {
	Country string
}

// money is used as a field, in slices and behind pointers.
type money struct {
	Units    int64
	Currency string
}

// line is an element of a slice of structs.
type line struct {
	Product string
	Count   uint16
	Price   *money
}

// purchase has a field of nearly every kind.
type purchase struct {
	Base
	*Origin
	Name      string
	Signature []byte
	Total     money
	Discount  *money
	Lines     []line
	Tags      map[string]string
	Stock     map[int64]uint64
	Rates     map[string][]float64
	Seats     [2][3]int16
	Digest    [4]byte
	Paid      bool
	Level     int8
	Serial    uint64
	Oldest    int64
	Ratio     float64
	Weight    float32
	Timeout   time.Duration
	Previous  *purchase
}

// words has a letter from every corner of Unicode: NUL, the escapes of JSON and HTML, line separators, combining marks,
// right to left, the byte order mark, a noncharacter, the private use area, a flag of two runes and the last rune.
const words = "\x00\t\n\"\\/<>&' Grüße e\u0301 שלום العربية 日本語 \u2028\u2029\ufeff\uffff\ue000 👩‍👩‍👧‍👦 🇪🇺 \U0010ffff"

var instant = time.Date(2024, time.February, 29, 23, 59, 58, 987654321, time.FixedZone("", -(3*60+30)*60))

func aPurchase() purchase {
	return purchase{
		Base:      Base{ID: math.MaxInt64, Created: instant},
		Origin:    &Origin{Country: "PT"},
		Name:      words,
		Signature: []byte{0xff, 0xfe, 0x00, 0x80, 0xc3, 0x28},
		Total:     money{Units: -1250, Currency: "EUR"},
		Discount:  &money{Units: 1},
		Lines: []line{
			{Product: "apple", Count: 3, Price: &money{Units: 50, Currency: "EUR"}},
			{Product: "pear", Count: math.MaxUint16},
			{},
		},
		Tags:     map[string]string{"": "empty key", "empty value": "", words: words},
		Stock:    map[int64]uint64{-1: 0, 0: 1, 1 << 40: math.MaxUint64},
		Rates:    map[string][]float64{"daily": {0.1, -2.5e-300, 3e300}},
		Seats:    [2][3]int16{{1, 2, 3}, {-1, math.MinInt16, math.MaxInt16}},
		Digest:   [4]byte{0, 1, 0xfe, 0xff},
		Paid:     true,
		Level:    math.MinInt8,
		Serial:   math.MaxUint64,
		Oldest:   math.MinInt64,
		Ratio:    math.Pi,
		Weight:   math.MaxFloat32,
		Timeout:  90*time.Minute + time.Nanosecond,
		Previous: &purchase{Base: Base{ID: 1}, Origin: &Origin{}, Name: "first", Total: money{Units: 1 << 53}},
	}
}

// samples returns new values on every call, so that tests may change them.
func samples() []sample {
	price := &money{Units: 250, Currency: "JPY"}
	return []sample{
		sampleOf("bool", true),
		sampleOf("int8-min", int8(math.MinInt8)),
		sampleOf("int-zero", 0),
		sampleOf("int-200", 200),
		sampleOf("int64-max", int64(math.MaxInt64)),
		sampleOf("int64-min", int64(math.MinInt64)),
		sampleOf("int64-beyond-float64", int64(1<<53+1)),
		sampleOf("uint64-max", uint64(math.MaxUint64)),
		sampleOf("float64-pi", math.Pi),
		sampleOf("float64-max", math.MaxFloat64),
		sampleOf("float64-smallest", math.SmallestNonzeroFloat64),
		sampleOf("float32-tenth", float32(0.1)),
		sampleOf("string-empty", ""),
		sampleOf("string-unicode", words),
		sampleOf("bytes-empty", []byte{}),
		sampleOf("bytes-not-utf8", []byte{0xff, 0xfe, 0x00, 0x80, 0xc3, 0x28}),
		sampleOf("time", instant),
		sampleOf("time-zero", time.Time{}),
		sampleOf("time-before-1970", time.Date(1815, time.June, 18, 11, 35, 0, 1, time.UTC)),
		sampleOf("duration", -36*time.Hour-time.Nanosecond),
		sampleOf("slice", []int64{1, -2, 300, -40_000, 5_000_000_000}),
		sampleOf("slice-empty", []string{}),
		sampleOf("slice-of-structs", []money{{1, "EUR"}, {}, {-1, "¥"}}),
		sampleOf("slice-of-pointers", []*money{{1, "EUR"}, {2, "USD"}}),
		sampleOf("array", [3]string{"a", "", "c"}),
		sampleOf("map", map[string]int{"a": 1, "": -1, words: 0}),
		sampleOf("map-empty", map[string]int{}),
		sampleOf("map-of-maps", map[string]map[int64]bool{"x": {math.MinInt64: true, 1: false}}),
		sampleOf("struct", aPurchase()),
		sampleOf("struct-zero", money{}),
		sampleOf("pointer", price),
		sampleOf("pointer-to-pointer", &price),
	}
}

// hugeSamples returns values that are too large for golden files and for trying every byte.
func hugeSamples() []sample {
	return []sample{
		sampleOf("string-1mb", strings.Repeat(words, 1<<20/len(words)+1)),
		sampleOf("bytes-1mb", []byte(strings.Repeat("\xff\x00\x80", 350_000))),
		sampleOf("slice-100k", make([]int64, 100_000)),
	}
}

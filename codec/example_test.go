package codec_test

import (
	"encoding/binary"
	"fmt"

	"github.com/pgcache/go/codec"
)

// Point is the only type that PointCodec knows.
type Point struct{ X, Y int32 }

// PointCodec lays out a Point as eight bytes. The name counts the layouts: another one gets the name point-2, and rows
// of the old one become misses instead of wrong points.
type PointCodec struct{}

func (PointCodec) Name() string { return "point-1" }

func (PointCodec) Marshal(v any) ([]byte, error) {
	p, ok := v.(Point)
	if !ok {
		return nil, fmt.Errorf("codec point-1: cannot encode a %T", v)
	}
	data := binary.BigEndian.AppendUint32(nil, uint32(p.X))
	return binary.BigEndian.AppendUint32(data, uint32(p.Y)), nil
}

func (PointCodec) Unmarshal(data []byte, v any) error {
	p, ok := v.(*Point)
	if !ok || p == nil {
		return fmt.Errorf("codec point-1: cannot decode into a %T", v)
	}
	if len(data) != 8 {
		return fmt.Errorf("codec point-1: got %d bytes, want 8", len(data))
	}
	p.X = int32(binary.BigEndian.Uint32(data))
	p.Y = int32(binary.BigEndian.Uint32(data[4:]))
	return nil
}

// A codec of one's own, for one type with a fixed binary layout.
func ExampleCodec() {
	var c codec.Codec = PointCodec{}
	if err := codec.Validate(c); err != nil {
		panic(err)
	}
	data, err := c.Marshal(Point{X: 3, Y: -4})
	if err != nil {
		panic(err)
	}
	var p Point
	if err := c.Unmarshal(data, &p); err != nil {
		panic(err)
	}
	fmt.Printf("%x %+v\n", data, p)
	fmt.Println(c.Unmarshal(data[:7], &p))
	// Output:
	// 00000003fffffffc {X:3 Y:-4}
	// codec point-1: got 7 bytes, want 8
}

func ExampleJSON() {
	c := codec.JSON{}
	data, err := c.Marshal(map[string]int{"answer": 42})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(data))

	var text string
	fmt.Println(c.Unmarshal(data, &text))
	// Output:
	// {"answer":42}
	// pgcache: codec json: unmarshal *string: json: cannot unmarshal object into Go value of type string
}

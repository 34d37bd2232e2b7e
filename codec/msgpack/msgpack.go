// Package msgpack stores values as MessagePack (msgpack.org), a binary format that many languages read. It is smaller
// than JSON and faster to decode.
package msgpack

import (
	"bytes"
	"encoding"
	"reflect"
	"sync"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/internal/safe"
)

// Codec is the format of github.com/vmihailenco/msgpack/v5 with that library's defaults: it writes what
// msgpack.Marshal writes. It is ready to use as Codec{} and safe for concurrent use.
//
//   - Structs are maps by field name. The tag is `msgpack:"name,omitempty"`; json tags mean nothing here.
//   - A nil value is MessagePack's nil, which decodes to the zero value. A nil embedded pointer comes back as a pointer
//     to a zero value, as the fields of embedded structs are inlined.
//   - A time is an instant: it comes back in the local zone, whatever its zone was. Compare times with Equal.
//   - In an any, a number comes back in the type it was written in (int64, uint32, float64, ...), but an int and a uint
//     in the smallest type that holds them; []byte and time.Time come back as such, a struct as map[string]any, an
//     array as []any. A map inside an any must have strings as keys.
//   - Values may nest 10,000 levels deep.
//   - A method EncodeMsgpack or MarshalMsgpack with a pointer receiver needs a value that can be addressed: pass a
//     pointer. A decoder of a registered extension reads its payload with ReadFull.
//   - The library keeps one goroutine for ever per struct type that is embedded by pointer and was once decoded.
type Codec struct{}

var _ codec.Codec = Codec{}

// Encoders and decoders are pooled together with what they write to and read from. One is dropped after
// an error or a panic, as the library does not say in what state that leaves it, and after a huge value, so that its memory is
// not kept for ever.
var (
	encoders = sync.Pool{New: func() any { return &encoder{Encoder: msgpack.NewEncoder(nil)} }}
	decoders = sync.Pool{New: func() any { return &decoder{Decoder: msgpack.NewDecoder(nil)} }}
)

// pooledSize is the largest value, in bytes, whose encoder or decoder is kept.
const pooledSize = 64 << 10

type encoder struct {
	*msgpack.Encoder
	buffer bytes.Buffer
}

type decoder struct {
	*msgpack.Decoder
	reader reader
}

var nesting = safe.Nesting{
	Custom: []reflect.Type{
		reflect.TypeFor[msgpack.CustomEncoder](), reflect.TypeFor[msgpack.Marshaler](),
		reflect.TypeFor[encoding.BinaryMarshaler](), reflect.TypeFor[encoding.TextMarshaler](),
	},
	Tag: "msgpack",
}

// Name returns "msgpack".
func (Codec) Name() string { return "msgpack" }

// Marshal returns the MessagePack of v. Channels, functions, complex numbers and values that contain themselves are
// errors.
func (Codec) Marshal(v any) (data []byte, err error) {
	defer safe.Wrap(&err, "msgpack", "marshal", v)
	if err := nesting.Check(v); err != nil {
		return nil, err
	}
	enc := encoders.Get().(*encoder)
	enc.buffer.Reset()
	enc.Reset(&enc.buffer)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	data = bytes.Clone(enc.buffer.Bytes())
	if enc.buffer.Cap() <= pooledSize {
		encoders.Put(enc)
	}
	return data, nil
}

// Unmarshal decodes the one MessagePack value in data into v, a non-nil pointer to a zero value. Bytes after that value
// are an error. It allocates in proportion to len(data) and to the size of v's types, whatever data says.
func (Codec) Unmarshal(data []byte, v any) (err error) {
	defer safe.Wrap(&err, "msgpack", "unmarshal", v)
	target, err := safe.Destination(v)
	if err != nil {
		return err
	}
	if len(data) == 1 && data[0] == 0xc0 { // nil, which the library refuses for some types, such as time.Time
		target.SetZero()
		return nil
	}
	dec := decoders.Get().(*decoder)
	dec.reader.reset(data)
	dec.Reset(&dec.reader)
	if err := dec.Decode(v); err != nil {
		return err
	}
	if dec.reader.pos < len(data) {
		return safe.ErrTrailing
	}
	if len(data) <= pooledSize {
		dec.reader.reset(nil)
		decoders.Put(dec)
	}
	return nil
}

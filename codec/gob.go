package codec

import (
	"bytes"
	"encoding"
	"encoding/binary"
	"encoding/gob"
	"hash/crc32"
	"reflect"
	"sync"

	"github.com/pgcache/go/codec/internal/safe"
)

// Gob is the format of encoding/gob, which only Go reads, and four bytes of checksum after it. It is ready to use as
// Gob{} and safe for concurrent use.
//
//   - Every value carries a description of its type, which makes Gob the slowest and largest of the codecs for small
//     values.
//   - A nil pointer, slice, map or interface can be stored and decodes to the zero value. Inside a value, gob does not
//     distinguish a nil slice or map from an empty one, nor a nil pointer from a pointer to a zero value, and a nil pointer as
//     an element of a slice, array or map is an error.
//   - A type that is only found in an interface inside the value must be registered with gob.Register, in the program that
//     writes and in the one that reads. A value cannot be decoded into an any, unless a pointer to an any was encoded.
//   - Times keep their offset from UTC but not the name of their zone. Unexported fields, channels and functions are
//     left out of structs.
//
// The checksum is there because gob trusts its input: one flipped bit in the length of a map can make it ask for more
// memory than there is. It detects damage but no attack: whoever can write to the cache's table can write a checksum that matches.
type Gob struct{}

const (
	sumSize = 4
	// pooledSize is the largest buffer that is kept for the next value, so that one huge value does not take memory for ever.
	pooledSize = 64 << 10
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	gobBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}
	gobNesting = safe.Nesting{Custom: []reflect.Type{
		reflect.TypeFor[gob.GobEncoder](), reflect.TypeFor[encoding.BinaryMarshaler](),
	}}
)

// Name returns "gob".
func (Gob) Name() string { return "gob" }

// Marshal returns v's gob, which is empty for a nil v, and its checksum. Channels, functions, structs without an exported field and
// values that contain themselves are errors.
func (Gob) Marshal(v any) (data []byte, err error) {
	defer safe.Wrap(&err, "gob", "marshal", v)
	if err := gobNesting.Check(v); err != nil {
		return nil, err
	}
	if isNil(reflect.ValueOf(v)) {
		return make([]byte, sumSize), nil // the checksum of no bytes is zero
	}

	buffer := gobBuffers.Get().(*bytes.Buffer)
	buffer.Reset()
	if err := gob.NewEncoder(buffer).Encode(v); err != nil {
		return nil, err
	}
	stream := buffer.Bytes()
	data = append(make([]byte, 0, len(stream)+sumSize), stream...)
	data = binary.BigEndian.AppendUint32(data, crc32.Checksum(stream, castagnoli))
	if buffer.Cap() <= pooledSize {
		gobBuffers.Put(buffer)
	}
	return data, nil
}

// Unmarshal decodes data into v, a non-nil pointer to a zero value. Bytes that are not exactly what Marshal returned are
// an error.
func (Gob) Unmarshal(data []byte, v any) (err error) {
	defer safe.Wrap(&err, "gob", "unmarshal", v)
	target, err := safe.Destination(v)
	if err != nil {
		return err
	}
	if len(data) < sumSize {
		return PlainError("too short for a checksum")
	}
	stream, sum := data[:len(data)-sumSize], data[len(data)-sumSize:]
	if binary.BigEndian.Uint32(sum) != crc32.Checksum(stream, castagnoli) {
		return PlainError("the checksum does not match")
	}
	if len(stream) == 0 { // nil
		target.SetZero()
		return nil
	}
	rest := bytes.NewReader(stream)
	if err := gob.NewDecoder(rest).Decode(v); err != nil {
		return err
	}
	if rest.Len() > 0 {
		return safe.ErrTrailing
	}
	return nil
}

// isNil reports whether v is nil or a chain of pointers and interfaces that ends in nil. gob panics on such a value or does not
// distinguish it from an empty one.
func isNil(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Pointer, reflect.Interface:
		return isNil(v.Elem())
	case reflect.Map, reflect.Slice:
		return v.IsNil()
	}
	return false
}

// Package codec turns values into bytes and back.
//
// A Cache has one Codec and a typed view may have another. The codec's name is stored with every row, so bytes that
// another codec wrote are a miss, never a wrong value. JSON and Gob need only the standard library; package
// codec/msgpack is the only one that imports a MessagePack library.
package codec

import "github.com/pgcache/go/codec/internal/safe"

// PlainError is an error of a Codec whose text says what is wrong, and nothing of the value. What a Cache returns and logs shows the
// text of no other error of a codec, as that may quote the value, but for kinds that it knows.
type PlainError = safe.PlainError

const errDestination = PlainError("the destination is not a non-nil pointer")

// A Codec turns a value into bytes and back. Implementations must be safe for concurrent use, must not keep v or data
// after they return, must return bytes that nobody else changes, and must not panic. Package codec/codectest tests that.
type Codec interface {
	// Name identifies the format, 1 to 32 bytes of letters, digits, '_', '-' and '.'. It is stored with every row:
	// changing what the bytes mean asks for a new name.
	Name() string

	// Marshal encodes v. It may return an empty slice; that is a value like any other. A nil v, and a nil pointer, slice
	// or map, can be encoded too.
	Marshal(v any) ([]byte, error)

	// Unmarshal decodes data into v, a non-nil pointer to a zero value. An error means that the bytes are not a value of
	// v's type, or that more bytes follow it; the cache then counts a miss. Whatever Unmarshal leaves in v after an error
	// is never handed out. What was nil decodes to the zero value.
	Unmarshal(data []byte, v any) error
}

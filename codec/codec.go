// Package codec turns values into bytes and back.
//
// A Cache has one Codec and a typed view may have another. The codec's name is stored with every row, so bytes that
// another codec wrote are a miss, never a wrong value. JSON and Gob need only the standard library; package
// codec/msgpack is the only one that imports a MessagePack library.
package codec

// A Codec turns a value into bytes and back. Implementations must be safe for concurrent use, must not keep v or data
// after they return, and must return bytes that nobody else changes.
type Codec interface {
	// Name identifies the format, 1 to 32 bytes of letters, digits, '_', '-' and '.'. It is stored with every row:
	// changing what the bytes mean asks for a new name.
	Name() string

	// Marshal encodes v. It may return an empty slice; that is a value like any other.
	Marshal(v any) ([]byte, error)

	// Unmarshal decodes data into v, a non-nil pointer. An error means that the bytes are not a value of v's type; the
	// cache then counts a miss. Whatever Unmarshal leaves in v after an error is never handed out.
	Unmarshal(data []byte, v any) error
}

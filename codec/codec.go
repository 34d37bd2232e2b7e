// Package codec turns values into bytes and back.
//
// A Cache has one Codec and a typed view may have another. The codec's name is stored with every row, so bytes that
// another codec wrote are a miss, never a wrong value, unless the codec is a Reader that can decode them. JSON and Gob need
// only the standard library; package codec/msgpack is the only one that imports a MessagePack library.
package codec

import "github.com/pgcache/go/codec/internal/safe"

// PlainError is an error of a Codec whose text says what is wrong and nothing of the value, so that a Cache may return and log it.
// The text of a codec's other errors may quote the value: a Cache replaces it by what kind of error it was.
type PlainError = safe.PlainError

// A Codec turns a value into bytes and back. Its methods must be safe for concurrent use, must not keep v or data
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

// A KeyedCodec is a Codec that binds the bytes to the key of the row that holds them. A Cache calls MarshalKeyed and
// UnmarshalKeyed instead of Marshal and Unmarshal; they must do what Codec asks of those. key is the row's whole key, with the
// namespace. A codec that wraps another one passes the key on with the functions Marshal and Unmarshal of this package.
type KeyedCodec interface {
	Codec

	// MarshalKeyed encodes v for the row of key, as Marshal does.
	MarshalKeyed(key string, v any) ([]byte, error)

	// UnmarshalKeyed decodes data of the row of key, as Unmarshal does. Bytes that were encoded for another key are an
	// error, if the codec can find out.
	UnmarshalKeyed(key string, data []byte, v any) error
}

// A Reader is a Codec that can also read what codecs of other names wrote. A Cache asks it for every row whose codec
// name is not its own. So a program can wrap its codec without losing the rows that the bare codec wrote.
type Reader interface {
	Codec

	// ReaderOf returns the codec that decodes bytes written under name, or nil if there is none. It must not return a
	// codec with weaker checks than its own: a codec that authenticates its bytes returns none for bytes that are not authenticated.
	ReaderOf(name string) Codec
}

// Marshal encodes v with c for the row of key: with MarshalKeyed if c is a KeyedCodec, else with Marshal, which does not see key.
func Marshal(c Codec, key string, v any) ([]byte, error) {
	if keyed, ok := c.(KeyedCodec); ok {
		return keyed.MarshalKeyed(key, v)
	}
	return c.Marshal(v)
}

// Unmarshal decodes data of the row of key into v with c: with UnmarshalKeyed if c is a KeyedCodec, else with Unmarshal.
func Unmarshal(c Codec, key string, data []byte, v any) error {
	if keyed, ok := c.(KeyedCodec); ok {
		return keyed.UnmarshalKeyed(key, data, v)
	}
	return c.Unmarshal(data, v)
}

// ReaderOf returns the codec that decodes bytes written under name: c itself if that is its name, else what c's ReaderOf
// returns if c is a Reader, else nil.
func ReaderOf(c Codec, name string) Codec {
	if c.Name() == name {
		return c
	}
	if r, ok := c.(Reader); ok {
		return r.ReaderOf(name)
	}
	return nil
}

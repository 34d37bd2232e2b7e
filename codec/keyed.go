package codec

// A KeyedCodec is a Codec that binds the bytes to the key of the row that holds them. A cache calls its two methods
// instead of Marshal and Unmarshal. key is the row's whole key, with the namespace. A codec that wraps another one passes
// the key on with Marshal and Unmarshal of this package.
type KeyedCodec interface {
	Codec

	// MarshalKeyed encodes v for the row of key, as Marshal does.
	MarshalKeyed(key string, v any) ([]byte, error)

	// UnmarshalKeyed decodes data of the row of key, as Unmarshal does. Bytes that were encoded for another key are an
	// error, if the codec can find out.
	UnmarshalKeyed(key string, data []byte, v any) error
}

// A Reader is a Codec that knows how to read what codecs of other names wrote. A cache asks it for every row whose codec
// name is not its own. So a program can wrap its codec without losing the rows that the bare codec wrote.
type Reader interface {
	Codec

	// ReaderOf returns the codec that decodes bytes written under name, or nil if there is none. It must not return a
	// codec that accepts less safe bytes than its own: one that authenticates accepts no plain ones.
	ReaderOf(name string) Codec
}

// Marshal encodes v with c for the row of key.
func Marshal(c Codec, key string, v any) ([]byte, error) {
	if keyed, ok := c.(KeyedCodec); ok {
		return keyed.MarshalKeyed(key, v)
	}
	return c.Marshal(v)
}

// Unmarshal decodes data of the row of key with c.
func Unmarshal(c Codec, key string, data []byte, v any) error {
	if keyed, ok := c.(KeyedCodec); ok {
		return keyed.UnmarshalKeyed(key, data, v)
	}
	return c.Unmarshal(data, v)
}

// ReaderOf returns the codec that c decodes bytes written under name with: c itself, the one that c names if it is a
// Reader, or nil.
func ReaderOf(c Codec, name string) Codec {
	if c.Name() == name {
		return c
	}
	if r, ok := c.(Reader); ok {
		return r.ReaderOf(name)
	}
	return nil
}

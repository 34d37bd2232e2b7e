// Package compress makes the values of another codec smaller: with s2, an extension of Snappy, or with zstd where the option
// Zstd is given.
package compress

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/klauspost/compress/s2"

	"github.com/pgcache/go/codec"
)

// Codec compresses what another codec writes. It is safe for concurrent use. New makes one.
type Codec struct {
	inner     codec.Codec
	name      string
	algorithm byte // asS2 or asZstd
	above     int  // bytes from which a value is compressed
	max       int  // bytes that a value may have, decompressed
}

var (
	_ codec.KeyedCodec = (*Codec)(nil)
	_ codec.Reader     = (*Codec)(nil)
)

// The first byte of a value says what follows. Its meaning never changes: rows of older programs are still there.
const (
	plain    byte = 0 // the inner codec's bytes
	asS2     byte = 1 // an s2 block, which begins with its decoded size
	asZstd   byte = 2 // the decoded size as a uvarint, and a zstd frame
	suffix        = ".z"
	smallest      = 64 // bytes: compressing less saves nothing
)

const (
	defaultAbove = 1 << 10
	defaultMax   = 8 << 20
)

// An Option changes what New makes.
type Option func(*Codec)

// Above sets the size from which values are compressed, in bytes of the inner codec. The default is 1 KiB; less than 64 means 64.
// Smaller values take one byte more than with the inner codec.
func Above(bytes int) Option { return func(c *Codec) { c.above = max(bytes, smallest) } }

// MaxBytes bounds what a value may decompress to, so that a forged row cannot exhaust the memory. Values above it are
// refused when they are written, too. The default is 8 MiB, as for pgcache.Options.MaxValueBytes, which bounds the
// compressed size: if you raise that, raise this too. 0 or less means the default.
func MaxBytes(bytes int) Option {
	return func(c *Codec) {
		if c.max = bytes; bytes <= 0 {
			c.max = defaultMax
		}
	}
}

// New returns a codec that compresses what inner writes, if it is above a size and if that saves something. Its name is
// inner's and ".z". It also reads the rows that inner itself wrote, so a program can switch from inner to New(inner) and
// keep its cache. It can't switch back: inner cannot read the compressed rows, so they are misses.
func New(inner codec.Codec, opts ...Option) *Codec {
	c := &Codec{inner: inner, algorithm: defaultAlgorithm, above: defaultAbove, max: defaultMax}
	if inner != nil && inner.Name() != "" {
		c.name = inner.Name() + suffix
	}
	for _, o := range opts {
		o(c)
	}
	return c
}

// Name returns the inner codec's name and ".z". It is empty, which no cache accepts, if there is no inner codec.
func (c *Codec) Name() string {
	if c == nil {
		return ""
	}
	return c.name
}

// Marshal encodes v with the inner codec, and compresses the bytes. A value above MaxBytes is an error.
func (c *Codec) Marshal(v any) ([]byte, error) {
	data, err := c.inner.Marshal(v)
	if err != nil {
		return nil, err
	}
	return c.pack(data)
}

// MarshalKeyed does the same, and passes the row's key to the inner codec.
func (c *Codec) MarshalKeyed(key string, v any) ([]byte, error) {
	data, err := codec.Marshal(c.inner, key, v)
	if err != nil {
		return nil, err
	}
	return c.pack(data)
}

// Unmarshal decompresses data and decodes it with the inner codec. Damaged bytes, and those of a value above MaxBytes, are errors.
func (c *Codec) Unmarshal(data []byte, v any) error {
	data, err := c.unpack(data)
	if err != nil {
		return err
	}
	return c.inner.Unmarshal(data, v)
}

// UnmarshalKeyed does the same, and passes the row's key to the inner codec.
func (c *Codec) UnmarshalKeyed(key string, data []byte, v any) error {
	data, err := c.unpack(data)
	if err != nil {
		return err
	}
	return codec.Unmarshal(c.inner, key, data, v)
}

// ReaderOf returns a codec for the rows that the inner codec wrote or can read, and for the same rows compressed.
func (c *Codec) ReaderOf(name string) codec.Codec {
	if r := codec.ReaderOf(c.inner, name); r != nil {
		return r
	}
	bare, ok := strings.CutSuffix(name, suffix)
	if !ok {
		return nil
	}
	inner := codec.ReaderOf(c.inner, bare)
	if inner == nil {
		return nil
	}
	other := *c
	other.inner, other.name = inner, name
	return &other
}

// pack returns the header byte and data, compressed if data is large enough and that does not make it longer.
func (c *Codec) pack(data []byte) ([]byte, error) {
	if len(data) > c.max {
		return nil, c.refuse("the value has %d bytes, more than the %d of compress.MaxBytes", len(data), c.max)
	}
	if len(data) >= c.above {
		var packed []byte
		if c.algorithm == asZstd {
			packed = zstdPack(data)
		} else {
			packed = s2Pack(data)
		}
		if len(packed) <= len(data) {
			return packed, nil
		}
	}
	return append(append(make([]byte, 0, 1+len(data)), plain), data...), nil
}

const damaged = "the compressed bytes are damaged"

// refuse returns an error whose text a Cache may show, as it has sizes in it and nothing of the value.
func (c *Codec) refuse(format string, args ...any) error {
	return fmt.Errorf("pgcache: codec %s: %w", c.name, codec.PlainError(fmt.Sprintf(format, args...)))
}

// unpack returns the inner codec's bytes. It allocates no more than c.max for them, whatever data claims.
func (c *Codec) unpack(data []byte) ([]byte, error) {
	if len(data) == 0 {
		return nil, c.refuse("the value has no header")
	}
	header, data := data[0], data[1:]
	var size uint64
	switch header {
	case plain:
		size = uint64(len(data))
	case asS2:
		n, err := s2.DecodedLen(data)
		if err != nil {
			return nil, c.refuse(damaged)
		}
		size = uint64(n)
	case asZstd:
		n, used := binary.Uvarint(data)
		if used <= 0 {
			return nil, c.refuse(damaged)
		}
		size, data = n, data[used:]
	default:
		return nil, c.refuse("unknown header %#x", header)
	}
	if size > uint64(c.max) {
		return nil, c.refuse("the value would have %d bytes, more than the %d of compress.MaxBytes", size, c.max)
	}
	if header == plain {
		return data, nil
	}
	unpack := s2Unpack
	if header == asZstd {
		unpack = zstdUnpack
	}
	out, err := unpack(make([]byte, 0, size), data)
	if err != nil || uint64(len(out)) != size {
		return nil, c.refuse(damaged)
	}
	return out, nil
}

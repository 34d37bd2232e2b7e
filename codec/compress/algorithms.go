package compress

import (
	"bytes"
	"encoding/binary"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

const defaultAlgorithm = asS2

// Zstd compresses with zstd instead of s2: smaller rows, slower in both directions. Every Codec reads both.
func Zstd() Option { return func(c *Codec) { c.algorithm = asZstd } }

// One zstd encoder and one decoder serve all goroutines: EncodeAll and DecodeAll each take one of as many workers as there are
// processors. They are made when first used, because their workers keep memory.
var (
	zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic(err) // the options are constant
		}
		return e
	})
	zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
		// The output never grows beyond the capacity that unpack has bounded.
		d, err := zstd.NewReader(nil, zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderConcurrency(0))
		if err != nil {
			panic(err) // the options are constant
		}
		return d
	})
	// scratch holds what values are compressed into before they are copied to their size.
	scratch = sync.Pool{New: func() any { return new([]byte) }}
)

// pooledSize is the largest scratch buffer that is kept.
const pooledSize = 256 << 10

// withScratch calls pack with a buffer from the pool and returns a copy of what pack returns. What pack returns goes to the
// pool: the same buffer or a larger one.
func withScratch(pack func(buffer []byte) []byte) []byte {
	buffer := scratch.Get().(*[]byte)
	*buffer = pack(*buffer)
	data := bytes.Clone(*buffer)
	if cap(*buffer) <= pooledSize {
		scratch.Put(buffer)
	}
	return data
}

func zstdPack(data []byte) []byte {
	return withScratch(func(b []byte) []byte {
		b = binary.AppendUvarint(append(b[:0], asZstd), uint64(len(data)))
		return zstdEncoder().EncodeAll(data, b)
	})
}

func zstdUnpack(dst, data []byte) ([]byte, error) { return zstdDecoder().DecodeAll(data, dst) }

func s2Pack(data []byte) []byte {
	return withScratch(func(b []byte) []byte {
		if n := 1 + s2.MaxEncodedLen(len(data)); cap(b) < n {
			b = make([]byte, n)
		}
		b = b[:cap(b)]
		b[0] = asS2
		return b[:1+len(s2.Encode(b[1:], data))]
	})
}

func s2Unpack(dst, data []byte) ([]byte, error) { return s2.Decode(dst[:cap(dst)], data) }

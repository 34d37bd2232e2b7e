package msgpack

import (
	"fmt"
	"io"

	"github.com/pgcache/go/codec/internal/safe"
)

// A reader gives the library's decoder one MessagePack value, token by token, and sees each token before the decoder
// acts on it. The decoder believes every length in its input: five bytes can make it ask for 64 GiB, and deep nesting can
// exhaust its stack. So the reader refuses
//
//   - a string or extension that is longer than the rest of the data,
//   - arrays and maps that still need more values than there are bytes left, as every value takes at least a byte,
//   - nesting deeper than safe.MaxDepth,
//   - reads out of step with the tokens. One case is known: where it wants a map, the decoder skips the header of an extension and
//     takes its payload, say a time, for a map; the lengths in it would be ones that the reader has not checked.
//
// It implements io.Reader and io.ByteScanner, so that the decoder puts no buffer in front of it.
type reader struct {
	data []byte
	pos  int
	// The current token is data[head:end]: a code, a length, an extension's type, and from body on its payload. The
	// values of arrays and maps are tokens of their own.
	head, body, end int
	missing         int   // how many values the arrays and maps that have begun still need, in all
	open            []int // how many each of them still needs, the innermost last
}

// errStep is the error of a decoder that reads out of step with the tokens.
const errStep = safe.PlainError("the value does not fit the type")

func (r *reader) reset(data []byte) { *r = reader{data: data, open: r.open[:0]} }

// ReadByte reads a code, or a byte of what follows it. The bytes of a payload come with Read, except for a lone one.
func (r *reader) ReadByte() (byte, error) {
	if r.pos == r.end {
		if err := r.next(); err != nil {
			return 0, err
		}
	} else if r.pos >= r.body && r.end-r.body > 1 {
		return 0, errStep
	}
	r.pos++
	return r.data[r.pos-1], nil
}

// UnreadByte steps back within the current token.
func (r *reader) UnreadByte() error {
	if r.pos == r.head {
		return errStep
	}
	r.pos--
	return nil
}

// Read reads from the current token, all of p or nothing.
func (r *reader) Read(p []byte) (int, error) {
	if len(p) > r.end-r.pos {
		return 0, errStep
	}
	r.pos += copy(p, r.data[r.pos:])
	return len(p), nil
}

// next makes the token at pos the current one, unless it is to be refused.
func (r *reader) next() error {
	for len(r.open) > 0 && r.open[len(r.open)-1] == 0 {
		r.open = r.open[:len(r.open)-1]
	}
	if len(r.open) > 0 {
		r.open[len(r.open)-1]--
		r.missing--
	} else if r.pos > 0 {
		return safe.ErrTrailing
	}
	if r.pos == len(r.data) {
		return io.ErrUnexpectedEOF
	}

	tok, err := parse(r.data[r.pos:])
	if err != nil {
		return err
	}
	if tok.header > len(r.data)-r.pos {
		return io.ErrUnexpectedEOF
	}
	left := uint64(len(r.data) - r.pos - tok.header)
	if tok.payload > left || tok.values+uint64(r.missing) > left {
		return fmt.Errorf("code %#x declares more than the %d bytes that are left: %w",
			r.data[r.pos], left, io.ErrUnexpectedEOF)
	}
	if tok.values > 0 {
		if len(r.open) == safe.MaxDepth {
			return safe.PlainError(fmt.Sprintf("nests deeper than %d levels", safe.MaxDepth))
		}
		r.open = append(r.open, int(tok.values))
		r.missing += int(tok.values)
	}
	r.head = r.pos
	r.body = r.pos + tok.header
	r.end = r.body + int(tok.payload)
	return nil
}

// A token has the sizes of a token: the bytes of its header, and after it the bytes of payload or the number of values.
type token struct {
	header          int
	payload, values uint64
}

// parse returns the token at the start of data, which has at least one byte. The header may be longer than data.
func parse(data []byte) (token, error) {
	c := data[0]
	switch {
	case c <= 0x7f, c >= 0xe0, c == 0xc0, c == 0xc2, c == 0xc3: // small integers, nil, false, true
		return token{header: 1}, nil
	case c <= 0x8f:
		return token{header: 1, values: 2 * uint64(c&0x0f)}, nil
	case c <= 0x9f:
		return token{header: 1, values: uint64(c & 0x0f)}, nil
	case c <= 0xbf:
		return token{header: 1, payload: uint64(c & 0x1f)}, nil
	case c == 0xca: // float32
		return token{header: 1, payload: 4}, nil
	case c == 0xcb: // float64
		return token{header: 1, payload: 8}, nil
	case c >= 0xcc && c <= 0xcf: // unsigned
		return token{header: 1, payload: 1 << (c - 0xcc)}, nil
	case c >= 0xd0 && c <= 0xd3: // signed
		return token{header: 1, payload: 1 << (c - 0xd0)}, nil
	case c >= 0xd4 && c <= 0xd8: // extensions of 1 to 16 bytes, after their type
		return token{header: 2, payload: 1 << (c - 0xd4)}, nil
	case c >= 0xc4 && c <= 0xc6: // bytes
		n, header := length(data, 1<<(c-0xc4))
		return token{header: header, payload: n}, nil
	case c >= 0xc7 && c <= 0xc9: // extensions; their type follows the length
		n, header := length(data, 1<<(c-0xc7))
		return token{header: header + 1, payload: n}, nil
	case c >= 0xd9 && c <= 0xdb: // strings
		n, header := length(data, 1<<(c-0xd9))
		return token{header: header, payload: n}, nil
	case c == 0xdc, c == 0xdd: // arrays
		n, header := length(data, 2<<(c-0xdc))
		return token{header: header, values: n}, nil
	case c == 0xde, c == 0xdf: // maps
		n, header := length(data, 2<<(c-0xde))
		return token{header: header, values: 2 * n}, nil
	}
	return token{}, safe.PlainError(fmt.Sprintf("code %#x is not MessagePack", c)) // 0xc1, never used
}

// length reads the big-endian number of the given size after the code, or what there is of it, and returns it with the
// size of both.
func length(data []byte, size int) (n uint64, header int) {
	for _, b := range data[1:min(1+size, len(data))] {
		n = n<<8 | uint64(b)
	}
	return n, 1 + size
}

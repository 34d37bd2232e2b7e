// Package encrypt encrypts and authenticates the values of another codec: whoever reads the cache's table cannot read them, and
// whoever writes to it cannot change them unnoticed. Keys, tags, sizes and times of rows stay readable.
package encrypt

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/pgcache/go/codec"
)

// Codec encrypts what another codec writes. It is safe for concurrent use. New makes one.
//
// Every value has a key of its own, derived from the Key's Secret with HKDF-SHA256 and half of a random 192-bit nonce; the
// other half is the nonce of AES-256-GCM. So one Secret is good for 2^80 values: the probability that two of them share a nonce
// is then below 2^-32. If the Secret itself were the key, the limit would be 2^32 values.
//
// The row's key, the name of the codec and the ID of the Key are authenticated: bytes that were moved to another row do
// not decode. An older value of the same row does, if somebody puts it back.
//
// A value takes 42 bytes and the length of the ID more than with the inner codec.
type Codec struct {
	inner   codec.Codec
	name    string
	current string                   // the ID of the key that encrypts
	ciphers map[string]cipherOfValue // by the ID of the key
}

// cipherOfValue returns the cipher for the one value whose nonce begins with these bytes. It is a closure so that the secret is
// in no field, which %v would print.
type cipherOfValue func(nonce []byte) (cipher.AEAD, error)

var (
	_ codec.KeyedCodec = (*Codec)(nil)
	_ codec.Reader     = (*Codec)(nil)
)

// A value is: version, length of the ID, ID, nonce, ciphertext and tag.
const (
	version   byte = 1
	nonceSize      = 24            // bytes
	half           = nonceSize / 2 // the first half derives the value's key, the second is the nonce of AES-GCM
	tagSize        = 16            // of AES-GCM
	maxID          = 64
	suffix         = ".aes"
	label          = "pgcache encrypt 1" // separates these keys and tags from those that other programs make with the Secret
)

// New returns a codec that encrypts what inner writes. The first of keys encrypts, all of them decrypt: to change keys, put
// the new one first, and take the old one away when its rows have expired. A value of a key that is not there is a miss.
// The name is inner's and ".aes". An inner codec that codec.Validate refuses, no key, two keys of one ID, and an ID or a Secret
// that is not as Key says are errors.
//
// The rows that inner itself wrote are misses too: else whoever can write to the table could forge a value without a key.
func New(inner codec.Codec, keys ...Key) (*Codec, error) {
	if err := codec.Validate(inner); err != nil {
		return nil, err
	}
	c := &Codec{inner: inner, name: inner.Name() + suffix, ciphers: make(map[string]cipherOfValue, len(keys))}
	if err := codec.Validate(c); err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, errors.New("pgcache: encrypt: no key")
	}
	for i, k := range keys {
		if !validID(k.ID) {
			return nil, fmt.Errorf("pgcache: encrypt: key %d: the ID is not 1 to %d letters, digits, '_', '-', '.', ':' and '/'", i+1, maxID)
		}
		if _, ok := c.ciphers[k.ID]; ok {
			return nil, fmt.Errorf("pgcache: encrypt: two keys have the ID %q", k.ID)
		}
		cipherOf, err := k.derive()
		if err != nil {
			return nil, err
		}
		c.ciphers[k.ID] = cipherOf
	}
	c.current = keys[0].ID
	return c, nil
}

// derive returns the function that makes the ciphers of values under k. It keeps nothing of the Secret's own memory.
func (k Key) derive() (cipherOfValue, error) {
	switch len(k.Secret) {
	case 16, 24, 32:
	default:
		return nil, fmt.Errorf("pgcache: encrypt: the Secret of key %q has %d bytes, want 16, 24 or 32", k.ID, len(k.Secret))
	}
	prk, err := hkdf.Extract(sha256.New, k.Secret, nil)
	if err != nil {
		return nil, fmt.Errorf("pgcache: encrypt: key %q: %w", k.ID, err)
	}
	return func(nonce []byte) (cipher.AEAD, error) {
		key, err := hkdf.Expand(sha256.New, prk, label+string(nonce), 32)
		if err != nil {
			return nil, err
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		return cipher.NewGCM(block)
	}, nil
}

// Name returns the inner codec's name and ".aes". The name of a nil Codec is empty, which no Cache accepts: a
// program that overlooks the error of New does not store values in the clear.
func (c *Codec) Name() string {
	if c == nil {
		return ""
	}
	return c.name
}

// Marshal encodes v with the inner codec and encrypts it, bound to the empty key.
func (c *Codec) Marshal(v any) ([]byte, error) { return c.MarshalKeyed("", v) }

// Unmarshal decrypts data that Marshal returned and decodes it with the inner codec.
func (c *Codec) Unmarshal(data []byte, v any) error { return c.UnmarshalKeyed("", data, v) }

// MarshalKeyed encodes v with the inner codec and encrypts it, bound to the row of key. Its errors are the inner codec's.
func (c *Codec) MarshalKeyed(key string, v any) ([]byte, error) {
	text, err := codec.Marshal(c.inner, key, v)
	if err != nil {
		return nil, err
	}
	header := 2 + len(c.current)
	data := make([]byte, header+nonceSize, header+nonceSize+len(text)+tagSize)
	data[0], data[1] = version, byte(len(c.current))
	copy(data[2:], c.current)
	nonce := data[header:]
	_, _ = rand.Read(nonce) // never fails
	aead, err := c.ciphers[c.current](nonce[:half])
	if err != nil {
		return nil, fmt.Errorf("pgcache: codec %s: %w", c.name, err)
	}
	return aead.Seal(data, nonce[half:], text, c.bound(key, data[:header])), nil
}

// UnmarshalKeyed decrypts data, if MarshalKeyed returned it for the row of key, and decodes it with the inner codec.
func (c *Codec) UnmarshalKeyed(key string, data []byte, v any) error {
	text, err := c.open(key, data)
	if err != nil {
		return fmt.Errorf("pgcache: codec %s: %w", c.name, err)
	}
	return codec.Unmarshal(c.inner, key, text, v)
}

const (
	errNotEncrypted = codec.PlainError("not an encrypted value")
	errUnknownKey   = codec.PlainError("encrypted with a key that New was not given")
)

// open checks and decrypts data of the row of key, and returns the inner codec's bytes.
func (c *Codec) open(key string, data []byte) ([]byte, error) {
	if len(data) < 2 || data[0] != version || len(data) < 2+int(data[1])+nonceSize {
		return nil, errNotEncrypted
	}
	header := 2 + int(data[1])
	id := string(data[2:header])
	cipherOf, ok := c.ciphers[id]
	switch {
	case !ok && validID(id):
		return nil, fmt.Errorf("%w: %q", errUnknownKey, id)
	case !ok: // the id may be anything, also a piece of a value
		return nil, errNotEncrypted
	}
	nonce, sealed := data[header:header+nonceSize], data[header+nonceSize:]
	aead, err := cipherOf(nonce[:half])
	if err != nil {
		return nil, err
	}
	text, err := aead.Open(nil, nonce[half:], sealed, c.bound(key, data[:header]))
	if err != nil {
		return nil, codec.PlainError(fmt.Sprintf("key %q does not fit: the value is damaged, of another row, or of another secret", id))
	}
	return text, nil
}

// bound returns what is authenticated beside the value, the additional data of AES-GCM. It contains the
// lengths of the header and the name, so that no two different sets of parts give the same bytes.
func (c *Codec) bound(key string, header []byte) []byte {
	b := make([]byte, 0, len(label)+len(header)+len(c.name)+len(key)+2*binary.MaxVarintLen64)
	b = append(append(b, label...), header...) // the header has its own length in it
	b = append(binary.AppendUvarint(b, uint64(len(c.name))), c.name...)
	return append(b, key...)
}

// ReaderOf returns a codec for the encrypted rows of the codecs that the inner codec can read: where that is a compress.Codec,
// the rows that were encrypted before it was added. It returns nil for rows that are not encrypted.
func (c *Codec) ReaderOf(name string) codec.Codec {
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

func validID(id string) bool {
	for _, b := range []byte(id) {
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', strings.IndexByte("_-.:/", b) >= 0:
		default:
			return false
		}
	}
	return len(id) >= 1 && len(id) <= maxID
}

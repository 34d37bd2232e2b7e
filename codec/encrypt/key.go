package encrypt

import (
	"fmt"
	"io"
	"log/slog"
	"strconv"
)

// Key is a secret and its name. It prints and logs as encrypt.Key("ID"), without the Secret. A struct that holds one in an
// unexported field prints the Secret with %v, as package fmt does not call the methods of such fields.
type Key struct {
	// ID is stored with every value, in the clear: 1 to 64 letters, digits, '_', '-', '.', ':' and '/'. An ID belongs to
	// one Secret for ever.
	ID string
	// Secret is 16, 24 or 32 bytes from a source of random bytes, never a password. Every value is encrypted with
	// AES-256 and a key derived from it, so it is as hard to guess as its size says. New copies it.
	Secret []byte
}

// String returns encrypt.Key("ID").
func (k Key) String() string { return "encrypt.Key(" + strconv.Quote(k.ID) + ")" }

// GoString returns what String does.
func (k Key) GoString() string { return k.String() }

// Format writes what String returns, whatever the verb.
func (k Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, k.String()) }

// LogValue returns what String does.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText returns what String does, so that JSON and other encodings do not contain the Secret.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// String returns encrypt.Codec("NAME"), with the name of the codec.
func (c *Codec) String() string { return "encrypt.Codec(" + strconv.Quote(c.Name()) + ")" }

// GoString returns what String does.
func (c *Codec) GoString() string { return c.String() }

// Format writes what String returns, whatever the verb.
func (c *Codec) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, c.String()) }

// LogValue returns what String does.
func (c *Codec) LogValue() slog.Value { return slog.StringValue(c.String()) }

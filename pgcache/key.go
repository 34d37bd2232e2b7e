package pgcache

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pgcache/go/localcache"
)

// hashedKey stands between the readable part and the hash in a key that HashKey has made.
const hashedKey = "~sha256~"

// HashKey makes a valid key of any bytes: a cookie, a URL, something that is not UTF-8. What is a valid key of at most 200
// bytes stays as it is; anything else becomes its beginning, as far as that is printable, and its SHA-256. So two different
// strings never have one key. A ':' in the readable part becomes '_': it would begin a namespace.
func HashKey(s string) string {
	if len(s) <= maxPlainKey && checkKey("", s) == nil && !strings.Contains(s, hashedKey) {
		return s
	}
	readable := strings.Map(func(r rune) rune {
		switch {
		case r == ':' || r == utf8.RuneError || !unicode.IsPrint(r):
			return '_'
		}
		return r
	}, s[:min(len(s), readableKey)])
	return fmt.Sprintf("%s%s%x", readable, hashedKey, sha256.Sum256([]byte(s)))
}

const (
	maxPlainKey = 200 // bytes, to leave room for a namespace
	readableKey = 60
)

// keyOf splits the key of a row at its first ':', as a typed view with a namespace has it in two parts from the start. So the row
// "user:1" is one entry in memory, whether it is read as For(Namespace("user")).Get("1") or as Get("user:1"). A key that
// begins with ':' has no namespace: the empty one is not a view's.
func keyOf(row string) localcache.Key {
	if i := strings.IndexByte(row, ':'); i > 0 {
		return localcache.Key{Namespace: row[:i], Name: row[i+1:]}
	}
	return localcache.Key{Name: row}
}

// checkKey refuses what the database would refuse, or what an index or a notification could not hold. A hit does without it: no key that
// it refuses is ever in memory.
func checkKey(namespace, key string) error {
	n := len(key)
	if namespace != "" {
		n += len(namespace) + 1
	}
	switch {
	case key == "":
		return fmt.Errorf("%w: it is empty", ErrInvalidKey)
	case n > MaxKeyBytes:
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrInvalidKey, n, MaxKeyBytes)
	case strings.IndexByte(key, 0) >= 0:
		return fmt.Errorf("%w: it has a NUL", ErrInvalidKey)
	case !utf8.ValidString(key):
		return fmt.Errorf("%w: it is not valid UTF-8", ErrInvalidKey)
	}
	return nil
}

// checkNamespace refuses a namespace that is no valid key, or with which keyOf would split the key of a row elsewhere.
func checkNamespace(ns string) error {
	switch {
	case ns == "":
		return fmt.Errorf("%w: the namespace is empty", ErrInvalidKey)
	case strings.IndexByte(ns, ':') >= 0:
		return fmt.Errorf("%w: the namespace %.40q has a ':'", ErrInvalidKey, ns)
	case len(ns) > MaxKeyBytes/2:
		return fmt.Errorf("%w: the namespace has %d bytes, at most %d are allowed", ErrInvalidKey, len(ns), MaxKeyBytes/2)
	}
	if err := checkKey("", ns); err != nil {
		return fmt.Errorf("the namespace %.40q: %w", ns, err)
	}
	return nil
}

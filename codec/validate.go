package codec

import (
	"errors"
	"fmt"
)

// Validate returns an error if c is nil or if its name is not 1 to 32 bytes of ASCII letters, digits, '_', '-' and '.'.
func Validate(c Codec) error {
	if c == nil {
		return errors.New("pgcache: codec: nil, want a Codec such as codec.JSON{}")
	}
	name := c.Name()
	if len(name) < 1 || len(name) > 32 {
		return fmt.Errorf("pgcache: codec: name %q has %d bytes, want 1 to 32", name, len(name))
	}
	for _, b := range []byte(name) {
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '_', b == '-', b == '.':
		default:
			return fmt.Errorf("pgcache: codec: name %q has the byte %q, want letters, digits, '_', '-' and '.'", name, b)
		}
	}
	return nil
}

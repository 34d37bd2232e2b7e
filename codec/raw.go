package codec

import (
	"reflect"

	"github.com/pgcache/go/codec/internal/safe"
)

// Raw stores []byte and string, and types whose underlying type is one of them, as they are. Any other type is an error.
// It is ready to use as Raw{} and safe for concurrent use.
//
//   - A row does not say which of the two it was: what was written as a string can be read as []byte and the other way
//     round.
//   - Nil is stored as no bytes, and no bytes decode to nil or "".
//   - Values are copied on their way in and out, so nobody shares memory with the cache. A typed view of a string keeps
//     the string itself in memory: its hits copy nothing.
type Raw struct{}

// errRaw is the error of a value or a destination of another type.
const errRaw = PlainError("want []byte, string, or a type made of one of them; use another codec for this type")

// Name returns "raw".
func (Raw) Name() string { return "raw" }

// Marshal returns a copy of the bytes of v, a []byte, a string, or a pointer to one.
func (Raw) Marshal(v any) (data []byte, err error) {
	switch v := v.(type) {
	case []byte:
		return append(make([]byte, 0, len(v)), v...), nil
	case string:
		return []byte(v), nil
	case nil:
		return []byte{}, nil
	}
	defer safe.Wrap(&err, "raw", "marshal", v)
	typ, value := reflect.TypeOf(v), reflect.ValueOf(v)
	if typ.Kind() == reflect.Pointer {
		typ, value = typ.Elem(), value.Elem() // the zero Value for a nil pointer
	}
	switch {
	case !isRaw(typ):
		return nil, errRaw
	case !value.IsValid():
		return []byte{}, nil
	case typ.Kind() == reflect.String:
		return []byte(value.String()), nil
	}
	return append(make([]byte, 0, value.Len()), value.Bytes()...), nil
}

// Unmarshal copies data into v, a non-nil pointer to a []byte or a string.
func (Raw) Unmarshal(data []byte, v any) (err error) {
	switch v := v.(type) {
	case *[]byte:
		if v != nil {
			*v = append([]byte(nil), data...)
			return nil
		}
	case *string:
		if v != nil {
			*v = string(data)
			return nil
		}
	}
	defer safe.Wrap(&err, "raw", "unmarshal", v)
	target, err := safe.Destination(v)
	switch {
	case err != nil:
		return err
	case !isRaw(target.Type()):
		return errRaw
	case target.Kind() == reflect.String:
		target.SetString(string(data))
	default:
		target.SetBytes(append([]byte(nil), data...))
	}
	return nil
}

// isRaw says whether t is a string, a []byte, or a type whose underlying type is one of them.
func isRaw(t reflect.Type) bool {
	return t.Kind() == reflect.String || t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8
}

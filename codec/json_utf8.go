package codec

import (
	"bytes"
	"encoding"
	"encoding/json"
	"reflect"
	"unicode/utf8"
)

// errNotUTF8 is the error of a value that JSON can't hold. encoding/json writes U+FFFD for bytes that are not UTF-8
// and returns no error, so another value would come back than was stored.
const errNotUTF8 = PlainError("a string in it is not valid UTF-8, which JSON cannot hold: use []byte, or another codec")

// replaced is what encoding/json writes for bytes that are not UTF-8: the escape \ufffd. It does not escape a U+FFFD that the
// string itself has. The variable is computed because encoding/json may write something else with GOEXPERIMENT=jsonv2.
var replaced = func() []byte {
	data, _ := json.Marshal("\xff")
	return bytes.Trim(data, `"`)
}()

var (
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// hasBadString says whether v has a string in it that is not UTF-8. encoding/json must have encoded v before: then v does not
// contain itself, and the recursion ends. hasBadString does not look into types with a MarshalJSON of their own.
func hasBadString(v reflect.Value) bool {
	if !v.IsValid() || encodesItself(v, jsonMarshaler) {
		return false
	}
	if encodesItself(v, textMarshaler) {
		return hasBadText(v)
	}
	switch v.Kind() {
	case reflect.String:
		return !utf8.ValidString(v.String())
	case reflect.Pointer, reflect.Interface:
		return hasBadString(v.Elem())
	case reflect.Slice:
		return !isBase64(v.Type()) && hasBadElement(v)
	case reflect.Array:
		return hasBadElement(v)
	case reflect.Map:
		for entries := v.MapRange(); entries.Next(); {
			if hasBadKey(entries.Key()) || hasBadString(entries.Value()) {
				return true
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			// Only "-" alone leaves a field out: with an option behind it, "-" is the name.
			if (field.IsExported() || field.Anonymous) && field.Tag.Get("json") != "-" && hasBadString(v.Field(i)) {
				return true
			}
		}
	}
	return false
}

func hasBadElement(v reflect.Value) bool {
	for i := range v.Len() {
		if hasBadString(v.Index(i)) {
			return true
		}
	}
	return false
}

// hasBadKey is hasBadString for a key of a map: encoding/json takes a string as it is, whatever methods its type has, calls
// MarshalText of all others, and never MarshalJSON.
func hasBadKey(key reflect.Value) bool {
	if key.Kind() == reflect.String {
		return !utf8.ValidString(key.String())
	}
	return encodesItself(key, textMarshaler) && hasBadText(key)
}

// isBase64 says whether encoding/json writes a slice of type t as base64: its elements are bytes without a method of their own.
func isBase64(t reflect.Type) bool {
	pointer := reflect.PointerTo(t.Elem())
	return t.Elem().Kind() == reflect.Uint8 && !pointer.Implements(jsonMarshaler) && !pointer.Implements(textMarshaler)
}

// encodesItself says whether encoding/json encodes v by calling its method of the interface type method.
func encodesItself(v reflect.Value, method reflect.Type) bool {
	return v.Kind() != reflect.Interface && (v.Type().Implements(method) || v.CanAddr() && reflect.PointerTo(v.Type()).Implements(method))
}

// hasBadText calls v's MarshalText again and looks at what it returns.
func hasBadText(v reflect.Value) bool {
	if v.Kind() == reflect.Pointer && v.IsNil() || !v.CanInterface() {
		return false
	}
	if !v.Type().Implements(textMarshaler) {
		v = v.Addr()
	}
	text, err := v.Interface().(encoding.TextMarshaler).MarshalText()
	return err == nil && !utf8.Valid(text)
}

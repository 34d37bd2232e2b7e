package codec

import (
	"bytes"
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
	"unicode/utf8"
)

// errNotUTF8 is the error of a value that JSON can't hold. encoding/json would write U+FFFD for what is not UTF-8, so that
// another value would come back than was stored, and say nothing.
const errNotUTF8 = PlainError("a string in it is not valid UTF-8, which JSON cannot hold: use []byte, or another codec")

// replaced is what encoding/json writes for bytes that are not UTF-8: \ufffd, where a U+FFFD of the string's own stays as it is;
// with GOEXPERIMENT=jsonv2 it may be another.
var replaced = func() []byte {
	data, _ := json.Marshal("\xff")
	return bytes.Trim(data, `"`)
}()

var (
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// hasBadString says that v, a value that encoding/json has encoded and so has an end, has a string in it that is not UTF-8.
// It does not look into types with a MarshalJSON of their own.
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
		return v.Type().Elem().Kind() != reflect.Uint8 && hasBadElement(v)
	case reflect.Array:
		return hasBadElement(v)
	case reflect.Map:
		for entries := v.MapRange(); entries.Next(); {
			if hasBadString(entries.Key()) || hasBadString(entries.Value()) {
				return true
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if (field.IsExported() || field.Anonymous) && name != "-" && hasBadString(v.Field(i)) {
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

// encodesItself says that encoding/json calls a method of v.
func encodesItself(v reflect.Value, method reflect.Type) bool {
	return v.Kind() != reflect.Interface && (v.Type().Implements(method) || v.CanAddr() && reflect.PointerTo(v.Type()).Implements(method))
}

// hasBadText asks v's MarshalText again.
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

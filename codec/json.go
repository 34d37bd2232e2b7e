package codec

import (
	"bytes"
	"encoding/json"
	"reflect"

	"github.com/pgcache/go/codec/internal/safe"
)

// JSON is the format of encoding/json, by that package's rules and struct tags. People and psql can read it. It is ready
// to use as JSON{} and safe for concurrent use.
//
//   - A nil value is null, and null decodes to the zero value.
//   - Integers of every size come back exactly in a field or variable of an integer type. In an any, every number comes
//     back as a float64, which is exact up to 2^53 only; objects come back as map[string]any and arrays as []any.
//   - Times keep their offset from UTC but not the name of their zone, and []byte travels as base64.
//   - A string that is not UTF-8 is an error, wherever in the value it is: use []byte for those. What a type's own MarshalJSON
//     returns is stored as it is. NaN and infinities are errors, too.
//   - A method MarshalJSON with a pointer receiver is only called when the value can be addressed: pass a pointer.
type JSON struct{}

// Name returns "json".
func (JSON) Name() string { return "json" }

// Marshal returns the JSON of v. Channels, functions, complex numbers, values that contain themselves and strings that are not
// UTF-8 are errors.
func (JSON) Marshal(v any) (data []byte, err error) {
	defer safe.Wrap(&err, "json", "marshal", v)
	data, err = json.Marshal(v)
	if err == nil && bytes.Contains(data, replaced) && hasBadString(reflect.ValueOf(v)) {
		return nil, errNotUTF8
	}
	return data, err
}

// Unmarshal decodes the one JSON value in data into v, a non-nil pointer to a zero value. Anything but white space
// after that value is an error.
func (JSON) Unmarshal(data []byte, v any) (err error) {
	defer safe.Wrap(&err, "json", "unmarshal", v)
	return json.Unmarshal(data, v)
}

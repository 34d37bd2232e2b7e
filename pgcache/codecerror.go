package pgcache

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/internal/redact"
)

// codecError is the error of a codec that could not do operation, "encode" or "decode", to a value of type typ. It says what
// kind of failure it was, never what the codec, the type's own methods or a panic say of it: their words may quote the value.
func codecError(operation, codecName string, typ reflect.Type, err error) error {
	return redact.New(fmt.Sprintf("%s %v as %s: %s", operation, typ, codecName, failure(err)), err)
}

// codecPanic is the same of a codec that panicked with p.
func codecPanic(operation, codecName string, typ reflect.Type, p any) error {
	err, ok := p.(error)
	if !ok {
		err = errNoError
	}
	what := fmt.Sprintf("it panicked with a %T", p)
	if e := runtime.Error(nil); errors.As(err, &e) {
		what = "it panicked: " + e.Error()
	}
	return redact.New(fmt.Sprintf("%s %v as %s: %s", operation, typ, codecName, what), err)
}

// errNoError stands for what was panicked with and is no error.
var errNoError = errors.New("panic")

// failure is what can be said of a codec's error without its words.
func failure(err error) string {
	var (
		own         codec.PlainError
		panicked    runtime.Error
		marshaler   *json.MarshalerError
		syntax      *json.SyntaxError
		wrong       *json.UnmarshalTypeError
		unsupported *json.UnsupportedTypeError
		value       *json.UnsupportedValueError
		number      *strconv.NumError
		moment      *time.ParseError
		base        base64.CorruptInputError
	)
	switch {
	case errors.As(err, &own):
		return string(own)
	case errors.As(err, &panicked):
		return "it panicked: " + panicked.Error()
	case errors.As(err, &marshaler):
		return fmt.Sprintf("the method of %v failed with %s", marshaler.Type, failure(marshaler.Err))
	case errors.As(err, &syntax):
		return fmt.Sprintf("not JSON at byte %d", syntax.Offset)
	case errors.As(err, &wrong):
		return wrongType(wrong)
	case errors.As(err, &unsupported):
		return fmt.Sprintf("the type %v has no JSON", unsupported.Type)
	case errors.As(err, &value):
		return "JSON has no form for NaN, infinities and values that contain themselves"
	case errors.As(err, &number):
		return fmt.Sprintf("a number: %v", number.Err)
	case errors.As(err, &moment):
		return "not a time"
	case errors.As(err, &base):
		return base.Error()
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "it ends too early"
	}
	what := ""
	for {
		if strings.HasPrefix(err.Error(), "panic: ") { // of package codec
			what = "it panicked with "
		}
		inner := errors.Unwrap(err)
		if inner == nil {
			break
		}
		err = inner
	}
	if text := err.Error(); namesTypes.MatchString(text) {
		return text
	}
	return fmt.Sprintf(what+"an error of type %T, whose text is not shown as it may quote the value", err)
}

// namesTypes are the words of the libraries behind package codec that name types and codes, no values: most of them are about
// a type that can't be encoded, which somebody has to mend.
var namesTypes = regexp.MustCompile(`^(gob: (type not registered for interface|name not registered for interface|type mismatch|wrong type \(|decoding into local type|` +
	`local interface type|unknown type id|duplicate type received|bad data|type .* has no exported fields|encodeReflectValue: nil element|` +
	`cannot encode nil pointer)|gob NewTypeObject can't handle type|` +
	`msgpack: (Encode|Decode|EncodeExt|DecodeExt)\((unsupported|nil|non-\w+|nonaddressable)|` +
	`msgpack: (invalid code=|unknown code |unsupported map key: |number of fields |unknown ext id=|got ext type=|invalid ext len=|invalid time ext id=))`)

// wrongType says which JSON was found where. The Value of such an error may be a number itself.
func wrongType(e *json.UnmarshalTypeError) string {
	kind, _, _ := strings.Cut(e.Value, " ")
	switch kind {
	case "object", "array", "string", "number", "bool", "null":
	default:
		kind = "value"
	}
	where := fmt.Sprintf("at byte %d", e.Offset)
	if e.Struct != "" && fieldName.MatchString(e.Field) {
		where = fmt.Sprintf("in field %s of %s", e.Field, e.Struct)
	}
	return fmt.Sprintf("a JSON %s for a Go %v, %s", kind, e.Type, where)
}

var fieldName = regexp.MustCompile(`^[\pL_][\pL\pN_.]{0,100}$`)

// Package safe keeps an encoding library from ending the process: it turns a panic into an error, and refuses a value that
// contains itself, on which a recursive encoder would exhaust the stack.
package safe

import (
	"fmt"
	"reflect"
)

// PlainError is an error whose text says nothing of the value. Package codec exports it as codec.PlainError.
type PlainError string

func (e PlainError) Error() string { return string(e) }

// Wrap must be deferred. It turns a panic into *err, and puts the codec, the operation and the type of v before the text of
// every error.
func Wrap(err *error, codec, operation string, v any) {
	switch p := recover().(type) {
	case nil:
	case error:
		*err = fmt.Errorf("panic: %w", p)
	default:
		*err = fmt.Errorf("panic: %v", p)
	}
	if *err != nil {
		*err = fmt.Errorf("pgcache: codec %s: %s %T: %w", codec, operation, v, *err)
	}
}

// ErrTrailing is the error of bytes that follow a value.
const ErrTrailing = PlainError("trailing bytes after the value")

// Destination returns what v points to, or an error if v is not a non-nil pointer.
func Destination(v any) (reflect.Value, error) {
	pointer := reflect.ValueOf(v)
	if pointer.Kind() != reflect.Pointer || pointer.IsNil() {
		return reflect.Value{}, PlainError("the destination is not a non-nil pointer")
	}
	return pointer.Elem(), nil
}

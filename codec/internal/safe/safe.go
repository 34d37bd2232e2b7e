// Package safe keeps what an encoding library does to the process within bounds: a panic becomes an error, and so does
// a value without an end, which would exhaust the stack.
package safe

import (
	"fmt"
	"reflect"
)

// PlainError is an error whose text says nothing of the value. It is codec.PlainError.
type PlainError string

func (e PlainError) Error() string { return string(e) }

// Wrap belongs in a defer. It turns a panic into *err and says in every error which codec did what to which type.
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

// Package panics makes errors of the panics of database drivers. Most statements run on goroutines of ours, or for several callers at
// once: nobody else could recover.
package panics

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// Error is the error of a driver that panicked.
type Error struct {
	Value any
	Stack []byte
}

func (e *Error) Error() string {
	return fmt.Sprintf("the database driver panicked: %v\n\n%s", e.Value, e.Stack)
}

// Recover is to be deferred where a driver is called. A panic becomes *err.
func Recover(err *error) {
	if p := recover(); p != nil {
		*err = &Error{p, debug.Stack()}
	}
}

// In says that err is, or wraps, that of a panic.
func In(err error) bool {
	var e *Error
	return errors.As(err, &e)
}

// Package panics turns panics of database drivers into errors. Most statements run on goroutines that the library started, or
// for several callers at once: the program that uses the library cannot recover there.
package panics

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// Error is the error of a driver that panicked.
type Error struct {
	Value any    // what recover returned
	Stack []byte // of the goroutine that panicked
}

func (e *Error) Error() string {
	return fmt.Sprintf("the database driver panicked: %v\n\n%s", e.Value, e.Stack)
}

// Recover turns a panic into an *Error and stores it in *err. It must be deferred by the function that calls the driver.
func Recover(err *error) {
	if p := recover(); p != nil {
		*err = &Error{p, debug.Stack()}
	}
}

// In says that err is, or wraps, an *Error.
func In(err error) bool {
	var e *Error
	return errors.As(err, &e)
}

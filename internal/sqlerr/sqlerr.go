// Package sqlerr sorts the errors of a database by what can be done about them, without knowing a driver: both lib/pq
// and pgx errors have a method SQLState.
package sqlerr

import (
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
)

// State returns the SQLSTATE of err, or "" if the server did not say one.
func State(err error) string {
	var s interface{ SQLState() string }
	if errors.As(err, &s) {
		return s.SQLState()
	}
	return ""
}

// Connection says that err is about the connection, not the statement: it may be sent again on another one. Whether the
// server did it is unknown.
func Connection(err error) bool {
	switch s := State(err); {
	case strings.HasPrefix(s, "08"), s == "57P01", s == "57P02", s == "57P05", s == "25P03":
		return true
	case s != "":
		return false
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return !op.Timeout()
	}
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// NotDone says that err is about the connection, and that the server did not do the statement: it never got it, or said
// itself that it ends the session. (It says so before it commits, or before it reads the next statement.)
func NotDone(err error) bool {
	switch State(err) {
	case "57P01", "57P02", "57P05", "25P03":
		return true
	case "":
	default:
		return false
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Op == "dial" && !op.Timeout()
	}
	return errors.Is(err, driver.ErrBadConn) // a driver's word that nothing was sent
}

// Dial says that err is about a connection that could not be made.
func Dial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// Conflict says that the server did not do the statement, and would if it was sent again: a serialization failure, a deadlock, or a key
// that is there already. No statement of ours inserts a key without ON CONFLICT, but while REINDEX CONCURRENTLY runs two at once may
// go by different indexes.
func Conflict(err error) bool {
	s := State(err)
	return s == "40001" || s == "40P01" || s == "23505"
}

// NoObject says that a table, a column, a function or a schema is missing: nobody has run Migrate.
func NoObject(err error) bool {
	switch State(err) {
	case "42P01", "42703", "42883", "3F000":
		return true
	}
	return false
}

// Locked says that the server did not do the statement because somebody holds a lock, for longer than lock_timeout.
func Locked(err error) bool { return State(err) == "55P03" }

// InsufficientPrivilege is the SQLSTATE of a statement whose role lacks a right.
const InsufficientPrivilege = "42501"

// Denied says that the role lacks a right.
func Denied(err error) bool { return State(err) == InsufficientPrivilege }

// Canceled says that the server ended the statement before it was done: because a client asked for it, as the drivers do where a
// context ends, because of statement_timeout, or because an administrator did. lib/pq returns it where pgx returns the context's
// error.
func Canceled(err error) bool { return State(err) == "57014" }

// Config says that trying again won't help: something must be set up, granted or configured first.
func Config(err error) bool {
	switch s := State(err); {
	case NoObject(err), Denied(err), s == "3D000", s == "28P01", s == "28000":
		return true
	}
	return false
}

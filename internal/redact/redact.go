// Package redact keeps values out of errors. Errors end in logs, which more people may read than the database, and the words
// of a codec, of a server or of a type's own methods may quote a value. What is shown instead says what failed and how.
package redact

import (
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strings"
)

// redacted shows text and hides err: no verb of fmt and no Unwrap leads to it. errors.Is sees through; errors.As does so where
// share has made what it finds safe to show.
type redacted struct {
	text  string
	err   error
	share func(found reflect.Value) bool // makes what errors.As finds safe to show, or says no; nil: it finds nothing
}

func (r *redacted) Error() string        { return r.text }
func (r *redacted) GoString() string     { return "error(" + r.text + ")" }
func (r *redacted) Is(target error) bool { return errors.Is(r.err, target) }

func (r *redacted) As(target any) bool {
	if r.share == nil || !errors.As(r.err, target) {
		return false
	}
	found := reflect.ValueOf(target).Elem()
	if !r.share(found) {
		found.SetZero()
		return false
	}
	return true
}

// New returns an error that reads text and is whatever err is.
func New(text string, err error) error { return &redacted{text: text, err: err} }

// stater is a server's error, of whichever driver.
type stater interface {
	error
	SQLState() string
}

// Database returns an error of a database's driver without what it tells of rows, parameters and passwords.
//
// A server's error has fields beside its message: "Failing row contains (...)" is the detail of a violated constraint, and the
// context has parameters where log_parameter_max_length_on_error asks for them. The message of a data exception quotes what
// has the wrong form. errors.As finds a copy of the error that lacks all that.
//
// What a driver says of a DSN that it can't parse quotes the DSN, or the very piece of it that is the password.
func Database(err error) error {
	found := quoting(err, nil)
	if len(found) == 0 {
		return err
	}
	text := err.Error()
	for _, e := range found {
		text = strings.ReplaceAll(text, e.Error(), shown(e))
	}
	return &redacted{text, err, share}
}

func share(found reflect.Value) bool {
	switch e := found.Interface().(type) {
	case stater:
		found.Set(reflect.ValueOf(clean(e)))
	case error:
		return !ofDSN(e)
	}
	return true
}

// quoting appends the errors in err's tree that may quote something.
func quoting(err error, found []error) []error {
	for err != nil {
		switch e := err.(type) { //nolint:errorlint // it walks the tree itself
		case *redacted:
			return found // it has been here
		case stater:
			return append(found, e)
		case interface{ Unwrap() []error }:
			for _, one := range e.Unwrap() {
				found = quoting(one, found)
			}
			return found
		}
		if ofDSN(err) {
			return append(found, err)
		}
		err = errors.Unwrap(err)
	}
	return found
}

func shown(err error) string {
	if s, ok := err.(stater); ok { //nolint:errorlint // it is a node of the tree
		return clean(s).Error()
	}
	return "the pool's DSN can't be parsed (why is not shown, as it may quote the password)"
}

// ofDSN says that err is of a DSN that can't be parsed: pgx's has a field for it, lib/pq's is of net/url or says what it parsed.
func ofDSN(err error) bool {
	if e, ok := err.(*url.Error); ok { //nolint:errorlint // it is a node of the tree
		return e.Op == "parse"
	}
	v := reflect.Indirect(reflect.ValueOf(err))
	return v.Kind() == reflect.Struct && v.FieldByName("ConnString").IsValid() ||
		errors.Unwrap(err) == nil && strings.Contains(err.Error(), "connection info string")
}

const dataException = "data exception (what the server says of it may quote the value)"

// clean returns a copy of a server's error, a pointer to a struct with the fields of the protocol in both drivers.
func clean(s stater) stater {
	v := reflect.ValueOf(s)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return s
	}
	c := reflect.New(v.Type().Elem())
	c.Elem().Set(v.Elem())
	set := func(field, text string) {
		if f := c.Elem().FieldByName(field); f.IsValid() && f.Kind() == reflect.String && f.CanSet() {
			f.SetString(text)
		}
	}
	for _, field := range []string{"Detail", "Hint", "Where", "InternalQuery"} {
		set(field, "")
	}
	if strings.HasPrefix(s.SQLState(), "22") {
		set("Message", dataException)
	}
	return c.Interface().(stater)
}

// DSN is the error for a DSN that a driver's parser refused with err. What the parser says may quote the very piece that is a
// password, so its words are passed on only when the DSN holds none.
func DSN(dsn string, err error) error {
	if strings.Contains(dsn, "://") || strings.Contains(dsn, "@") || strings.Contains(strings.ToLower(dsn), "pass") {
		return errors.New("the DSN cannot be parsed; it looks like postgres://user@host:5432/database, " +
			"or host=name user=name dbname=name (why is not shown, as it may quote the password)")
	}
	return fmt.Errorf("the DSN cannot be parsed: %w", err)
}

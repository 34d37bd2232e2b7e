package redact_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/pgcache/go/internal/redact"
	"github.com/pgcache/go/internal/sqlerr"
)

const secret = "hunter2"

// shows fails if any way of printing err, or what it unwraps to, shows the secret.
func shows(t *testing.T, err error) {
	t.Helper()
	for _, s := range []string{err.Error(), fmt.Sprintf("%v %+v %#v %q", err, err, err, err)} {
		if strings.Contains(s, secret) {
			t.Errorf("%T shows %s", err, s)
		}
	}
	switch e := err.(type) { //nolint:errorlint // each step
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			shows(t, inner)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			shows(t, inner)
		}
	}
}

func pgxError(code string) error {
	return &pgconn.PgError{Severity: "ERROR", Code: code, Message: "m: " + code, Detail: "Failing row contains (" + secret + ")", Where: secret, Hint: secret, InternalQuery: secret, ConstraintName: "c"}
}

func pqError(code string) error {
	return &pq.Error{Severity: "ERROR", Code: pqerror.Code(code), Message: "m: " + code, Detail: "Failing row contains (" + secret + ")", Where: secret, Hint: secret, InternalQuery: secret, Constraint: "c"}
}

func TestDatabase(t *testing.T) {
	t.Parallel()
	for name, server := range map[string]func(code string) error{"pgx": pgxError, "lib/pq": pqError} {
		for _, wrap := range []func(err error) error{
			func(err error) error { return err },
			func(err error) error { return fmt.Errorf("get: %w", err) },
			func(err error) error { return errors.Join(io.EOF, fmt.Errorf("a (%w): %w", context.Canceled, err)) },
		} {
			original := server("23514")
			was := wrap(original)
			err := redact.Database(fmt.Errorf("outside: %w", redact.Database(was)))
			shows(t, err)
			if want := "outside: " + was.Error(); err.Error() != want {
				t.Errorf("%s: it reads %q, want %q", name, err, want)
			}
			if sqlerr.State(err) != "23514" || errors.Is(err, io.EOF) != errors.Is(was, io.EOF) || !errors.Is(err, original) {
				t.Errorf("%s: %q is not what it was", name, err)
			}
			var ofPgx *pgconn.PgError
			var ofPq *pq.Error
			if errors.As(err, &ofPgx) != (name == "pgx") || errors.As(err, &ofPq) != (name != "pgx") {
				t.Errorf("%s: errors.As does not find it", name)
			}
			if ofPgx != nil && (ofPgx.ConstraintName != "c" || ofPgx.Detail+ofPgx.Where+ofPgx.Hint+ofPgx.InternalQuery != "") {
				t.Errorf("found %+v", *ofPgx)
			}
			if ofPq != nil && (ofPq.Constraint != "c" || ofPq.Detail+ofPq.Where+ofPq.Hint+ofPq.InternalQuery != "" || strings.Contains(ofPq.ErrorWithDetail(), secret)) {
				t.Errorf("found %+v", *ofPq)
			}
		}
		for _, bad := range []error{
			&pgconn.PgError{Severity: "ERROR", Code: "22P02", Message: `invalid input syntax for type integer: "` + secret + `"`},
			&pq.Error{Severity: "ERROR", Code: "22003", Message: `value "` + secret + `" is out of range`},
		} {
			err := redact.Database(fmt.Errorf("set: %w", bad))
			shows(t, err)
			if !strings.Contains(err.Error(), "data exception") || !strings.Contains(err.Error(), sqlerr.State(bad)) {
				t.Error(err)
			}
			var s interface{ SQLState() string }
			if errors.As(err, &s); strings.Contains(fmt.Sprintf("%#v", s), secret) {
				t.Errorf("%#v", s)
			}
		}
	}
	for _, err := range []error{nil, io.EOF, fmt.Errorf("a: %w", io.EOF)} {
		if got := redact.Database(err); got != err { //nolint:errorlint // it is to be the same
			t.Errorf("%v became %v", err, got)
		}
	}
}

func TestDSN(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{"postgres://u:" + secret + "/x@h:1/db", "postgres://u:" + secret + "@[::1", "u:" + secret + "@h", "host=h password='a\\'" + secret + "' port=x"} {
		_, ofPgx := pgconn.ParseConfig(dsn)
		_, ofPq := pq.NewConfig(dsn)
		for _, cause := range []error{ofPgx, ofPq} {
			if cause == nil || strings.Contains(fmt.Sprint(cause), "wrong value for") {
				continue // it quotes another piece
			}
			err := redact.Database(errors.Join(io.EOF, fmt.Errorf("connect: %w", cause)))
			shows(t, err)
			if !strings.Contains(err.Error(), "connect: the pool's DSN") || !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			var parse *pgconn.ParseConfigError
			var address *url.Error
			if errors.As(err, &parse) || parse != nil || errors.As(err, &address) || address != nil {
				t.Errorf("errors.As finds %v, %v", parse, address)
			}
		}
	}
}

type quoting struct{ Value string }

func (q quoting) Error() string { return q.Value }

func TestNew(t *testing.T) {
	t.Parallel()
	cause := errors.Join(io.EOF, quoting{secret})
	err := redact.New("decode: not JSON", cause)
	for _, err := range []error{err, fmt.Errorf("get: %w", err), &struct{ error }{err}} {
		shows(t, err)
	}
	if err.Error() != "decode: not JSON" || !errors.Is(err, io.EOF) || errors.As(err, new(quoting)) || errors.Unwrap(err) != nil {
		t.Errorf("%#v", err)
	}
}

func TestUnparsableDSN(t *testing.T) {
	t.Parallel()
	cause := errors.New(`parser says: missing "=" after "secret"`)
	for dsn, shown := range map[string]bool{
		"postgres://me:secret@host/db":   false,
		"postgres://me:sec/ret@host/db":  false,
		"host=x PASSWORD=my secret":      false,
		"host=x sslpassword=secret y":    false,
		"postgres://host:nonsense/db":    false, // as it may be user:password, with the host forgotten
		"host=x sslmode=perhaps":         true,
		"host=x options='-c search_path": true,
	} {
		err := redact.DSN(dsn, cause)
		if strings.Contains(err.Error(), cause.Error()) != shown || errors.Is(err, cause) != shown {
			t.Errorf("error for %q: %q; cause shown: want %v", dsn, err, shown)
		}
	}
}

package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"math"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestRetry(t *testing.T) {
	t.Parallel()
	other := errors.New("another")
	refused := error(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED})
	unconnected := error(&connectError{io.EOF})
	for name, test := range map[string]struct {
		errs  []error
		sends int
		err   error
	}{
		"well":             {[]error{nil}, 1, nil},
		"one lost":         {[]error{driver.ErrBadConn, nil}, 2, nil},
		"two lost":         {[]error{driver.ErrBadConn, driver.ErrBadConn, nil}, 3, nil},
		"twenty lost":      {append(slices.Repeat([]error{io.EOF}, 20), nil), 21, nil},
		"all lost":         {slices.Repeat([]error{driver.ErrBadConn}, 100), 64, driver.ErrBadConn},
		"all refused":      {slices.Repeat([]error{refused}, 100), 3, refused},
		"none to be had":   {slices.Repeat([]error{unconnected}, 100), 3, unconnected},
		"conflict":         {[]error{&pgconn.PgError{Code: "40001"}, &pgconn.PgError{Code: "40P01"}, nil}, 3, nil},
		"another":          {[]error{other, nil}, 1, other},
		"lost and another": {[]error{driver.ErrBadConn, other, nil}, 2, other},
		"a timeout":        {[]error{context.DeadlineExceeded, nil}, 1, context.DeadlineExceeded},
	} {
		sends := 0
		v, err := retry(t.Context(), lost, func() (int, error) {
			sends++
			return sends, test.errs[sends-1]
		})
		if sends != test.sends || !errors.Is(err, test.err) || (err == nil && v != sends) {
			t.Errorf("%s: %d sends, %d, %v", name, sends, v, err)
		}
	}
	// Who gives up, gives up.
	ctx, cancel := context.WithCancel(t.Context())
	sends := 0
	_, err := retry(ctx, lost, func() (int, error) {
		sends++
		cancel()
		return 0, driver.ErrBadConn
	})
	if sends != 1 || !errors.Is(err, driver.ErrBadConn) {
		t.Errorf("%d sends, %v", sends, err)
	}
}

func TestMicros(t *testing.T) {
	t.Parallel()
	for us, want := range map[int64]time.Duration{
		0: 0, 1: time.Microsecond, -1: -time.Microsecond, 9e18: math.MaxInt64 / 1000 * 1000, math.MaxInt64: math.MaxInt64 / 1000 * 1000,
	} {
		if got := micros(us); got != want {
			t.Errorf("%d: %v, want %v", us, got, want)
		}
	}
}

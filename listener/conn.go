package listener

import (
	"context"
	"errors"
)

// A Conn is one session with the server that can LISTEN. The Listener calls Listen, Wait and Ping from one goroutine,
// one at a time; every notification that arrives meanwhile goes to the function that Dial was given, on that goroutine,
// before the call returns. After an error the Conn is closed and never used again.
type Conn interface {
	// Listen runs LISTEN on channel, quoted, outside any transaction. There is no way to stop listening on it but Close.
	Listen(ctx context.Context, channel string) error

	// Wait delivers notifications until ctx ends. Then it returns nil, soon, also when notifications come without a
	// pause, and the Conn is still good. It returns an error when the session failed or the server reported one.
	Wait(ctx context.Context) error

	// Ping makes a round trip. When it returns nil, every notification whose commit was acknowledged before Ping was called has
	// been delivered.
	Ping(ctx context.Context) error

	// Close ends the session. It blocks for a fraction of a second at the most, may be called at any time, from any goroutine and more
	// than once, and makes a call that is under way return.
	Close() error
}

// A Dial opens a [Conn]. It returns soon when ctx ends, also where a server never answers; the end of ctx does not touch a Conn that was
// returned. After an error the Listener tries again, with back-off, unless it is [Permanent]. Every notification that the Conn receives
// goes to on.
type Dial func(ctx context.Context, on func(channel, payload string)) (Conn, error)

// Permanent marks the error of a Dial, which must not be nil, as one for which trying again is no use: Listen returns it. It is
// unwrapped by errors.Is and errors.As.
func Permanent(err error) error { return &permanentError{err} }

type permanentError struct{ error }

func (e *permanentError) Unwrap() error { return e.error }

func isPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}

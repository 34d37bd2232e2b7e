package pgcache

import (
	"context"
	"time"
)

// A Listener receives the notifications of a channel and knows whether any may have been missed. Package
// listener implements it over any driver; driver/pgxdriver and driver/pqdriver make one.
type Listener interface {
	// Listen delivers to sub the notifications on channel until ctx ends, and returns when nothing more will be delivered: nil,
	// because ctx ended. It reconnects by itself for as long as it takes; it returns an error only for a channel or a
	// configuration that can never work. It calls sub's Trust, Notify and Down one at a time and in the order of the
	// connection.
	Listen(ctx context.Context, channel string, sub Subscriber) error
}

// A Subscriber takes what a Listener receives. A Cache passes one to Listen; the interface is exported so that other
// Listeners can be written.
//
// It may also have a method Idle() bool, safe for concurrent use. While it returns true nothing is served from memory, whatever Trust
// has said, and a Listener may call Trust rarely.
type Subscriber interface {
	// Probe sends ProbePrefix + nonce + anything to the channel over the connections that carry the data. A listener
	// is live only after it has received its own nonce: that proves that LISTEN is in force, on the same database of the same
	// server, with no pooler between that loses notifications. A nonce is letters and digits with a colon behind, all of
	// one length. Probe may be called beside the other methods, and must return soon when ctx ends.
	Probe(ctx context.Context, nonce string) error

	// Trust says that the listener is trusted until a moment, beyond which memory is not served unless Trust was called again.
	// The moment is counted from when the listener asked the server for a reply, not from when the reply came: what was published
	// before it asked has been delivered. The first Trust, and the first after a Down, comes after the probe's echo and makes
	// the subscriber live.
	Trust(until time.Time)

	// Notify delivers one payload: every one on the channel, the echo of a probe included, and whether live or not. It
	// must return quickly: it is called on the goroutine that reads the socket.
	Notify(payload string)

	// Down says that notifications from now on may never be delivered, and why. It is called once when a live subscriber
	// is no longer live, and once for every attempt to become live that fails, but not because ctx ends.
	Down(err error)
}

// ProbePrefix begins the payload of a probe's echo.
const ProbePrefix = "p"

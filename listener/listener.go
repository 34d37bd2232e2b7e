// Package listener keeps a LISTEN alive: it dials, listens, proves that notifications arrive, asks for a reply every two seconds
// (the heartbeat), and starts over with back-off when a reply is overdue or anything fails. It implements [pgcache.Listener] over
// a small connection interface, [Conn]; driver/pgxdriver and driver/pqdriver bring one each.
//
// One connection serves every Listen call of a Listener, and of all Listeners that are [Shared] under one key. It is
// opened for the first call and closed with the last:
//
//	dial -> LISTEN -> Probe ~> its echo -> Trust -> Notify, Notify, Trust, ... -> a failure -> Down -> back off -> dial
//
// Its goroutine reads the socket and calls Notify itself: there is no queue between that could overflow. A subscriber
// that comes later joins the connection in use, and the others do not notice.
package listener

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/pgcache/go/pgcache"
)

// ErrNoEcho is the cause that Down gets when a probe was sent and its echo did not arrive. The Listener goes on trying.
var ErrNoEcho = errors.New("notifications do not arrive: most likely a transaction pooler such as PgBouncer is between, " +
	"or the listener is connected to another database or server than the data; " +
	"let it use a direct connection (ListenerDSN)")

// Config tunes a Listener. The zero value means the defaults; negative values, and a BackoffMin above BackoffMax, are errors of Listen.
type Config struct {
	// HeartbeatEvery is the time from one heartbeat, a round trip on the connection, to the next, and HeartbeatTimeout how long it may
	// take. Their sum is how long a silently broken connection can go unnoticed. They default to 2 s and 1 s.
	HeartbeatEvery, HeartbeatTimeout time.Duration

	// ProbeTimeout is how long the echo of a probe may take, including the Subscriber's wait for a connection of its pool. Defaults
	// to 5 s.
	ProbeTimeout time.Duration

	// DialTimeout is how long a connection may take to come up, including the wait for a free one in a pool. Defaults to 10 s.
	DialTimeout time.Duration

	// BackoffMin and BackoffMax bound the wait between attempts. It is random, from nothing to a bound ("full jitter") that begins at
	// BackoffMin and doubles up to BackoffMax while attempts fail. They default to 50 ms, and 5 s or BackoffMin if that is more.
	BackoffMin, BackoffMax time.Duration

	// Logger gets one warning in the life of a Listener, when notifications do not arrive (ErrNoEcho). Everything else goes to Down
	// alone. nil means slog.Default.
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	for _, f := range []struct {
		name     string
		field    *time.Duration
		standard time.Duration
	}{
		{"HeartbeatEvery", &c.HeartbeatEvery, 2 * time.Second},
		{"HeartbeatTimeout", &c.HeartbeatTimeout, time.Second},
		{"ProbeTimeout", &c.ProbeTimeout, 5 * time.Second},
		{"DialTimeout", &c.DialTimeout, 10 * time.Second},
		{"BackoffMin", &c.BackoffMin, 50 * time.Millisecond},
		{"BackoffMax", &c.BackoffMax, max(5*time.Second, c.BackoffMin)},
	} {
		if *f.field < 0 {
			return c, fmt.Errorf("negative Config.%s: %v", f.name, *f.field)
		}
		*f.field = cmp.Or(*f.field, f.standard)
	}
	if c.BackoffMin > c.BackoffMax {
		return c, fmt.Errorf("a Config.BackoffMin (%v) above BackoffMax (%v)", c.BackoffMin, c.BackoffMax)
	}
	c.Logger = cmp.Or(c.Logger, slog.Default())
	return c, nil
}

// New returns a Listener that opens its connection with dial: pgxdriver.Dial, pgxdriver.DialDSN, pqdriver.DialDSN, or another.
//
// Its Listen returns nil when ctx ended, within a second even if the network is gone, and then nothing of it is left
// unless other calls go on: no goroutine, no session. It returns an error for a channel that is not 1 to 63 bytes of
// UTF-8 without NUL, for a [Config] that makes no sense, and for a [Permanent] error of dial. Down is called once
// for every attempt that fails and once when it stops being live, but not because ctx ended. Payloads may be delivered
// before Trust and after Down too. A method of the Subscriber must not wait for Listen to return. Safe for concurrent
// use.
func New(dial Dial, cfg Config) pgcache.Listener {
	return Shared(new(int), dial, cfg)
}

// Shared is [New] for Listeners that use one connection together: those whose key and cfg are equal, in the whole process. A key that is
// not comparable is an error of Listen. The connection is opened with the dial of the first of them that listens.
func Shared(key any, dial Dial, cfg Config) pgcache.Listener {
	return &listener{key: key, dial: dial, cfg: cfg}
}

type listener struct {
	key    any
	dial   Dial
	cfg    Config
	warned atomic.Bool
}

// Listen implements pgcache.Listener.
func (l *listener) Listen(ctx context.Context, channel string, sub pgcache.Subscriber) error {
	cfg, err := l.check(channel, sub)
	if err != nil {
		return fmt.Errorf("pgcache: listen on %q: %w", channel, err)
	}
	if ctx.Err() != nil {
		return nil
	}
	m := newMember(ctx, cfg, channel, sub)
	m.warn = func(err error) {
		if l.warned.CompareAndSwap(false, true) {
			cfg.Logger.Warn("pgcache: the listener is not live", "channel", channel, "error", err)
		}
	}
	h := join(hubKey{l.key, cfg}, l.dial, m)
	defer h.leave(m)
	select {
	case <-ctx.Done():
		return nil
	case <-h.done: // while m is a member it ends only for a Permanent error
		return fmt.Errorf("pgcache: listen on %q: %w", channel, h.err)
	}
}

func (l *listener) check(channel string, sub pgcache.Subscriber) (Config, error) {
	cfg, err := l.cfg.withDefaults()
	switch {
	case err != nil:
		return cfg, err
	case l.dial == nil:
		return cfg, errors.New("the Dial is nil")
	case !reflect.ValueOf(l.key).Comparable():
		return cfg, fmt.Errorf("the key of a shared Listener must be comparable, it is %T", l.key)
	case sub == nil:
		return cfg, errors.New("the Subscriber is nil")
	case channel == "" || len(channel) > 63: // longer ones are cut by LISTEN and refused by NOTIFY
		return cfg, fmt.Errorf("a channel's name has 1 to 63 bytes, this has %d", len(channel))
	case !utf8.ValidString(channel) || strings.ContainsRune(channel, 0):
		return cfg, errors.New("a channel's name is valid UTF-8 without NUL")
	}
	return cfg, nil
}

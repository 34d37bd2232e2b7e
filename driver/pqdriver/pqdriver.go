// Package pqdriver lets a Cache listen through lib/pq.
//
// A pool of lib/pq has two weaknesses that no library above it can mend. When the context of a statement ends, lib/pq asks
// the server over a second connection to cancel it, and waits for that: where the network has fallen silent, up to 10 s
// longer than Options.Timeout or the caller's deadline; behind PgBouncer it was seen to take minutes. A pool of pgx
// returns at once. And where a connection ends without a word after a statement was sent, lib/pq says driver.ErrBadConn,
// which is to mean that nothing was sent: database/sql sends the statement again, and a write may be done twice, the
// second time over what was written since.
package pqdriver

import (
	"context"
	"crypto/sha256"
	"strings"

	"github.com/lib/pq"

	"github.com/pgcache/go/internal/redact"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// Listener returns a Listener with a connection of its own to the server that dsn names, a URL or key=value pairs as
// lib/pq takes them; with lib/pq a connection of a *sql.DB cannot listen. All Listeners of one dsn share it. It is called
// "pgcache listener" in pg_stat_activity unless dsn says otherwise. It must not lead through a transaction pooler such as
// PgBouncer. A dsn that cannot be parsed is an error of Listen.
func Listener(dsn string) pgcache.Listener {
	return listener.Shared(dsnKey{sha256.Sum256([]byte(dsn))}, DialDSN(dsn), listener.Config{})
}

// dsnKey is a hash: a Listener that is printed shows no password.
type dsnKey struct{ sum [sha256.Size]byte }

// DialDSN is what Listener connects with, for those who want a listener.Config of their own: listener.New(pqdriver.DialDSN(dsn), cfg).
// A dsn that cannot be parsed is a Permanent error, so that Listen returns it.
func DialDSN(dsn string) listener.Dial {
	return func(ctx context.Context, on func(channel, payload string)) (listener.Conn, error) {
		config, err := pq.NewConfig(inUTF8(dsn))
		if err != nil {
			return nil, listener.Permanent(redact.DSN(dsn, err))
		}
		if config.ApplicationName == "" {
			config.ApplicationName = "pgcache listener"
		}
		c, err := open(ctx, config, on)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
}

// inUTF8 is dsn with the client_encoding that lib/pq asks the server for anyway, behind any that dsn names: else lib/pq refuses what
// PGCLIENTENCODING names in the environment.
func inUTF8(dsn string) string {
	const parameter = "client_encoding=UTF8"
	switch {
	case !strings.HasPrefix(dsn, "postgres://") && !strings.HasPrefix(dsn, "postgresql://"):
		return parameter + " " + dsn // of two the last counts
	case strings.Contains(dsn, "?"):
		return dsn + "&" + parameter // of two the first
	}
	return dsn + "?" + parameter
}

package pgcache_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// recorder receives what is published on a channel, on a session of its own.
type recorder struct {
	t       *testing.T
	conn    *pgx.Conn
	channel string
}

// record begins to listen on the cluster's channel.
func (cl *cluster) record() *recorder {
	cl.t.Helper()
	conn, err := pgx.Connect(cl.t.Context(), testdb.DSN(cl.t))
	if err != nil {
		cl.t.Fatal(err)
	}
	cl.t.Cleanup(func() { conn.Close(context.Background()) }) //nolint:usetesting // the test's context is done by then
	e := &recorder{cl.t, conn, cl.names().Channel}
	if _, err := conn.Exec(cl.t.Context(), "LISTEN "+pgx.Identifier{e.channel}.Sanitize()); err != nil {
		cl.t.Fatal(err)
	}
	return e
}

// received returns what has been published since the last call, without probes. It is complete: everything that was committed
// before the call comes before the mark that the call sends.
func (e *recorder) received() (payloads []string) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), time.Minute)
	defer cancel()
	mark := pgcache.ProbePrefix + "mark" + time.Now().String()
	if _, err := e.conn.Exec(ctx, "SELECT pg_notify($1, $2)", e.channel, mark); err != nil {
		e.t.Fatal(err)
	}
	for {
		n, err := e.conn.WaitForNotification(ctx)
		if err != nil {
			e.t.Fatal(err)
		}
		if n.Payload == mark {
			return payloads
		}
		if !strings.HasPrefix(n.Payload, pgcache.ProbePrefix) {
			payloads = append(payloads, n.Payload)
		}
	}
}

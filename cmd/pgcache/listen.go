package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"github.com/pgcache/go/internal/notify"
)

// received is a message of the cache, as it came.
type received struct {
	at      time.Time
	pid     uint32 // of the server process that published it
	message notify.Message
	unknown bool  // of a format that this release does not know: nodes forget everything
	lost    error // instead of a message: the connection was lost, and messages may have been missed
	live    bool  // instead of a message: LISTEN is in force
}

const (
	idleLimit  = 10 * time.Second // so long without a message: ask whether the connection is alive
	dialLimit  = 10 * time.Second
	mostPause  = 5 * time.Second
	leastPause = 100 * time.Millisecond
)

// listen passes on what is published for a cache until ctx ends, and no less, on a connection of its own, which it replaces when it is
// lost. The first connection must succeed.
func listen(ctx context.Context, config *pgx.ConnConfig, channel, id string, receive func(received)) error {
	pause := leastPause
	for first := true; ; first = false {
		err := listenOnce(ctx, config, channel, id, func(h received) {
			pause, first = leastPause, false
			receive(h)
		})
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was ended
		}
		if first {
			return err
		}
		receive(received{at: time.Now(), lost: err})
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, mostPause)
	}
}

func listenOnce(ctx context.Context, config *pgx.ConnConfig, channel, id string, receive func(received)) error {
	dial, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	config = config.Copy()
	config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.DeadlineContextWatcherHandler{Conn: conn.Conn()} // there is no statement to be ended when a wait is over
	}
	conn, err := pgx.ConnectConfig(dial, config)
	if err != nil {
		return connectError{err}
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		conn.Close(ctx)
	}()
	if _, err := conn.Exec(dial, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
		return err
	}
	receive(received{at: time.Now(), live: true})
	for asked := false; ; {
		wait, cancel := context.WithTimeout(ctx, idleLimit)
		n, err := conn.WaitForNotification(wait) // those that came with the answer to a Ping first, also when ctx has ended
		late := wait.Err() != nil
		cancel()
		switch {
		case n != nil:
		case ctx.Err() != nil:
			if asked || conn.IsClosed() {
				return nil
			}
			asked = true
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			_ = conn.Ping(last) // its answer comes after whatever was published before
			cancel()
			continue
		case err != nil && late && !conn.IsClosed():
			ping, cancel := context.WithTimeout(ctx, idleLimit)
			err = conn.Ping(ping)
			cancel()
			if err != nil {
				return err
			}
			continue
		case err != nil:
			return fmt.Errorf("the connection was lost: %w", err)
		}
		h := received{at: time.Now(), pid: n.PID}
		switch m, err := notify.Parse(n.Payload); {
		case len(n.Payload) > 0 && n.Payload[0] == 'p': // a listener's probe
			continue
		case err != nil:
			h.unknown = true
		case !m.For(id):
			continue
		default:
			h.message = m
		}
		receive(h)
	}
}

// item is what a message names: a key, or a group that was removed.
type item struct {
	key, tag, beginning string
	versions            []int64
}

// name is the item for people; it may have anything in it.
func (i item) name(hidden bool) string {
	mark := ""
	if hidden {
		mark = "#" // a hash
	}
	switch {
	case i.tag != "":
		return "tag " + mark + i.tag
	case i.beginning != "":
		return "all that begin with " + i.beginning
	}
	return mark + i.key
}

// concerns says whether keys that begin with some text may be among what the item names. Which keys a tag is about, nobody sees.
func (i item) concerns(beginning string) bool {
	switch {
	case i.tag != "":
		return true
	case i.beginning != "":
		return strings.HasPrefix(i.beginning, beginning) || strings.HasPrefix(beginning, i.beginning)
	}
	return strings.HasPrefix(i.key, beginning)
}

// items takes the message apart.
func (h received) items(one func(item), all func()) {
	if h.unknown {
		all()
		return
	}
	key := func(key string, versions []int64) { one(item{key: key, versions: slices.Clone(versions)}) }
	group := func(g notify.Group) {
		i := item{versions: []int64{g.ID}}
		if g.Kind == notify.Tag {
			i.tag = g.Name
		} else {
			i.beginning = g.Name
		}
		one(i)
	}
	if err := h.message.Items(key, group, all); err != nil {
		all() // as nodes do
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgcache/go/internal/notify"
)

// bareSessions are sessions that listen and do nothing else.
type bareSessions struct {
	conns     []*pgx.Conn
	cancel    context.CancelFunc
	wg        sync.WaitGroup // a goroutine for each
	bytes     atomic.Int64   // of all payloads, to all sessions
	groups    atomic.Int64   // messages to the last session that name a group, or everything
	measuring atomic.Bool    // lag counts

	heard chan struct{} // the last session has a message that names the probe's key, or everything
	lag   histogram     // of probe's goroutine: read it when that has ended
}

// probeKey is a key that no caller beside the probe writes.
const probeKey = prefix + "probe"

// listenBare returns n sessions that listen on the channel of s, at least one.
func listenBare(ctx context.Context, s *pgStore, n int) (_ *bareSessions, err error) {
	ctx, cancel := context.WithCancel(ctx)
	l := &bareSessions{cancel: cancel, heard: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	var channel string
	if err := s.servers.admin.QueryRowContext(ctx, "SELECT channel FROM "+s.schema+".cache_state").Scan(&channel); err != nil {
		return nil, err
	}
	for range max(n, 1) {
		conn, err := pgx.Connect(ctx, s.dsn)
		if err != nil {
			return nil, fmt.Errorf("session %d: %w", len(l.conns), err)
		}
		l.conns = append(l.conns, conn)
		if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
			return nil, err
		}
	}
	for i, conn := range l.conns {
		l.wg.Go(func() {
			for {
				m, err := conn.WaitForNotification(ctx)
				if err != nil {
					return
				}
				l.bytes.Add(int64(len(m.Payload)))
				if i < len(l.conns)-1 { // one that reads is enough
					continue
				}
				if namesGroup(m.Payload) {
					l.groups.Add(1)
				}
				if namesKey(m.Payload, probeKey) {
					select {
					case l.heard <- struct{}{}:
					default:
					}
				}
			}
		})
	}
	return l, nil
}

// probe sets probeKey every 20 ms until ctx ends, and notes in lag how long after the acknowledgement the last session has a message
// of it.
func (l *bareSessions) probe(ctx context.Context, n Node) {
	for ctx.Err() == nil {
		pause(ctx, 20*time.Millisecond)
		select {
		case <-l.heard:
		default:
		}
		if n.Set(ctx, probeKey, stamp{at: clock()}.value(stampBytes)) != nil {
			continue
		}
		acked := clock()
		select {
		case <-l.heard:
			if l.measuring.Load() {
				l.lag.add(clock() - acked)
			}
		case <-ctx.Done():
		}
	}
}

func (l *bareSessions) close() error {
	l.cancel()
	l.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, conn := range l.conns {
		_ = conn.Close(ctx) // ended by its context already
	}
	return nil
}

// namesKey says whether a payload names a key, a prefix of it, or everything.
func namesKey(payload, key string) (yes bool) {
	m, err := notify.Parse(payload)
	if err != nil {
		return true // every node forgets everything
	}
	err = m.Items(func(k string, _ []int64) { yes = yes || k == key },
		func(g notify.Group) { yes = yes || g.Kind == notify.Prefix && strings.HasPrefix(key, g.Name) }, func() { yes = true })
	return yes || err != nil
}

// namesGroup says whether a payload names a group, or everything.
func namesGroup(payload string) (yes bool) {
	m, err := notify.Parse(payload)
	if err != nil {
		return true // every node forgets everything
	}
	err = m.Items(func(string, []int64) {}, func(notify.Group) { yes = true }, func() { yes = true })
	return yes || err != nil
}

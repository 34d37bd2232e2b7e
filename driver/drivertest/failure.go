package drivertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgcache/go/pgcache"
)

type call struct {
	op, key string
	run     func(ctx context.Context, n node) error
}

// calls are all operations that send statements; key is what their errors name.
var calls = []call{
	{"get", "it's", func(ctx context.Context, n node) error {
		var got []byte
		_, err := n.Get(ctx, "it's", &got)
		return err
	}},
	{"set", "it's", func(ctx context.Context, n node) error { return n.Set(ctx, "it's", []byte{}) }},
	{"get or set", "it's", func(ctx context.Context, n node) error {
		var got []byte
		return n.GetOrSet(ctx, "it's", &got, func(context.Context) (any, error) { return []byte{}, nil })
	}},
	{"delete", "it's", func(ctx context.Context, n node) error { return n.Delete(ctx, "it's") }},
	{"delete", "", func(ctx context.Context, n node) error { return n.Delete(ctx, "a", "b") }},
	{"get many", "", func(ctx context.Context, n node) error {
		_, err := pgcache.For[[]byte](n.Cache).GetMany(ctx, []string{"a", "b"})
		return err
	}},
	{"set many", "", func(ctx context.Context, n node) error {
		return pgcache.For[[]byte](n.Cache).SetMany(ctx, map[string][]byte{"a": {}, "b": {}})
	}},
	{"get or set many", "", func(ctx context.Context, n node) error {
		_, err := pgcache.For[[]byte](n.Cache).GetOrSetMany(ctx, []string{"a", "b"}, func(context.Context, []string) (map[string][]byte, error) {
			return map[string][]byte{"a": {}}, nil
		})
		return err
	}},
	{"clear", "", func(ctx context.Context, n node) error { return n.Clear(ctx) }},
	{"cleanup", "", func(ctx context.Context, n node) error {
		_, err := n.Cleanup(ctx)
		return err
	}},
}

// wantError checks that err is of cause and names the operation and the key.
func (c call) wantError(t *testing.T, err, cause error) {
	t.Helper()
	if !errors.Is(err, cause) {
		t.Errorf("%s: %v, want %v", c.op, err, cause)
		return
	}
	var e *pgcache.Error
	if !errors.As(err, &e) || e.Op != c.op || e.Key != c.key && c.key != "" { // of several keys it may name one
		t.Errorf("%s of %q: %+v", c.op, c.key, e)
	}
	text := "pgcache: " + c.op
	if e.Key != "" {
		text += fmt.Sprintf(" %q", e.Key)
	}
	if !strings.HasPrefix(err.Error(), text+": ") {
		t.Errorf("the error reads %q, want %q and the cause", err, text)
	}
}

// contexts: a caller whose context has ended gets that as the cause, at once, and nobody else suffers.
func contexts(t *testing.T, b *bundle) {
	n := b.node(forgetful)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	over, done := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer done()
	for _, c := range calls {
		c.wantError(t, c.run(cancelled, n), context.Canceled)
		c.wantError(t, c.run(over, n), context.DeadlineExceeded)
		must(t, c.run(t.Context(), n))
	}
}

// lockTable keeps everybody out of the table until unlock.
func (b *bundle) lockTable() (unlock func()) {
	b.t.Helper()
	tx, err := b.look.BeginTx(b.t.Context(), nil)
	must(b.t, err)
	_, err = tx.ExecContext(b.t.Context(), "LOCK TABLE "+b.table()+" IN ACCESS EXCLUSIVE MODE")
	must(b.t, err)
	return func() { tx.Rollback() }
}

// noAnswer: a statement that hangs ends with the caller's context or with Timeout, and the pool is fine afterwards.
func noAnswer(t *testing.T, b *bundle) {
	const limit = 300 * time.Millisecond
	patient, hasty := b.node(forgetful), b.start(func(o *pgcache.Options) { forgetful(o); o.Timeout = limit })
	for _, n := range []node{patient, hasty} {
		n.connect(t, 2*len(calls)) // it is the statements that hang, not the dialling
		eventually(t, "the schema is found", func() bool { return n.Ready(t.Context()) == nil })
	}
	unlock := b.lockTable()
	var wg sync.WaitGroup
	for _, c := range calls {
		wg.Go(func() {
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			err := c.run(ctx, patient)
			if err != nil || !strings.HasPrefix(c.op, "get or set") { // which may just have had the time to load
				c.wantError(t, err, context.DeadlineExceeded)
			}
			if took := time.Since(began); took > 10*time.Second { // Timeout is a minute
				t.Errorf("%s: took %v to return after its context had ended", c.op, took-limit)
			}
		})
		if strings.HasPrefix(c.op, "get or set") {
			continue // loads and returns, without the database
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err := c.run(ctx, hasty)
			if e := new(pgcache.Error); !errors.As(err, &e) || !strings.Contains(err.Error(), "Timeout") || ctx.Err() != nil {
				t.Errorf("%s: %v does not name the option", c.op, err)
			}
		})
	}
	wg.Wait()
	unlock()
	for _, c := range calls {
		if err := c.run(t.Context(), patient); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
	for _, n := range []node{patient, hasty} {
		eventually(t, "no connection is in use but the lock session", func() bool { return n.db.Stats().InUse <= 1 })
	}
}

// sessionsLost: the server ends all sessions of a node, as in a restart. What can be sent again is, the listener comes
// back, and the local cache with it.
func sessionsLost(t *testing.T, b *bundle) {
	ctx := t.Context()
	n, other := b.node(nil), b.node(nil)
	lose := func() {
		t.Helper()
		// A few idle connections in the pool, and the lock session.
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				var got []byte
				_ = n.GetOrSet(ctx, fmt.Sprint("absent ", i), &got, func(context.Context) (any, error) { return nil, pgcache.ErrNotFound })
			})
		}
		wg.Wait()
		b.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1::text", n.name)
	}
	for _, c := range calls {
		lose()
		if c.op == "clear" || c.op == "cleanup" { // are sent once
			eventually(t, "the pool has dropped what is dead", func() bool { return c.run(ctx, n) == nil })
		} else if err := c.run(ctx, n); err != nil {
			t.Errorf("after all sessions were lost: %v", err)
		}
		n.ready(t)
		must(t, other.Set(ctx, "k", []byte(c.op)))
		n.sees(t, "k", []byte(c.op))
		n.inMemory(t, "k")
		must(t, other.Set(ctx, "k", []byte("again")))
		n.sees(t, "k", []byte("again"))
	}
}

// closed: after Close nothing of the cache is left, and the pool is as it was.
func closed(t *testing.T, b *bundle) {
	ctx := t.Context()
	n := b.node(nil)
	for _, c := range calls {
		must(t, c.run(ctx, n))
	}
	var got []byte // opens the lock session
	must(t, n.GetOrSet(ctx, "absent", &got, func(context.Context) (any, error) { return []byte{}, nil }))
	var wg sync.WaitGroup
	for _, c := range calls { // closed while in use
		wg.Go(func() {
			for {
				if err := c.run(ctx, n); err != nil {
					c.wantError(t, err, pgcache.ErrClosed)
					return
				}
			}
		})
	}
	must(t, n.Close())
	must(t, n.Close())
	wg.Wait()
	for _, c := range calls {
		c.wantError(t, c.run(ctx, n), pgcache.ErrClosed)
	}
	if use := n.db.Stats().InUse; use != 0 {
		t.Errorf("%d connections are in use after Close", use)
	}
	must(t, n.db.PingContext(ctx))
	must(t, n.db.Close())
	eventually(t, "no session is left", func() bool { return b.sessions(n.name) == 0 })
}

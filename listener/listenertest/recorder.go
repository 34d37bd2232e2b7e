package listenertest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/pgcache"
)

var errProbe = errors.New("the pool is exhausted")

// recorder is a Subscriber that remembers the calls of its methods and checks that the order makes sense.
type recorder struct {
	channel string
	probe   func(ctx context.Context, nonce string) error
	busy    atomic.Bool // one of Trust, Notify and Down runs
	slow    atomic.Bool // Notify takes its time

	mu      sync.Mutex
	changed chan struct{} // closed and replaced with every event
	events  []event
	counts  map[kind]int
	nonce   string
	echoed  bool // since the last Down
	broken  []string
	closed  bool
}

type event struct {
	kind    kind
	payload string
	err     error
	at      time.Time // when it came; of a Trust until when
}

type kind string

const (
	trust  kind = "Trust"
	notify kind = "Notify"
	down   kind = "Down"
)

func (b *bundle) recorder(n int) *recorder {
	r := &recorder{channel: b.channel(n), changed: make(chan struct{}), counts: map[kind]int{}}
	r.probe = func(ctx context.Context, nonce string) error { return b.probe(ctx, b.db, r.channel, nonce) }
	return r
}

func (b *bundle) probe(ctx context.Context, db *sql.DB, channel, nonce string) error {
	_, err := db.ExecContext(ctx, "SELECT pg_notify($1, $2)", channel, pgcache.ProbePrefix+nonce+"and more")
	return err
}

// Probe implements pgcache.Subscriber.
func (r *recorder) Probe(ctx context.Context, nonce string) error {
	r.mu.Lock()
	if r.nonce != "" && len(nonce) != len(r.nonce) || nonce == r.nonce {
		r.broken = append(r.broken, fmt.Sprintf("nonce %q follows %q", nonce, r.nonce))
	}
	r.nonce = nonce
	r.mu.Unlock()
	return r.probe(ctx, nonce)
}

// Trust implements pgcache.Subscriber.
func (r *recorder) Trust(until time.Time) {
	r.record(event{kind: trust, at: until}, func() string {
		if !r.echoed {
			return "Trust before the probe's echo"
		}
		return ""
	})
}

// Notify implements pgcache.Subscriber.
func (r *recorder) Notify(payload string) {
	if r.slow.Load() {
		for start := time.Now(); time.Since(start) < 50*time.Microsecond; { // which is less than a sleep can be
		}
	}
	r.record(event{kind: notify, payload: payload, at: time.Now()}, func() string {
		if r.nonce != "" && strings.HasPrefix(payload, pgcache.ProbePrefix+r.nonce) {
			r.echoed = true
		}
		return ""
	})
}

// Down implements pgcache.Subscriber.
func (r *recorder) Down(err error) {
	r.record(event{kind: down, err: err, at: time.Now()}, func() string {
		r.echoed = false
		if err == nil {
			return "Down(nil)"
		}
		return ""
	})
}

// record appends e, unless check says what is wrong with it.
func (r *recorder) record(e event, check func() string) {
	alone := r.busy.CompareAndSwap(false, true)
	defer r.busy.Store(false)
	r.mu.Lock()
	defer r.mu.Unlock()
	fault := check()
	switch {
	case !alone:
		fault = fmt.Sprintf("%s while another method runs", e.kind)
	case r.closed:
		fault = fmt.Sprintf("%s after Listen returned", e.kind)
	}
	if fault != "" {
		r.broken = append(r.broken, fault)
	}
	r.events = append(r.events, e)
	r.counts[e.kind]++
	close(r.changed)
	r.changed = make(chan struct{})
}

// close says that Listen has returned, and reports what was wrong.
func (r *recorder) close(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, fault := range r.broken {
		t.Error(fault)
	}
	r.broken = nil
}

// mark returns a place in the record: what comes now comes after it.
func (r *recorder) mark() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.events)
}

func (r *recorder) count(k kind) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[k]
}

// await returns the first event after mark of the kind, and its own place. A payload, when there is one, has to match.
func (r *recorder) await(t *testing.T, mark int, k kind, payload ...string) (event, int) {
	t.Helper()
	return r.first(t, mark, fmt.Sprintf("%s %q", k, payload), func(e event) bool {
		return e.kind == k && (len(payload) == 0 || e.payload == payload[0])
	})
}

// first returns the first event after mark that is one of those waited for, and its own place.
func (r *recorder) first(t *testing.T, mark int, what string, is func(e event) bool) (event, int) {
	t.Helper()
	timeout := time.After(patience)
	for {
		r.mu.Lock()
		events, changed := r.events, r.changed
		r.mu.Unlock()
		for i, e := range events[mark:] {
			if is(e) {
				return e, mark + i + 1
			}
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("waited in vain for %s; the last Down was for: %v", what, r.last(down).err)
		}
	}
}

// live waits for the first Trust after mark.
func (r *recorder) live(t *testing.T, mark int) int {
	t.Helper()
	_, mark = r.await(t, mark, trust)
	return mark
}

// never fails if there has been an event of the kind since mark.
func (r *recorder) never(t *testing.T, mark int, k kind) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events[mark:] {
		if e.kind == k {
			t.Errorf("unexpected %s: %q %v", k, e.payload, e.err)
		}
	}
}

// payloads returns what was notified since mark, without probes.
func (r *recorder) payloads(mark int) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var received []string
	for _, e := range r.events[mark:] {
		if e.kind == notify && !strings.HasPrefix(e.payload, pgcache.ProbePrefix) {
			received = append(received, e.payload)
		}
	}
	return received
}

// last returns the last event of the kind, or none.
func (r *recorder) last(k kind) (e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.events {
		if o.kind == k {
			e = o
		}
	}
	return e
}

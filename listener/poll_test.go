package listener_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// polled is a poller that answers by a script, and remembers what happens to it, and when.
type polled struct {
	start func() error                                // of the nth StartPolling
	next  func(ctx context.Context) ([]string, error) // nil: nothing is new

	mu     sync.Mutex
	began  time.Time
	events []string
}

func (p *polled) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, fmt.Sprint(time.Since(p.began), " ")+fmt.Sprintf(format, args...))
}

// now runs change, of the script or to read what it shares, under the lock that next and start run under.
func (p *polled) now(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *polled) happened() (events []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	events, p.events = p.events, nil
	return events
}

func (p *polled) Probe(context.Context, string) error { return errors.New("nobody probes a poller") }

func (p *polled) Trust(trusted time.Time) { p.note("trust %v", trusted.Sub(p.began)) }

func (p *polled) Notify(payload string) { p.note("%s", payload) }

func (p *polled) Down(err error) { p.note("down: %v", err) }

func (p *polled) StartPolling(context.Context) (func(context.Context) ([]string, error), error) {
	time.Sleep(20 * time.Millisecond)
	p.note("start")
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.start != nil {
		if err := p.start(); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context) ([]string, error) {
		time.Sleep(10 * time.Millisecond)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.next == nil {
			return nil, nil
		}
		return p.next(ctx)
	}, nil
}

// polling runs test in a bubble, while l polls p.
func polling(t *testing.T, l pgcache.Listener, p *polled, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p.began = time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Listen(ctx, "c", p) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Listen returned %v when its context ended", err)
			}
		}()
		test(t)
		synctest.Wait()
	})
}

// TestPollTrust: an answer is trusted from the moment that it was asked for, for an interval and the time that the next
// may take; and only when it has been applied.
func TestPollTrust(t *testing.T) {
	t.Parallel()
	answers := [][]string{{"a", "b"}, nil, {"c"}}
	p := &polled{next: func(context.Context) ([]string, error) {
		if len(answers) == 0 {
			return nil, nil
		}
		now := answers[0]
		answers = answers[1:]
		return now, nil
	}}
	polling(t, listener.Poll(50*time.Millisecond), p, func(t *testing.T) {
		time.Sleep(201 * time.Millisecond)
		want := []string{
			"20ms start", "20ms trust 1.05s",
			"80ms a", "80ms b", "80ms trust 1.12s",
			"140ms trust 1.18s",
			"200ms c", "200ms trust 1.24s",
		}
		if d := cmp.Diff(want, p.happened()); d != "" {
			t.Error(d)
		}
	})
}

// TestPollInterval: a hundred milliseconds unless said otherwise, and nothing senseless.
func TestPollInterval(t *testing.T) {
	t.Parallel()
	for every, trusts := range map[time.Duration]int{0: 9, 10 * time.Millisecond: 48, 30 * time.Second: 1} {
		p := &polled{}
		polling(t, listener.Poll(every), p, func(t *testing.T) {
			time.Sleep(time.Second)
			if n := strings.Count(strings.Join(p.happened(), "\n"), "trust"); n < trusts || n > trusts+2 {
				t.Errorf("every %v: %d answers in a second, want about %d", every, n, trusts)
			}
		})
	}
	for _, every := range []time.Duration{-1, -time.Second, 1, time.Millisecond - 1, 30*time.Second + 1} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // if it should go on
		err := listener.Poll(every).Listen(ctx, "c", &polled{})
		cancel()
		if err == nil || !strings.HasPrefix(err.Error(), "pgcache: ") || !strings.Contains(err.Error(), every.String()) {
			t.Errorf("every %v: %v", every, err)
		}
	}
	if err := listener.Poll(0).Listen(t.Context(), "c", &node{}); err == nil || !strings.HasPrefix(err.Error(), "pgcache: ") {
		t.Errorf("a Subscriber that can't be polled: %v", err)
	}
}

// TestPollStartsAgain: an error is reported once, and then it starts again, after a pause that grows as long as it does not
// help.
func TestPollStartsAgain(t *testing.T) {
	t.Parallel()
	refused, gap := errors.New("refused"), errors.New("a gap")
	p := &polled{}
	failing := true
	p.start = func() error {
		if failing { // under p.mu
			return refused
		}
		return nil
	}
	polling(t, listener.Poll(0), p, func(t *testing.T) {
		time.Sleep(time.Minute)
		synctest.Wait()
		events := p.happened()
		if n := len(events); n < 20 || n > 80 { // 0.1, 0.2, 0.4 ... 5 s, each times a random part
			t.Errorf("%d events in a minute", n)
		}
		for i, e := range events {
			if want := []string{"start", "down: refused"}[i%2]; !strings.HasSuffix(e, want) {
				t.Errorf("event %d is %q, want %q", i, e, want)
			}
		}
		p.now(func() { failing = false })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if e := p.happened(); len(e) < 40 || !strings.Contains(e[len(e)-1], "trust") {
			t.Errorf("it does not go on: %q", e)
		}
		lost := true
		p.now(func() {
			p.next = func(context.Context) ([]string, error) {
				if lost {
					lost = false
					return []string{"not to be trusted"}, gap
				}
				return nil, nil
			}
		})
		time.Sleep(time.Second)
		synctest.Wait()
		var kinds []string
		for _, e := range p.happened() {
			if _, e, _ = strings.Cut(e, " "); !strings.HasPrefix(e, "trust") {
				kinds = append(kinds, e)
			}
		}
		if d := cmp.Diff([]string{"down: poll: a gap", "start"}, kinds); d != "" {
			t.Error(d)
		}
	})
}

// TestPollSessionsThatWork: a session that answered is no failure. However often one ends, the next begins at once.
func TestPollSessionsThatWork(t *testing.T) {
	t.Parallel()
	polls := 0
	p := &polled{next: func(context.Context) ([]string, error) {
		if polls++; polls%2 == 0 { // under p.mu
			return nil, errors.New("a gap")
		}
		return nil, nil
	}}
	polling(t, listener.Poll(0), p, func(t *testing.T) {
		time.Sleep(time.Minute)
		synctest.Wait()
		p.now(func() {
			if polls < 200 { // two in at most 0.34 s
				t.Errorf("%d polls in a minute", polls)
			}
		})
	})
}

// TestPollEnds: it ends with its context, also in the middle of something, and calls nobody.
func TestPollEnds(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]time.Duration{
		"while it starts": 10 * time.Millisecond, "between two": 50 * time.Millisecond, "while it asks": 125 * time.Millisecond,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &polled{next: func(ctx context.Context) ([]string, error) { return nil, ctx.Err() }}
			polling(t, listener.Poll(0), p, func(*testing.T) { time.Sleep(after) })
			for _, e := range p.happened() {
				if strings.Contains(e, "down") {
					t.Error(e)
				}
			}
		})
	}
}

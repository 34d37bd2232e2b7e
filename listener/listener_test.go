package listener

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	standard := Config{
		HeartbeatEvery: 2 * time.Second, HeartbeatTimeout: time.Second, ProbeTimeout: 5 * time.Second,
		DialTimeout: 10 * time.Second, BackoffMin: 50 * time.Millisecond, BackoffMax: 5 * time.Second,
	}
	for name, test := range map[string]struct {
		given, want Config
		err         string
	}{
		"zero":         {want: standard},
		"its own":      {given: standard, want: standard},
		"long minimum": {given: Config{BackoffMin: time.Hour}, want: with(standard, func(c *Config) { c.BackoffMin, c.BackoffMax = time.Hour, time.Hour })},
		"negative":     {given: Config{ProbeTimeout: -1}, err: "negative Config.ProbeTimeout: -1ns"},
		"crossed":      {given: Config{BackoffMin: 2, BackoffMax: 1}, err: "a Config.BackoffMin (2ns) above BackoffMax (1ns)"},
	} {
		got, err := test.given.withDefaults()
		if err != nil {
			if err.Error() != test.err {
				t.Errorf("%s: error %q, want %q", name, err, test.err)
			}
			continue
		}
		got.Logger = nil
		if diff := cmp.Diff(test.want, got); diff != "" || test.err != "" {
			t.Errorf("%s: %s (error %q wanted)", name, diff, test.err)
		}
	}
	own := slog.New(slog.DiscardHandler)
	if got, _ := (Config{Logger: own}).withDefaults(); got.Logger != own {
		t.Error("another Logger than the given one")
	}
}

func with(c Config, change func(*Config)) Config {
	change(&c)
	return c
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	b := newBackoff(8, 50)
	for _, bound := range []time.Duration{8, 16, 32, 50, 50} {
		seen := map[bool]bool{}
		for range 1000 {
			d := b.delay()
			if d < 0 || d > bound {
				t.Fatalf("delay %v, want 0 to %v", d, bound)
			}
			seen[d > bound/2] = true
		}
		if len(seen) != 2 {
			t.Errorf("all delays lie in one half of 0 to %v", bound)
		}
		b.grow()
	}
	b.reset()
	if d := b.delay(); d > 8 {
		t.Errorf("delay %v after reset, want at most 8ns", d)
	}
}

func TestNonsense(t *testing.T) {
	t.Parallel()
	never := Dial(func(context.Context, func(string, string)) (Conn, error) {
		return nil, Permanent(io.ErrUnexpectedEOF)
	})
	sub := subscriber{}
	for want, call := range map[string]func() error{
		"the Dial is nil":               func() error { return New(nil, Config{}).Listen(t.Context(), "c", sub) },
		"the Subscriber is nil":         func() error { return New(never, Config{}).Listen(t.Context(), "c", nil) },
		"must be comparable":            func() error { return Shared([]int{}, never, Config{}).Listen(t.Context(), "c", sub) },
		"negative Config.DialTimeout":   func() error { return New(never, Config{DialTimeout: -1}).Listen(t.Context(), "c", sub) },
		`listen on "c": unexpected EOF`: func() error { return New(never, Config{}).Listen(t.Context(), "c", sub) },
	} {
		err := call()
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), `pgcache: listen on "c": `) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

// subscriber receives nothing.
type subscriber struct{}

func (subscriber) Probe(context.Context, string) error { return nil }
func (subscriber) Trust(time.Time)                     {}
func (subscriber) Notify(string)                       {}
func (subscriber) Down(error)                          {}

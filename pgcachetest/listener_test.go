package pgcachetest_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/listener/listenertest"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

// A Listener that is not stopped passes the tests of the listener inside it.
func TestListener(t *testing.T) {
	listenertest.Test(t, func(_ testing.TB, dsn string, cfg listener.Config) pgcache.Listener {
		return pgcachetest.NewListener(listener.New(pgxdriver.DialDSN(dsn), cfg))
	})
}

func TestStoppedListener(t *testing.T) {
	t.Parallel()
	for name, inner := range map[string]pgcache.Listener{
		"listen": nil, "poll": listener.Poll(20 * time.Millisecond), "late": newLate(t),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := pgcachetest.Nodes(t, 2, pgcache.Options{Listener: inner, InvalidationWindow: time.Minute})
			a, b := nodes[0].Cache, nodes[1].Cache
			set(t, a, "k", 1)
			if !kept(t, b, "k", 1) {
				t.Fatal("nothing is kept in memory")
			}
			for i := range 3 {
				nodes[1].Listener.Stop()
				nodes[1].Listener.Stop()
				before := b.Stats().LocalHits
				set(t, a, "k", 2+i)
				want(t, b, "k", 2+i) // at once: it asks
				want(t, b, "k", 2+i)
				pgcachetest.Sync(t, b)
				if b.Stats().LocalHits != before {
					t.Error("answered from memory without a listener")
				}
				nodes[1].Listener.Start()
				nodes[1].Listener.Start()
				ready(t, b)
				if !kept(t, b, "k", 2+i) {
					t.Error("nothing is kept in memory after Start")
				}
			}
			if !kept(t, a, "k", 4) {
				t.Error("the other node's listener was stopped too")
			}
		})
	}
}

// late is a Listener that delivers late and ends late. Each cache has a connection of its own, so that one may be later than another.
type late struct{ connect func() pgcache.Listener }

func newLate(t *testing.T) late {
	db := pgcachetest.DB(t)
	return late{func() pgcache.Listener { return listener.New(pgxdriver.Dial(db), listener.Config{}) }}
}

const lateBy = 30 * time.Millisecond

func (l late) Listen(ctx context.Context, channel string, sub pgcache.Subscriber) error {
	defer time.Sleep(lateBy)
	return l.connect().Listen(ctx, channel, lateSubscriber{sub})
}

type lateSubscriber struct{ pgcache.Subscriber }

func (s lateSubscriber) Notify(payload string) {
	time.Sleep(rand.N(2 * lateBy))
	s.Subscriber.Notify(payload)
}

func TestCloseOfAStoppedListener(t *testing.T) {
	t.Parallel()
	n := pgcachetest.Nodes(t, 1, pgcache.Options{})[0]
	n.Listener.Stop()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// fails is a listener that can never work.
type fails struct{ err error }

func (f fails) Listen(context.Context, string, pgcache.Subscriber) error { return f.err }

func TestListenerThatEnds(t *testing.T) {
	t.Parallel()
	for _, err := range []error{errors.New("never"), nil} {
		if got := pgcachetest.NewListener(fails{err}).Listen(t.Context(), "c", nil); !errors.Is(got, err) {
			t.Errorf("got %v, want %v", got, err)
		}
	}
}

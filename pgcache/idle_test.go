package pgcache_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/internal/inside"
	"github.com/pgcache/go/pgcache"
)

// pulses counts the pulses of a node.
type pulses struct{ n atomic.Int64 }

func (*pulses) Open(func() pgcache.Stats) func() { return nil }
func (*pulses) Event(pgcache.Event)              {}

func (p *pulses) Begin(ctx context.Context, op pgcache.Op) (context.Context, func(pgcache.Outcome)) {
	if op.Name == "pulse" {
		p.n.Add(1)
	}
	return ctx, nil
}

// A node that nobody reads through hardly asks the database anything, is Ready all the same, and serves from memory again
// soon after the next read: but nothing of what it held, because changes may have been left in the log meanwhile.
func TestIdle(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("idles for 8 s")
	}
	cl := newCluster(t)
	var asked pulses
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.Observer = &asked })
	set(t, c, "k", 1)
	set(t, c, "other", 1)
	warm(t, c, "k", 1)
	warm(t, c, "other", 1)
	inside.Of(c).IdleAfter(time.Second)
	eventually(t, "it is idle", func() bool { return inside.Of(c).State().Idle })
	before := asked.n.Load()

	// What a lost node leaves in the log is published by whoever wakes first: here nobody has heard of it yet.
	cl.exec("UPDATE " + cl.table() + " SET version = 2, stamp = 2, value = '2' WHERE key = 'k'")
	time.Sleep(8 * time.Second)
	if n := asked.n.Load() - before; n > 1 {
		t.Errorf("%d pulses of an idle node in 8 s", n)
	}
	if err := c.Ready(t.Context()); err != nil || !inside.Of(c).State().Idle {
		t.Errorf("an idle node: Ready says %v, and its state is %+v", err, inside.Of(c).State())
	}
	findings, err := c.Doctor(t.Context())
	for _, f := range findings {
		if f.ID == "listener" {
			t.Errorf("an idle node is no finding: %v", f)
		}
	}
	if err != nil {
		t.Error(err)
	}

	inside.Of(c).IdleAfter(time.Hour)
	warm(t, c, "other", 1) // wakes it, and is served from memory again
	want(t, c, "k", 2)
	before = asked.n.Load()
	eventually(t, "it pulses again", func() bool { return asked.n.Load() > before+1 })
}

// Hits in memory alone keep a node from being idle, and so does a program that is told of invalidations.
func TestIdle_Used(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	read := cl.node(nil)
	told := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.OnInvalidate = func([]string) {} })
	set(t, read, "k", 1)
	warm(t, read, "k", 1)
	const after = 2 * time.Second
	for _, c := range []*pgcache.Cache{read, told} {
		inside.Of(c).IdleAfter(after)
	}
	inTime(t, func() error {
		worst, last := time.Duration(0), time.Now()
		for range 60 {
			want(t, read, "k", 1)
			worst, last = max(worst, time.Since(last)), time.Now()
			if inside.Of(told).State().Idle {
				t.Fatal("a node that is told of invalidations is idle")
			}
			if inside.Of(read).State().Idle {
				return fmt.Errorf("a node that is read every %v is idle", worst) // where the machine stalls it is, and rightly
			}
			time.Sleep(100 * time.Millisecond)
		}
		return nil
	})
}

// The pool answers an idle node's pulse late, as where it has to connect to a busy server: the node asks again soon, and is Ready.
func TestIdle_PulseFails(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("idles for 6 s")
	}
	cl := newCluster(t)
	c, w := cl.wired(nil)
	idle := func() bool { return inside.Of(c).State().Idle }
	inside.Of(c).IdleAfter(0)
	eventually(t, "it is idle", idle)
	time.Sleep(6 * time.Second) // until the pool is to be looked at again
	late := w.before(named("Server"))
	if err := c.Migrate(t.Context()); err != nil { // wakes the pulse, and is no read
		t.Fatal(err)
	}
	late.wait(t)
	eventually(t, "a pulse has failed", func() bool { return inside.Of(c).State().Err != nil })
	late.release()
	began := time.Now()
	eventually(t, "it is idle again", idle)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("for %v an idle node was not ready after a pulse that failed", took)
	}
}

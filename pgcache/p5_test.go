package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// P5: before a listener has proved itself, and without one, every Get asks the database by itself.
func TestP5_NothingProven(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, o *pgcache.Options){
		"no listener": func(_ *testing.T, o *pgcache.Options) { o.Listener = nil },
		"a listener that gets no answer": func(t *testing.T, o *pgcache.Options) {
			link := testdb.NewProxy(t, testdb.DSN(t))
			link.Freeze()
			o.Listener = pgxdriver.ListenerDSN(link.DSN())
		},
		"a listener in another database": func(t *testing.T, o *pgcache.Options) {
			o.Listener = listener.New(pgxdriver.DialDSN(testdb.WithParam(testdb.DSN(t), "dbname", "template1")), listener.Config{Logger: o.Logger})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			a := cl.node(nil)
			db, w := openWire(t, "pgx", testdb.DSN(t))
			b := cl.new(db, func(o *pgcache.Options) { change(t, o) })
			const n = 20
			for v := range n {
				set(t, a, "k", v)
				want(t, b, "k", v)
			}
			set(t, b, "k", n) // nor does what it wrote itself stay
			want(t, b, "k", n)
			set(t, a, "k", n+1)
			want(t, b, "k", n+1)
			if sent := w.count(named("GetEntry")); sent != n+2 {
				t.Errorf("%d Gets sent %d statements", n+2, sent)
			}
			if s := b.Stats(); s.LocalHits != 0 {
				t.Errorf("%d hits in memory", s.LocalHits)
			}
			held := w.after(named("GetEntry"))
			first := async(t, func() string { v, _ := get[int](t, b, "k"); return outcome(v, nil) })
			held.wait(t)
			_ = w.unstopped(func() error { want(t, b, "k", n+1); return nil }) // and joins nobody
			held.release()
			first()
		})
	}
}

// P5: not provably live, every Get asks the database, also while a read of the same key is under way.
func TestP5_NotLive(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.node(nil)
	link := testdb.NewProxy(t, testdb.DSN(t))
	b, wire := cl.wired(func(o *pgcache.Options) { o.Listener = pgxdriver.ListenerDSN(link.DSN()) })
	set(t, a, "k", 0)
	warm(t, b, "k", 0)
	before := b.Stats()
	link.Cut()
	eventually(t, "b knows", func() bool { return b.Stats().LocalFlushes > before.LocalFlushes })
	before = b.Stats()
	for v := 1; v <= 20; v++ {
		set(t, a, "k", v)
		want(t, b, "k", v)
	}
	if s := b.Stats(); s.LocalHits != before.LocalHits || s.RemoteHits != before.RemoteHits+20 {
		t.Errorf("before %+v, after %+v", before, s)
	}
	// Nothing is published now that would kill a read, so nobody may join one. (Slow ones are never joined: be quick.)
	var first func() error
	var reply *stop
	for v := 21; v < 31; v++ {
		reply = wire.after(named("GetEntry"))
		first = async(t, func() error { _, err := b.Get(t.Context(), "k", new(int)); return err })
		reply.wait(t)
		set(t, a, "k", v)
		_ = wire.unstopped(func() error { want(t, b, "k", v); return nil })
		reply.release()
		if err := first(); err != nil {
			t.Fatal(err)
		}
	}
	// What was read while it was down, is not in memory when it is live again.
	reply = wire.after(named("GetEntry"))
	first = async(t, func() error { _, err := b.Get(t.Context(), "k", new(int)); return err })
	reply.wait(t)
	set(t, a, "k", 32)
	link.Restore()
	cl.ready(b)
	reply.release()
	if err := first(); err != nil {
		t.Fatal(err)
	}
	want(t, b, "k", 32)
	warm(t, b, "k", 32)
	// Nor what was written before it was down, if it is received only after.
	reply = wire.after(named("PutEntry"))
	first = async(t, func() error { return b.Set(t.Context(), "k", 33) })
	reply.wait(t)
	before = b.Stats()
	link.Cut()
	eventually(t, "b knows", func() bool { return b.Stats().LocalFlushes > before.LocalFlushes })
	set(t, a, "k", 34)
	eventually(t, "the log is flushed", func() bool { // by a, as b does not receive it
		return cl.count("SELECT count(*) FROM "+cl.object("cache_changes")) == 0
	})
	link.Restore()
	cl.ready(b)
	reply.release()
	if err := first(); err != nil {
		t.Fatal(err)
	}
	want(t, b, "k", 34)
}

// scripted is a listener that does what a test says, and receives nothing.
type scripted struct{ trusted chan time.Time }

func (l scripted) Listen(ctx context.Context, _ string, sub pgcache.Subscriber) error {
	for {
		select {
		case t := <-l.trusted:
			sub.Trust(t)
		case <-ctx.Done():
			return nil
		}
	}
}

// P5 where the listener itself does not come to say that it is down: a process that was stopped, or is too busy.
func TestP5_Silence(t *testing.T) {
	t.Parallel()
	const silence = 300 * time.Millisecond
	cl := newCluster(t)
	a := cl.on(testdb.DB(t), nil)
	beats := scripted{make(chan time.Time)}
	b := cl.new(testdb.DB(t), func(o *pgcache.Options) { o.Listener = beats })
	set(t, a, "k", 1)
	want(t, b, "k", 1)
	want(t, b, "k", 1)
	if n := b.Stats().LocalHits; n != 0 {
		t.Errorf("%d hits before the first beat", n)
	}
	beats.trusted <- time.Now().Add(time.Minute)
	warm(t, b, "k", 1)
	trusted := time.Now().Add(silence)
	beats.trusted <- trusted
	set(t, a, "k", 2)
	time.Sleep(time.Until(trusted))
	before := b.Stats().LocalHits
	want(t, b, "k", 2)
	want(t, b, "k", 2)
	if n := b.Stats().LocalHits; n != before {
		t.Errorf("%d hits after the silence", n-before)
	}
	// What was read meanwhile is not in memory either, and with the next beat all is well.
	beats.trusted <- time.Now().Add(time.Minute)
	warm(t, b, "k", 2)
}

// echoes is a listener that can bring the echo of a probe from another server.
type echoes struct {
	pgcache.Listener
	sub atomic.Value
}

func (l *echoes) Listen(ctx context.Context, channel string, sub pgcache.Subscriber) error {
	l.sub.Store(sub)
	return l.Listener.Listen(ctx, channel, sub)
}

func (l *echoes) echo(server int) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	const nonce = "of another server:"
	sub := l.sub.Load().(pgcache.Subscriber)
	_ = sub.Probe(ended, nonce) // it is not sent
	sub.Notify(pgcache.ProbePrefix + nonce + fmt.Sprint(":", server))
}

// P5 where rows come from another server than notifications, as after a failover: memory is off until the listener has
// begun anew. (The identity of the server comes with the echo of a probe.)
func TestP5_AnotherServer(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.on(testdb.DB(t), nil) // it has no listener, and so no probe
	var received echoes
	b := cl.node(func(db *sql.DB, o *pgcache.Options) {
		received.Listener = pgxdriver.Listener(db)
		o.Listener = &received
	})
	within := func(use func(x *pgcache.Tx) error) func() error {
		return func() error {
			tx := begin(t, cl.db, sql.LevelDefault)
			return errors.Join(use(b.WithTx(tx)), tx.Rollback())
		}
	}
	for name, use := range map[string]func() error{
		"Get":           func() error { _, err := b.Get(t.Context(), "other", new(int)); return err },
		"GetMany":       func() error { _, err := pgcache.For[int](b).GetMany(t.Context(), []string{"other"}); return err },
		"Set":           func() error { return b.Set(t.Context(), "other", 1) },
		"Tx.Get":        within(func(x *pgcache.Tx) error { _, err := x.Get(t.Context(), "other", new(int)); return err }),
		"Tx.Set":        within(func(x *pgcache.Tx) error { return x.Set(t.Context(), "other", 1) }),
		"Tx.DeleteTags": within(func(x *pgcache.Tx) error { return x.DeleteTags(t.Context(), "other") }),
	} {
		set(t, a, "k", 1)
		set(t, a, "other", 1)
		caughtUp := cl.follow(a, b, nil)
		warm(t, b, "k", 1)
		del(t, b, "other")
		set(t, a, "other", 1)
		caughtUp()
		before := b.Stats().LocalFlushes
		received.echo(123) // no read of b's between this and use: it would notice
		if err := use(); err != nil {
			t.Fatal(err)
		}
		if n := b.Stats().LocalFlushes; n == before {
			t.Errorf("%s: a row of another server, and b trusts its listener", name)
		}
		eventually(t, "b is live again", func() bool { return b.Ready(t.Context()) == nil })
		warm(t, b, "k", 1)
	}
}

// A load whose look at the rows failed has no fence. Who comes after a Delete must not get what it loaded before:
//
//	load 1: its look fails, the loader reads the source       the source changes, Delete
//	                                                          load 2 begins, and the database answers it
func TestP5_LoadWithoutFence(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.node(nil)
	b, wire := cl.wired(func(o *pgcache.Options) { o.Listener, o.Guard = nil, pgcache.NoGuard() })
	source := atomic.Int64{}
	reading, resume := make(chan struct{}), make(chan struct{})
	lost := wire.lose(named("Look"), io.ErrUnexpectedEOF)
	first := async(t, func() error {
		var v int64
		return b.GetOrSet(t.Context(), "k", &v, func(context.Context) (any, error) {
			old := source.Load()
			close(reading)
			<-resume
			return old, nil
		})
	})
	<-reading
	lost.release()
	source.Store(1)
	if err := a.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	var v int64
	second := async(t, func() error {
		return b.GetOrSet(t.Context(), "k", &v, func(context.Context) (any, error) { return source.Load(), nil })
	})
	eventually(t, "the second caller has joined", func() bool { return b.Stats().Coalesced == 1 })
	close(resume)
	if err := errors.Join(first(), second()); err != nil {
		t.Fatal(err)
	}
	if v != 1 {
		t.Errorf("got %d, which was replaced before the call", v)
	}
}

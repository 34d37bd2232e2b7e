package pgcache_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// bound is how old what a node serves can be at most, whatever goes wrong between a commit and its listener: a heartbeat,
// its timeout, and the second that a change may lie in the log; with something for a busy machine.
const bound = 4*time.Second + 2*time.Second

// changeBehind changes the row of k as a writer does whose change nobody publishes, and returns how late after it a Get of c has begun
// that returned what was there before.
func (cl *cluster) changeBehind(c *pgcache.Cache, value int) time.Duration {
	cl.t.Helper()
	cl.exec("UPDATE "+cl.table()+" SET version = "+fmt.Sprint(value)+", stamp = "+fmt.Sprint(value)+", value = $1::text::bytea WHERE key = 'k'", fmt.Sprint(value))
	return cl.behind(c, value)
}

// behind waits until c returns value under k, and returns how long after the call a Get has begun that did not.
func (cl *cluster) behind(c *pgcache.Cache, value int) (late time.Duration) {
	cl.t.Helper()
	called := time.Now()
	eventually(cl.t, "the change is seen", func() bool {
		began := time.Now()
		var got int
		if found, err := c.Get(cl.t.Context(), "k", &got); err == nil && found && got == value {
			return true
		}
		late = began.Sub(called)
		return false
	})
	return late
}

// holdLog leaves an old change in the log whose row somebody else's transaction holds, so that no flush gets through, and
// returns what ends that.
func (cl *cluster) holdLog() (release func()) {
	cl.t.Helper()
	changes := cl.object("cache_changes")
	cl.exec("INSERT INTO " + changes + " (key, version, logged_at) VALUES ('other', 1, clock_timestamp() - interval '2 seconds')")
	tx, err := cl.db.BeginTx(cl.t.Context(), nil)
	if err != nil {
		cl.t.Fatal(err)
	}
	if _, err := tx.Exec("SELECT FROM " + changes + " FOR UPDATE"); err != nil {
		cl.t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(); err != nil {
			cl.t.Fatal(err)
		}
	}
}

// Where flushes fail, nobody publishes what is acknowledged into the log. Memory is forgotten at every pulse then, goes on
// being of use between them, and is as before once a flush gets through.
func TestPulse_FlushesFail(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	set(t, c, "k", 1)
	warm(t, c, "k", 1)
	release := cl.holdLog()
	for value := 2; value < 4; value++ {
		if took := cl.changeBehind(c, value); took > bound {
			t.Errorf("served for %v what was there before", took)
		}
	}
	eventually(t, "it is counted", func() bool { return c.Stats().Unpublished > 0 })
	before := c.Stats().LocalHits
	eventually(t, "memory is of use all the same", func() bool {
		want(t, c, "k", 3)
		return c.Stats().LocalHits > before+10
	})
	release()
	eventually(t, "the log is flushed", func() bool { return cl.count("SELECT count(*) FROM "+cl.object("cache_changes")) == 0 })
	forgotten := c.Stats().Unpublished
	warm(t, c, "k", 3)
	time.Sleep(2500 * time.Millisecond) // a pulse
	if n := c.Stats().Unpublished - forgotten; n > 1 {
		t.Errorf("%d times more after all was published", n)
	}
}

// The writer is gone when its statement commits: its change is in the log, and no window cares for it.
func TestPulse_LateCommit(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	set(t, c, "k", 1)
	warm(t, c, "k", 1)
	tx, err := cl.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // it is committed below
	for _, q := range []string{
		"UPDATE " + cl.table() + " SET version = 7, stamp = 7, value = '7' WHERE key = 'k'",
		"INSERT INTO " + cl.object("cache_changes") + " (key, version) VALUES ('k', 7)",
	} {
		if _, err := tx.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(1500 * time.Millisecond)
	want(t, c, "k", 1)
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if late := cl.behind(c, 7); late > bound {
		t.Errorf("after %v", late)
	}
}

// Two caches may share a channel: by an explicit Channel, or by search_path. What one publishes is nothing to the other, and
// its flushes are no reason to leave one's own to it.
func TestPulse_TwoCachesOneChannel(t *testing.T) {
	t.Parallel()
	cl, other := newCluster(t), newCluster(t)
	cl.opts.Channel, other.opts.Channel = cl.opts.Schema+"_shared", cl.opts.Schema+"_shared"
	a, b := cl.node(nil), cl.node(nil)
	noise := other.node(nil)
	set(t, noise, "k", 0)
	set(t, a, "k", 0)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // it keeps publishing: a leader, if it were one of ours
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			_ = noise.Set(ctx, "k", i)
			time.Sleep(time.Millisecond)
		}
	}()
	slow := 0 // on a machine that stalls some are
	for i := 1; i < 40; i++ {
		warm(t, b, "k", i-1)
		set(t, a, "k", -1) // the second goes through the log
		set(t, a, "k", i)
		if cl.behind(b, i) > time.Second {
			slow++
		}
	}
	stop()
	<-done
	if slow > 5 {
		t.Errorf("the other node knew of %d of 39 changes after more than a second", slow)
	}
	if n := b.Stats().Invalidations; n > 200 {
		t.Errorf("%d invalidations: those of the other cache were taken for its own", n)
	}
}

// A poller whose lease has lapsed unseen (a suspended machine, a clock that was set) does not go on serving.
func TestPulse_LeaseLapses(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.Listener = listener.Poll(50 * time.Millisecond) })
	set(t, c, "k", 1)
	warm(t, c, "k", 1)
	cl.exec("UPDATE " + cl.object("cache_state") + " SET poller_lease = clock_timestamp() - interval '1 second'")
	if took := cl.changeBehind(c, 2); took > bound {
		t.Errorf("served for %v what was there before", took)
	}
	eventually(t, "it polls again", func() bool {
		return cl.count("SELECT count(*) FROM "+cl.object("cache_state")+" WHERE poller_lease > clock_timestamp()") == 1
	})
	warm(t, c, "k", 2)
}

// Tables that were removed and made again are another cache, and another incarnation loses what was in memory.
func TestPulse_OtherTables(t *testing.T) {
	t.Parallel()
	for name, change := range map[string][2]string{
		"incarnation": {"cache_incarnation", "id = id + 1"},
		"identity":    {"cache_state", "id = '0badcafe'"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			c := cl.node(nil)
			set(t, c, "k", 1)
			warm(t, c, "k", 1)
			before := c.Stats().LocalFlushes
			cl.exec("UPDATE " + cl.object(change[0]) + " SET " + change[1])
			eventually(t, "everything is forgotten", func() bool { return c.Stats().LocalFlushes > before })
			// And it receives what is published from now on.
			other := cl.node(nil)
			warm(t, c, "k", 1)
			set(t, other, "k", 2)
			eventually(t, "the other node's change is seen", func() bool {
				var got int
				_, err := c.Get(t.Context(), "k", &got)
				return err == nil && got == 2
			})
		})
	}
}

// A pool without a free connection is no reason to doubt memory: it would send every Get to a database that is overloaded
// already. Nor does it keep changes from being published.
func TestPulse_ExhaustedPool(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	db := testdb.DB(t)
	db.SetMaxOpenConns(6)
	a := cl.on(db, func(o *pgcache.Options) { o.Listener = listenerOf("pgx", db, "") })
	b := cl.node(nil)
	var held []*sql.Conn
	v := 0
	inTime(t, func() error {
		for _, conn := range held {
			conn.Close()
		}
		held = nil
		set(t, a, "k", v)
		set(t, a, "m", 1)
		warm(t, a, "m", 1)
		warm(t, b, "k", v)
		v += 2
		set(t, a, "k", v-1)
		set(t, a, "k", v) // through the log
		for db.Stats().InUse < 6 {
			conn, err := db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, conn)
		}
		if late := cl.behind(b, v); late > 900*time.Millisecond {
			return fmt.Errorf("published after %v", late)
		}
		return nil
	})
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		want(t, a, "m", 1) // memory alone can answer
	}
	for _, conn := range held {
		conn.Close()
	}
}

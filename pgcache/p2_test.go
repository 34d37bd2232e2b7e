package pgcache_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/driver/pqdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// P2 with the defaults, over both drivers: three seconds after a write the most silent of nodes returns it.
func TestP2_HalfOpenLink(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		const bound = 3 * time.Second // heartbeat and timeout
		cl := newCluster(t)
		a := cl.node(nil)
		link := testdb.NewProxy(t, testdb.DSN(t))
		b := cl.on(testdb.Open(t, driver, testdb.DSN(t)), func(o *pgcache.Options) {
			if o.Listener = pgxdriver.ListenerDSN(link.DSN()); driver == "postgres" {
				o.Listener = pqdriver.Listener(link.DSN())
			}
		})
		t.Cleanup(link.Thaw)
		stale := 0
		for v := 1; stale == 0; v += 2 {
			if v > 20 { // on a busy machine trust may have ended before the write returns
				t.Fatal("the link was not frozen")
			}
			set(t, a, "k", v)
			warm(t, b, "k", v)
			link.Freeze()
			set(t, a, "k", v+1)
			written := time.Now()
			for {
				began := time.Now()
				if got, _ := get[int](t, b, "k"); got == v+1 {
					break
				}
				if stale++; began.Sub(written) > bound {
					t.Fatalf("a Get that began %v after the write had returned got the value from before", began.Sub(written))
				}
			}
			link.Thaw()
			warm(t, b, "k", v+1)
		}
	})
}

// P2: with a live listener, staleness is at most heartbeat + timeout, also where the link is silently gone.
func TestP2_SilentLink(t *testing.T) {
	t.Parallel()
	const beat, timeout = 200 * time.Millisecond, 300 * time.Millisecond
	cl := newCluster(t)
	a := cl.node(nil)
	link := testdb.NewProxy(t, testdb.DSN(t))
	b := cl.node(func(_ *sql.DB, o *pgcache.Options) {
		o.Listener = listener.New(pgxdriver.DialDSN(link.DSN()), listener.Config{HeartbeatEvery: beat, HeartbeatTimeout: timeout})
	})
	set(t, a, "k", 1)
	warm(t, b, "k", 1)
	link.Freeze()
	set(t, a, "k", 2)
	bound := time.Now().Add(beat + timeout)
	for {
		began := time.Now()
		v, _ := get[int](t, b, "k")
		if v == 2 {
			break
		}
		if began.After(bound) {
			t.Fatalf("stale %v after the bound", began.Sub(bound))
		}
	}
	for v := 3; v < 6; v++ { // and not live until the link is back
		set(t, a, "k", v)
		want(t, b, "k", v)
	}
	link.Thaw()
	warm(t, b, "k", 5)
}

// P2: ordinarily, it is the time that a notification takes, and the window.
func TestP2_Delivery(t *testing.T) {
	t.Parallel()
	forWindows(t, func(t *testing.T, cl *cluster) {
		a, b := cl.node(nil), cl.node(nil)
		slow := 0 // on a machine that stalls some are
		for v := range 25 {
			set(t, a, "k", v)
			late := time.Duration(0)
			for published := time.Now(); ; {
				began := time.Now()
				if got, _ := get[int](t, b, "k"); got == v {
					break
				}
				if late = began.Sub(published); late > bound {
					t.Fatalf("stale for %v", late)
				}
			}
			if late > time.Second {
				slow++
			}
		}
		if slow > 5 {
			t.Errorf("%d of 25 were seen after more than a second", slow)
		}
	})
}

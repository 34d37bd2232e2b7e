package pgcache_test

import (
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"testing"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// The older of two writers kept its value after the newer one's notification: it set its memory when its own call came
// back, whatever had come meanwhile.
func TestOlderWriterKeepsItsValue(t *testing.T) {
	t.Parallel()
	forWindows(t, func(t *testing.T, cl *cluster) {
		a := cl.node(nil)
		b, wire := cl.wired(nil)
		set(t, a, "k", "v0")
		caughtUp := cl.follow(a, b, wire)
		reply := wire.after(named("PutEntry"))
		written := async(t, func() error { return b.Set(t.Context(), "k", "v1") })
		reply.wait(t)
		set(t, a, "k", "v2")
		caughtUp()
		reply.release()
		if err := written(); err != nil {
			t.Fatal(err)
		}
		want(t, b, "k", "v2")

		// Another write of the same node is newer.
		reply = wire.after(named("PutEntry"))
		written = async(t, func() error { return b.Set(t.Context(), "k", "v3") })
		reply.wait(t)
		later := async(t, func() error { return b.Set(t.Context(), "k", "v4") })
		reply.release()
		if err := errors.Join(written(), later()); err != nil {
			t.Fatal(err)
		}
		want(t, b, "k", "v4")
		caughtUp()
		want(t, b, "k", "v4")
		want(t, a, "k", "v4")
	})
}

// The Python library kept the last event of a key in a batch: a delete and the next insert became one insert of version 1, which is not
// newer than what was held, so the old value stayed for ever.
func TestDeleteAndSetInOneBatch(t *testing.T) {
	t.Parallel()
	forWindows(t, func(t *testing.T, cl *cluster) {
		const keys = 20
		a := cl.node(nil)
		link := testdb.NewProxy(t, testdb.DSN(t))
		b := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.Listener = pgxdriver.ListenerDSN(link.DSN()) })
		for i := range keys {
			for v := range 5 {
				set(t, a, strconv.Itoa(i), v)
			}
			warm(t, b, strconv.Itoa(i), 4)
		}
		caughtUp := cl.follow(a, b, nil)
		link.Freeze() // so that b finds them all at once
		for i := range keys {
			del(t, a, strconv.Itoa(i))
			set(t, a, strconv.Itoa(i), 100+i)
		}
		link.Thaw()
		caughtUp()
		for i := range keys {
			want(t, b, strconv.Itoa(i), 100+i)
		}
	})
}

// The Python library's versions were an order and began at 1 again after a delete, a TRUNCATE or a crash: what was held was "newer".
func TestVersionsBeginAnew(t *testing.T) {
	t.Parallel()
	for _, stmt := range []string{"DELETE FROM %s", "TRUNCATE %s"} {
		t.Run(stmt[:8], func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			a, b := cl.node(nil), cl.node(nil)
			for v := range 5 {
				set(t, a, "k", v)
			}
			warm(t, b, "k", 4)
			caughtUp := cl.follow(a, b, nil)
			cl.exec(fmt.Sprintf(stmt, cl.table()))
			set(t, a, "k", 99) // an insert, which is not published
			caughtUp()
			want(t, b, "k", 99)
		})
	}
}

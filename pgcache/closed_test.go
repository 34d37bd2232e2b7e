package pgcache_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// The Python library's memory survived close and went on answering.
func TestClosedCacheAnswers(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	set(t, c, "k", 1)
	warm(t, c, "k", 1)
	typed := pgcache.For[int](c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	var v int
	found, err := c.Get(t.Context(), "k", &v)
	if found || v != 0 {
		t.Error("a closed cache answers", v)
	}
	wantErr(t, err, pgcache.ErrClosed)
	v, found, err = typed.Get(t.Context(), "k")
	if found || v != 0 {
		t.Error("a closed cache's view answers", v)
	}
	wantErr(t, err, pgcache.ErrClosed)
}

// The Python library's timeout for reads was never used: a server that stalled blocked for ever.
func TestStalledServer(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		for name, stall := range map[string]func(cl *cluster, link *testdb.Proxy) (end func()){
			"table locked": func(cl *cluster, _ *testdb.Proxy) func() {
				tx, err := cl.db.BeginTx(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := tx.ExecContext(t.Context(), "LOCK TABLE "+cl.table()+" IN ACCESS EXCLUSIVE MODE"); err != nil {
					t.Fatal(err)
				}
				return func() { _ = tx.Rollback() }
			},
			"network silent": func(_ *cluster, link *testdb.Proxy) func() { link.Freeze(); return link.Thaw },
		} {
			if name == "network silent" && driver == "postgres" {
				continue // lib/pq does not return before it has tried for 10 s to cancel the statement over another connection
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				const timeout = 300 * time.Millisecond
				cl := newCluster(t)
				cl.on(testdb.DB(t), nil) // makes the tables, with more time
				link := testdb.NewProxy(t, testdb.DSN(t))
				c := cl.new(testdb.Open(t, driver, link.DSN()), func(o *pgcache.Options) {
					o.Timeout, o.CleanupInterval = timeout, -1
				})
				typed := pgcache.For[int](c)
				eventually(t, "it works", func() bool { return c.Set(t.Context(), "k", 1) == nil })
				end := stall(cl, link)
				defer end()
				var v int
				for _, op := range []struct {
					name string
					call func() error
				}{
					{"get", func() error { _, err := c.Get(t.Context(), "k", new(int)); return err }},
					{"set", func() error { return c.Set(t.Context(), "k", 2) }},
					{"delete", func() error { return c.Delete(t.Context(), "k") }},
					{"get many", func() error { _, err := typed.GetMany(t.Context(), []string{"k", "l"}); return err }},
					{"cleanup", func() error { _, err := c.Cleanup(t.Context()); return err }},
					{"clear", func() error { return c.Clear(t.Context()) }},
					{"get or set", func() error { // does without
						return c.GetOrSet(t.Context(), "other", &v, func(context.Context) (any, error) { return 7, nil })
					}},
				} {
					inTime(t, func() error {
						began := time.Now()
						if err := async(t, op.call)(); op.name == "get or set" {
							if err != nil || v != 7 {
								t.Errorf("%s: %v, %v", op.name, v, err)
							}
						} else if err == nil || !strings.Contains(err.Error(), "Timeout") {
							t.Errorf("%s: %v", op.name, err)
						}
						if took := time.Since(began); took > 8*timeout {
							return fmt.Errorf("%s: after %v, Timeout is %v", op.name, took, timeout)
						}
						return nil
					})
				}
			})
		}
	})
}

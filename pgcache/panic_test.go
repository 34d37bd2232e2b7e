package pgcache_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// faulty is a pool's connector whose connections panic in Gets and Sets while bad is set, after hold has been closed.
type faulty struct {
	driver.Connector
	bad  atomic.Bool
	hold chan struct{}
}

func (f *faulty) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := f.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &faultyConn{&wireConn{conn, &wire{}}, f}, nil
}

type faultyConn struct {
	*wireConn
	f *faulty
}

func (c *faultyConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if c.f.bad.Load() && (strings.Contains(query, named("GetEntr")) || strings.Contains(query, named("PutEntr"))) {
		<-c.f.hold
		panic("index out of range")
	}
	return c.wireConn.QueryContext(ctx, query, args)
}

// TestDriverPanics: a driver that panics fails all callers that wait for its statement, and leaves nothing behind.
func TestDriverPanics(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	config, err := pgx.ParseConfig(testdb.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	f := &faulty{Connector: stdlib.GetConnector(*config)}
	db := sql.OpenDB(f)
	t.Cleanup(func() { db.Close() })
	c := cl.on(db, nil)
	strs := pgcache.For[string](c)
	for name, call := range map[string]func(i int) error{
		"Get of one key":    func(int) error { _, err := c.Get(t.Context(), "k", new(string)); return err },
		"Get of other keys": func(i int) error { _, err := c.Get(t.Context(), fmt.Sprint("k", i), new(string)); return err },
		"GetMany":           func(i int) error { _, err := strs.GetMany(t.Context(), []string{"k", fmt.Sprint("k", i)}); return err },
		"Set":               func(i int) error { return c.Set(t.Context(), fmt.Sprint("k", i), "v") },
		"large Set":         func(i int) error { return c.Set(t.Context(), fmt.Sprint("k", i), strings.Repeat("v", 300<<10)) },
	} {
		f.hold = make(chan struct{})
		f.bad.Store(true)
		var wg sync.WaitGroup
		errs := make([]error, 12)
		for i := range errs {
			wg.Go(func() { errs[i] = call(i) })
		}
		time.AfterFunc(100*time.Millisecond, func() { close(f.hold) }) // most of them wait for another's statement
		all := async(t, func() error { wg.Wait(); return nil })
		_ = all()
		for i, err := range errs {
			if err == nil || !strings.Contains(err.Error(), "index out of range") {
				t.Errorf("%s: caller %d got %v", name, i, err)
			}
		}
		f.bad.Store(false)
		for i := range 3 {
			if err := call(i); err != nil {
				t.Errorf("%s, when it is over: %v", name, err)
			}
		}
	}
}

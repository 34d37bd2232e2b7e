package pgcache_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// counting counts the connections that are made.
type counting struct {
	driver.Connector
	n atomic.Int64
}

func (c *counting) Connect(ctx context.Context) (driver.Conn, error) {
	c.n.Add(1)
	return c.Connector.Connect(ctx)
}

// TestDefaultPool: on a pool as sql.Open makes it, callers do not make it connect again and again, and it has all its
// connections back when they rest.
func TestDefaultPool(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	config, err := pgx.ParseConfig(testdb.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	connector := &counting{Connector: stdlib.GetConnector(*config)}
	db := sql.OpenDB(connector)
	t.Cleanup(func() { db.Close() })
	c := cl.on(db, nil)
	var ops atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for i := range 64 {
		wg.Go(func() {
			for n := i; time.Since(began) < 2*time.Second; n++ {
				key := fmt.Sprint("k", n*31%1000)
				var err error
				if n%2 == 0 {
					err = c.Set(t.Context(), key, n)
				} else {
					_, err = c.Get(t.Context(), key, new(int))
				}
				if err != nil {
					t.Error(err)
				}
				ops.Add(1)
			}
		})
	}
	wg.Wait()
	t.Logf("%d operations, %d connections made", ops.Load(), connector.n.Load())
	if n := connector.n.Load(); n > 50 {
		t.Errorf("%d connections made for %d operations", n, ops.Load())
	}
	eventually(t, "the pool has its connections back", func() bool { return db.Stats().InUse == 0 })
}

// TestPoolIsShared: others who need the only connection get their turn while a cache is as busy as it can be.
func TestPoolIsShared(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	pool, err := pgxpool.New(t.Context(), testdb.WithParam(testdb.DSN(t), "pool_max_conns", "1"))
	if err != nil {
		t.Fatal(err)
	}
	plain := testdb.DB(t)
	plain.SetMaxOpenConns(1)
	pooled := stdlib.OpenDBFromPool(pool)
	t.Cleanup(func() {
		pooled.Close()
		pool.Close()
	})
	for name, db := range map[string]*sql.DB{"MaxOpenConns": plain, "pgxpool": pooled} {
		c := cl.on(db, func(o *pgcache.Options) { o.Guard = pgcache.NoGuard() })
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for ctx.Err() == nil {
					if _, err := c.Get(ctx, fmt.Sprint("k", i), new(int)); err != nil && ctx.Err() == nil {
						t.Error(name, err)
					}
				}
			})
		}
		inTime(t, func() error {
			worst := time.Duration(0)
			for range 20 {
				began := time.Now()
				if _, err := db.ExecContext(ctx, "SELECT 1"); err != nil {
					t.Error(name, err)
				}
				worst = max(worst, time.Since(began))
			}
			if t.Log(name, "worst:", worst); worst > 500*time.Millisecond {
				return fmt.Errorf("%s: somebody else waited %v for a connection", name, worst)
			}
			return nil
		})
		stop()
		wg.Wait()
		c.Close()
	}
}

// TestExhaustedPool: the error of a pool without a free connection says so, to those who ask it and to those who wait
// behind them.
func TestExhaustedPool(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	pool, err := pgxpool.New(t.Context(), testdb.WithParam(testdb.DSN(t), "pool_max_conns", "2"))
	if err != nil {
		t.Fatal(err)
	}
	plain := testdb.DB(t)
	plain.SetMaxOpenConns(2)
	pooled := stdlib.OpenDBFromPool(pool)
	t.Cleanup(func() {
		pooled.Close()
		pool.Close()
	})
	for name, db := range map[string]*sql.DB{"MaxOpenConns": plain, "pgxpool": pooled} {
		c := cl.on(db, func(o *pgcache.Options) { o.Guard, o.Timeout = pgcache.NoGuard(), 2*time.Second })
		var held []*sql.Conn
		for range 2 {
			conn, err := db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, conn)
		}
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				var err error
				if i%2 == 0 {
					_, err = c.Get(t.Context(), fmt.Sprint("k", i), new(int))
				} else {
					err = c.Set(t.Context(), fmt.Sprint("k", i), i)
				}
				if !errors.Is(err, pgcache.ErrPoolExhausted) || !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "no answer") ||
					strings.Count(err.Error(), "no free connection") != 1 {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		wg.Wait()
		for _, conn := range held {
			conn.Close()
		}
		set(t, c, "k", 1)
		// A statement that got a connection and no answer is another matter.
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec("UPDATE " + cl.table() + " SET version = version + 1"); err != nil {
			t.Fatal(err)
		}
		if err := c.Set(t.Context(), "k", 2); err == nil || errors.Is(err, pgcache.ErrPoolExhausted) {
			t.Errorf("%s: a row is locked: %v", name, err)
		}
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
		c.Close()
	}
}

// TestKilledPool: after every session was ended, each call succeeds at once, however many dead connections a pool has.
func TestKilledPool(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	admin := testdb.DB(t)
	name := strings.ReplaceAll(cl.opts.Schema, ".", "_")
	pool, err := pgxpool.New(t.Context(), testdb.WithParam(testdb.WithParam(testdb.DSN(t), "pool_max_conns", "20"), "application_name", name))
	if err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDBFromPool(pool)
	t.Cleanup(func() {
		db.Close()
		pool.Close()
	})
	c := cl.on(db, func(o *pgcache.Options) { o.Guard = pgcache.NoGuard() })
	for round := range 6 {
		var held []*sql.Conn
		for range 20 {
			conn, err := db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, conn)
		}
		for _, conn := range held {
			conn.Close()
		}
		var n int
		if err := admin.QueryRow("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1", name).Scan(&n); err != nil || n < 20 {
			t.Fatal(n, err)
		}
		eventually(t, "they are gone", func() bool {
			err := admin.QueryRow("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", name).Scan(&n)
			return err == nil && n == 0
		})
		if round%2 == 0 {
			if _, err := c.Get(t.Context(), fmt.Sprint("k", round), new(int)); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		if err := c.Set(t.Context(), fmt.Sprint("k", round), round); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
	}
}

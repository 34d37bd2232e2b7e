package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/pgcache"
)

// TestQuiescence: whatever happened, when it is over every node has what is in the table. Nodes come and go, sessions are
// ended, everybody writes everything.
func TestQuiescence(t *testing.T) {
	t.Parallel()
	for name, fleet := range map[string][][2]string{
		"immediate": {{"immediate", "pgx"}, {"immediate", "postgres"}, {"immediate", "pgx"}},
		"window":    {{"window", "pgx"}, {"window", "postgres"}, {"window", "pgx"}},
		"poll":      {{"poll", "pgx"}, {"poll", "postgres"}, {"poll", "pgx"}},
		"mixed":     {{"immediate", "pgx"}, {"window", "postgres"}, {"poll", "pgx"}, {"silent", "postgres"}, {"window", "pgx"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			const keys = 20
			nodes := make([]atomic.Pointer[pgcache.Cache], len(fleet))
			for i, f := range fleet {
				nodes[i].Store(cl.by(f[0], f[1]))
			}
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			var wg sync.WaitGroup
			var writes atomic.Int64
			began := time.Now()
			for i := range nodes {
				for range 2 {
					wg.Go(func() {
						for ctx.Err() == nil || writes.Load() < 100 && time.Since(began) < time.Minute { // longer on a busy machine
							disturb(t.Context(), nodes[i].Load(), keys)
							writes.Add(1)
							time.Sleep(rand.N(3 * time.Millisecond))
						}
					})
				}
			}
			wg.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					time.Sleep(100 * time.Millisecond)
					cl.terminate(1)
					if i%5 == 4 {
						n := i / 5 % len(nodes)
						nodes[n].Swap(cl.comes(fleet[n][0], fleet[n][1])).Close()
					}
				}
			})
			wg.Wait()
			if n := writes.Load(); n < 100 {
				t.Errorf("%d operations", n)
			}
			agree := func() {
				t.Helper()
				for i := range nodes {
					for k := range keys {
						eventually(t, fmt.Sprintf("node %d (%v) and the table agree on %d", i, fleet[i], k), func() bool {
							return cl.agrees(nodes[i].Load(), strconv.Itoa(k))
						})
					}
				}
			}
			agree()
			// Once more, of all at the same moment, and while nobody listens everything changes.
			writer := cl.node(nil)
			cl.terminate(1000)
			for k := range keys {
				set(t, writer, strconv.Itoa(k), k)
			}
			agree()
		})
	}
}

// terminate ends sessions of the nodes that bear the cluster's name, whatever they are doing.
func (cl *cluster) terminate(n int) {
	cl.t.Helper()
	if _, err := cl.db.ExecContext(cl.t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE application_name = $1 ORDER BY random() LIMIT $2`, cl.opts.Schema, n); err != nil {
		cl.t.Error(err)
	}
}

// agrees says whether c has what is in the table.
func (cl *cluster) agrees(c *pgcache.Cache, key string) bool {
	cl.t.Helper()
	var row sql.NullString
	err := cl.db.QueryRowContext(cl.t.Context(), "SELECT convert_from(value, 'UTF8') FROM "+cl.table()+" WHERE key = $1", key).Scan(&row)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		cl.t.Fatal(err)
	}
	var v int64
	found, err := c.Get(cl.t.Context(), key, &v)
	return err == nil && found == row.Valid && (!found || strconv.FormatInt(v, 10) == row.String)
}

// disturb does something to the cache. Errors are for others to look at: sessions are being ended here.
func disturb(ctx context.Context, c *pgcache.Cache, keys int) {
	key, v := strconv.Itoa(rand.IntN(keys)), rand.Int64N(1e9)
	switch n := rand.IntN(100); {
	case n < 30:
		_ = c.Set(ctx, key, v)
	case n < 40:
		_ = c.Delete(ctx, key)
	case n < 50:
		_ = pgcache.For[int64](c).SetMany(ctx, map[string]int64{key: v, strconv.Itoa(rand.IntN(keys)): v + 1})
	case n < 51:
		_ = c.Clear(ctx)
	case n < 60:
		_ = c.GetOrSet(ctx, key, new(int64), func(context.Context) (any, error) { return v, nil })
	case n < 70:
		gone, cancel := context.WithTimeout(ctx, rand.N(2*time.Millisecond))
		_ = c.Set(gone, key, v)
		cancel()
	default:
		_, _ = c.Get(ctx, key, new(int64))
	}
}

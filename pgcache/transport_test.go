package pgcache_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// transports are the ways in which a node receives changes, and publishes its own.
var transports = []string{"immediate", "window", "poll"}

// by returns a ready node that receives changes by transport, over a driver.
func (cl *cluster) by(transport, driver string) *pgcache.Cache {
	cl.t.Helper()
	c := cl.comes(transport, driver)
	if err := c.Migrate(cl.t.Context()); err != nil {
		cl.t.Fatal(err)
	}
	cl.ready(c)
	return c
}

// comes returns it when it may not be ready yet. All its sessions bear the name of the schema.
func (cl *cluster) comes(transport, driver string) *pgcache.Cache {
	cl.t.Helper()
	dsn := testdb.WithParam(testdb.DSN(cl.t), "application_name", cl.opts.Schema)
	db := testdb.Open(cl.t, driver, dsn)
	db.SetMaxOpenConns(6)
	return cl.new(db, func(o *pgcache.Options) {
		o.Listener = listenerOf(driver, db, dsn)
		switch transport {
		case "immediate":
			o.InvalidationWindow = pgcache.Immediate
		case "window":
			o.InvalidationWindow = 15 * time.Millisecond
		case "poll":
			o.Listener = listener.Poll(15 * time.Millisecond)
		case "silent":
			o.Listener = nil
		}
	})
}

// ledger knows what was written under a key by its one writer, and what each node has returned.
type ledger struct {
	key  string
	mu   sync.Mutex
	done []time.Time // when the write of each number had returned
	seen []int       // by each node
}

// before is what a Get that begins now must at least return on node n.
func (l *ledger) before(n int) (least int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	least = l.seen[n] // P4
	for least+1 < len(l.done) && time.Since(l.done[least+1]) > bound {
		least++ // P2
	}
	return least
}

func (l *ledger) returned(n, number int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[n] = max(l.seen[n], number)
}

func (l *ledger) written(at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = append(l.done, at)
}

func (l *ledger) value(number int) string { return fmt.Sprint(l.key, "#", number) }

// number checks that v was written under this key.
func (l *ledger) number(t *testing.T, v string) int {
	t.Helper()
	key, number, _ := strings.Cut(v, "#")
	n, err := strconv.Atoi(number)
	l.mu.Lock()
	defer l.mu.Unlock()
	if key != l.key || err != nil || n < 0 || n > len(l.done) { // the newest may not have returned yet
		t.Errorf("%s: %q was never written", l.key, v)
	}
	return n
}

// TestPromises: the promises hold whatever the transport, with everybody writing and reading at once.
func TestPromises(t *testing.T) {
	t.Parallel()
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			forDrivers(t, func(t *testing.T, driver string) {
				cl := newCluster(t)
				nodes := []*pgcache.Cache{cl.by(transport, driver), cl.by(transport, driver), cl.by(transport, driver)}
				promises(t, nodes, time.Second)
			})
		})
	}
	t.Run("mixed", func(t *testing.T) {
		t.Parallel()
		cl := newCluster(t)
		promises(t, []*pgcache.Cache{
			cl.by("immediate", "pgx"), cl.by("window", "postgres"), cl.by("poll", "postgres"), cl.by("silent", "pgx"),
		}, time.Second)
	})
}

func promises(t *testing.T, nodes []*pgcache.Cache, span time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), span)
	defer cancel()
	var ledgers []*ledger
	for k := range 6 {
		l := &ledger{key: fmt.Sprint("k", k), seen: make([]int, len(nodes))}
		set(t, nodes[0], l.key, l.value(0))
		l.written(time.Now())
		ledgers = append(ledgers, l)
	}
	var wg sync.WaitGroup
	for k, l := range ledgers {
		n := k % len(nodes)
		c, batch := nodes[n], pgcache.For[string](nodes[n])
		wg.Go(func() {
			for number := 1; ctx.Err() == nil; number++ {
				var err error
				if number%7 == 0 {
					err = batch.SetMany(t.Context(), map[string]string{l.key: l.value(number), l.key + "+": "beside it"})
				} else {
					err = c.Set(t.Context(), l.key, l.value(number))
				}
				if err != nil {
					t.Error(err)
					return
				}
				l.written(time.Now())
				l.returned(n, number) // P3: as if it had been read
				time.Sleep(rand.N(10 * time.Millisecond))
			}
		})
	}
	for n, c := range nodes {
		many := pgcache.For[string](c)
		for r := range 2 {
			wg.Go(func() {
				for i := r; ctx.Err() == nil; i++ {
					l := ledgers[i%len(ledgers)]
					least := l.before(n)
					var v string
					var found bool
					var err error
					switch i % 5 {
					case 0:
						var all map[string]string
						all, err = many.GetMany(t.Context(), []string{l.key, "none"})
						v, found = all[l.key]
					case 1:
						err = c.GetOrSet(t.Context(), l.key, &v, func(context.Context) (any, error) { return nil, errors.New("it is there") })
						found = err == nil
					default:
						found, err = c.Get(t.Context(), l.key, &v)
					}
					if err != nil || !found {
						t.Errorf("%s: found %v, %v", l.key, found, err)
						return
					}
					number := l.number(t, v)
					if number < least {
						t.Errorf("node %d, %s: %d where at least %d was due", n, l.key, number, least)
						return
					}
					l.returned(n, number)
					time.Sleep(rand.N(2 * time.Millisecond))
				}
			})
		}
		wg.Go(func() { sourceOfTruth(t, ctx, c, n) })
		wg.Go(func() { expiring(t, ctx, c, nodes[(n+1)%len(nodes)], n) })
	}
	wg.Wait()
	for n, c := range nodes {
		for _, l := range ledgers {
			last := l.value(len(l.done) - 1)
			eventually(t, fmt.Sprintf("node %d has the last value of %s", n, l.key), func() bool {
				v, found := get[string](t, c, l.key)
				return found && v == last
			})
		}
	}
}

// sourceOfTruth changes what a loader reads, and deletes the key. From then on nothing older may come back: not from
// memory (P3), and not from a loader that has begun before (P6).
func sourceOfTruth(t *testing.T, ctx context.Context, c *pgcache.Cache, n int) { //nolint:revive // t is first in tests
	t.Helper()
	var source, deleted atomic.Int64
	key := fmt.Sprint("source", n)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				least := deleted.Load()
				var v int64
				err := c.GetOrSet(t.Context(), key, &v, func(context.Context) (any, error) {
					v := source.Load()
					time.Sleep(rand.N(3 * time.Millisecond))
					return v, nil
				})
				if err != nil || v < least {
					t.Errorf("%s: loaded %d, %v, where the source had %d when the key was deleted", key, v, err, least)
					return
				}
			}
		})
	}
	for ctx.Err() == nil {
		v := source.Add(1)
		if err := c.Delete(t.Context(), key); err != nil {
			t.Error(err)
			break
		}
		deleted.Store(v)
		time.Sleep(rand.N(8 * time.Millisecond))
	}
	wg.Wait()
}

// expiring writes rows that live shortly. Nobody gets one 50 ms after its end (P7).
func expiring(t *testing.T, ctx context.Context, c, other *pgcache.Cache, n int) { //nolint:revive // t is first in tests
	t.Helper()
	const ttl = 100 * time.Millisecond
	key := fmt.Sprint("short", n)
	for number := 0; ctx.Err() == nil; number++ {
		if err := c.Set(t.Context(), key, number, pgcache.TTL(ttl)); err != nil {
			t.Error(err)
			return
		}
		end := time.Now().Add(ttl + 50*time.Millisecond) // or earlier
		for gone := false; !gone; {
			began := time.Now()
			gone = began.After(end)
			for _, c := range []*pgcache.Cache{c, other} {
				var v int
				found, err := c.Get(t.Context(), key, &v)
				if err != nil || found && gone {
					t.Errorf("%s: %d, %v, %v after its end", key, v, err, began.Sub(end))
					return
				}
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// value is what the table has under key.
func (cl *cluster) value(key string) (v string) {
	cl.t.Helper()
	if err := cl.db.QueryRowContext(cl.t.Context(), "SELECT convert_from(value, 'UTF8') FROM "+cl.table()+" WHERE key = $1", key).Scan(&v); err != nil {
		cl.t.Fatal(err)
	}
	return v
}

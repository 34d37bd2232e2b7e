package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/driver/pqdriver"
	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// transports are the ways in which a node hears of changes, and tells its own.
var transports = []string{"immediate", "window", "poll"}

// by returns a ready node that is told by transport, over a driver.
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
		case "deaf":
			o.Listener = nil
		}
	})
}

// late is what staleness may be here: a bound for a machine that does much else. Counts, not times, are what fails tests.
const late = 3 * time.Second

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
	for least+1 < len(l.done) && time.Since(l.done[least+1]) > late {
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
		forDriversNamed(t, transport, func(t *testing.T, driver string) {
			cl := newCluster(t)
			nodes := []*pgcache.Cache{cl.by(transport, driver), cl.by(transport, driver), cl.by(transport, driver)}
			promises(t, nodes, time.Second)
		})
	}
	t.Run("mixed", func(t *testing.T) {
		t.Parallel()
		cl := newCluster(t)
		promises(t, []*pgcache.Cache{
			cl.by("immediate", "pgx"), cl.by("window", "postgres"), cl.by("poll", "postgres"), cl.by("deaf", "pgx"),
		}, time.Second)
	})
}

func forDriversNamed(t *testing.T, name string, test func(t *testing.T, driver string)) {
	t.Helper()
	for _, driver := range []string{"pgx", "postgres"} {
		t.Run(name+"/"+driver, func(t *testing.T) {
			t.Parallel()
			test(t, driver)
		})
	}
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

// TestQuiescence: whatever happened, when it is over every node has what is in the table. Nodes come and go, sessions are
// ended, everybody writes everything.
func TestQuiescence(t *testing.T) {
	t.Parallel()
	for name, fleet := range map[string][][2]string{
		"immediate": {{"immediate", "pgx"}, {"immediate", "postgres"}, {"immediate", "pgx"}},
		"window":    {{"window", "pgx"}, {"window", "postgres"}, {"window", "pgx"}},
		"poll":      {{"poll", "pgx"}, {"poll", "postgres"}, {"poll", "pgx"}},
		"mixed":     {{"immediate", "pgx"}, {"window", "postgres"}, {"poll", "pgx"}, {"deaf", "postgres"}, {"window", "pgx"}},
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
			for i := range nodes {
				for range 2 {
					wg.Go(func() {
						for ctx.Err() == nil {
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

// TestOneConnection: Caches of one process that share a database share one listening connection, and each hears its own
// channel.
func TestOneConnection(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		one, two := newCluster(t), newCluster(t)
		name := one.opts.Schema
		dsn := testdb.WithParam(testdb.DSN(t), "application_name", name)
		db := testdb.Open(t, driver, testdb.DSN(t))
		listen := func() pgcache.Listener {
			if driver == "postgres" {
				return pqdriver.Listener(dsn)
			}
			return pgxdriver.ListenerDSN(dsn)
		}
		sessions := func() int {
			return one.count("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", name)
		}
		var caches []*pgcache.Cache
		for _, cl := range []*cluster{one, two, one} {
			caches = append(caches, cl.on(db, func(o *pgcache.Options) { o.Listener = listen() }))
		}
		if n := sessions(); n != 1 {
			t.Errorf("%d connections listen for three Caches, want one", n)
		}
		if driver == "pgx" { // the same on a connection of the pool
			pool := testdb.DB(t)
			for _, cl := range []*cluster{one, two} {
				cl.on(pool, func(o *pgcache.Options) { o.Listener = pgxdriver.Listener(pool) })
			}
			eventually(t, "one connection is in use", func() bool { return pool.Stats().InUse == 1 })
		}
		writers := []*pgcache.Cache{one.node(nil), two.node(nil)}
		hears := func(c, writer, other *pgcache.Cache) {
			t.Helper()
			v := rand.Int64()
			set(t, other, "k", v-1)
			set(t, c, "k", int64(0))
			before := c.Stats().Invalidations
			set(t, writer, "k", v)
			eventually(t, "it hears its own channel", func() bool {
				got, _ := get[int64](t, c, "k")
				return got == v && c.Stats().Invalidations > before
			})
			before = c.Stats().Invalidations
			for i := range 40 {
				set(t, other, strconv.Itoa(i%20), i)
			}
			want(t, c, "k", v)
			time.Sleep(2 * pgcache.DefaultWindow)
			if n := c.Stats().Invalidations - before; n > 2 { // at the most what it had still to hear of its own
				t.Errorf("it has heard of %d changes of another cache", n)
			}
		}
		hears(caches[0], writers[0], writers[1])
		hears(caches[1], writers[1], writers[0])
		caches[0].Close()
		hears(caches[1], writers[1], writers[0])
		hears(caches[2], writers[0], writers[1])
		caches[2].Close()
		hears(caches[1], writers[1], writers[0])
		if n := sessions(); n != 1 {
			t.Errorf("%d connections listen", n)
		}
		caches[1].Close()
		eventually(t, "the connection is closed with the last Cache", func() bool { return sessions() == 0 })
	})
}

// TestFewNotifications: what four nodes write in a moment is told in a few notifications, and a lone write in one.
func TestFewNotifications(t *testing.T) {
	t.Parallel()
	const window = 100 * time.Millisecond
	cl := newCluster(t)
	var nodes []*pgcache.Cache
	for range 4 {
		nodes = append(nodes, cl.node(func(_ *sql.DB, o *pgcache.Options) { o.InvalidationWindow = window }))
	}
	immediate := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.InvalidationWindow = pgcache.Immediate })
	for k := range 4 {
		set(t, nodes[0], strconv.Itoa(k), 0)
	}
	time.Sleep(2 * window) // the system falls quiet
	ear := cl.listenIn()
	set(t, nodes[0], "0", 1)
	if told := ear.heard(); len(told) != 1 || told[0][0] != notify.Inline {
		t.Errorf("a lone write was told in %q", told)
	}
	began := time.Now()
	var wg sync.WaitGroup
	for n, c := range nodes {
		wg.Go(func() {
			for i := range 25 {
				set(t, c, strconv.Itoa(n), i)
			}
		})
	}
	wg.Wait()
	eventually(t, "the log is empty", func() bool {
		return cl.count("SELECT count(*) FROM "+cl.opts.Schema+"."+cl.opts.Prefix+"cache_changes") == 0
	})
	told, windows := ear.heard(), int(time.Since(began)/window)+1
	if len(told) == 0 || len(told) > 4+2*windows {
		t.Errorf("100 writes were told in %d notifications within %d windows", len(told), windows)
	}
	versions := map[int64]bool{}
	for _, payload := range told {
		if err := notify.Parse(payload, func(_ string, vs []int64) {
			for _, v := range vs {
				versions[v] = true
			}
		}, func() { t.Error("everything was to be forgotten") }); err != nil {
			t.Error(err)
		}
	}
	if len(versions) < 4 || len(versions) > 100 {
		t.Errorf("%d versions were told", len(versions))
	}
	for range 20 {
		set(t, immediate, "0", rand.Int())
	}
	inline := 0
	for _, payload := range ear.heard() {
		if payload[0] == notify.Inline {
			inline++
		}
	}
	if inline != 20 {
		t.Errorf("20 writes of an immediate node were told in %d notifications of their own", inline)
	}
}

// TestOneSetOneWrite: where the reply of a write is lost nobody knows whether it was done. To send it again would do it
// twice, the second time over what was written since: nodes would go from v1 to v2 and back (P4).
func TestOneSetOneWrite(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(ctx context.Context, c *pgcache.Cache) error{
		"PutEntry": func(ctx context.Context, c *pgcache.Cache) error { return c.Set(ctx, "k", "v1") },
		"PutEntries": func(ctx context.Context, c *pgcache.Cache) error {
			return pgcache.For[string](c).SetMany(ctx, map[string]string{"k": "v1", "l": "v1"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			a, wire := cl.wired(nil)
			b, c := cl.node(nil), cl.node(nil)
			set(t, c, "k", "v0")
			warm(t, b, "k", "v0")
			reply := wire.after(named(name))
			wire.lose(named(name), io.ErrUnexpectedEOF)
			written := async(t, func() error { return write(t.Context(), a) })
			reply.wait(t)
			warm(t, b, "k", "v1")
			set(t, c, "k", "v2")
			warm(t, b, "k", "v2")
			reply.release()
			if err := written(); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Error(err)
			}
			if v := cl.value("k"); v != `"v2"` {
				t.Errorf("the row has %s again", v)
			}
		})
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

// TestCloseTells: what a node has written when it is closed, is told by then.
func TestCloseTells(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	const slow = 30 * time.Second // nobody flushes by itself here, and no sweep is to help
	a := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.InvalidationWindow = slow })
	b := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.InvalidationWindow = slow })
	var wg sync.WaitGroup
	for i := range 8 {
		set(t, a, strconv.Itoa(i), 0)
	}
	var written [8]atomic.Int64
	for i := range written {
		warm(t, b, strconv.Itoa(i), 0)
		wg.Go(func() {
			for v := int64(1); ; v++ {
				if err := a.Set(context.Background(), strconv.Itoa(i), v); err != nil { //nolint:usetesting // it ends with Close
					if !errors.Is(err, pgcache.ErrClosed) {
						t.Error(err)
					}
					return
				}
				written[i].Store(v)
			}
		})
	}
	eventually(t, "writes are under way", func() bool { return written[0].Load() > 10 })
	a.Close()
	wg.Wait()
	if n := cl.count("SELECT count(*) FROM " + cl.opts.Schema + "." + cl.opts.Prefix + "cache_changes"); n > 0 {
		t.Errorf("%d changes are in the log that nobody flushes", n)
	}
	for i := range written {
		eventually(t, "b has heard", func() bool {
			v, _ := get[int64](t, b, strconv.Itoa(i))
			return v == written[i].Load()
		})
	}
}

package pgcache_test

import (
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// Cleanup removes one batch of what has expired, tombstones too, and nothing else.
func TestCleanup(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.CleanupBatch, o.CleanupInterval = 10, -1 })
	typed := pgcache.For[int](c)
	rows := map[string]int{}
	for i := range 25 {
		rows[fmt.Sprint("dead", i)] = i
	}
	if err := typed.SetMany(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	set(t, c, "live", 1)
	set(t, c, "never", 1, pgcache.TTL(pgcache.NoExpiry))
	del(t, c, "deleted", "dead0")
	cl.expire("key LIKE 'dead%'")
	for _, want := range []int64{10, 10, 5, 0} {
		if n, err := c.Cleanup(t.Context()); n != want || err != nil {
			t.Errorf("%d removed, %v; want %d", n, err, want)
		}
	}
	if n := cl.count("SELECT count(*) FROM " + cl.table()); n != 3 { // live, never, and the tombstone of deleted
		t.Errorf("%d rows left", n)
	}
	want(t, c, "live", 1)
	want(t, c, "never", 1)
	cl.expire("value IS NULL")
	if n, err := c.Cleanup(t.Context()); n != 1 || err != nil {
		t.Error("the tombstone:", n, err)
	}
	if n := c.Stats().Cleaned; n != 26 {
		t.Errorf("%d cleaned", n)
	}
	// Two at once do not get into each other's way.
	if err := typed.SetMany(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	cl.expire("key LIKE 'dead%'")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := c.Cleanup(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := cl.count("SELECT count(*) FROM " + cl.table()); n != 2 {
		t.Errorf("%d rows left", n)
	}
}

// The Timeout is of each statement of a Cleanup. A large table takes many of them to go through.
func TestCleanup_LargeTable(t *testing.T) {
	t.Parallel()
	const timeout, each = 5 * time.Second, 2600 * time.Millisecond
	cl := newCluster(t)
	c, w := cl.wired(func(o *pgcache.Options) { o.CleanupInterval, o.Timeout = -1, timeout })
	set(t, c, "live", 1)
	slow := w.before(named("Expire :one"))
	done := async(t, func() error {
		n, err := c.Cleanup(t.Context())
		if n != 0 {
			t.Errorf("%d removed", n)
		}
		return err
	})
	for range 2 { // nothing is found in the first pass, whose statements together take longer than the Timeout
		slow.wait(t)
		time.Sleep(each)
		slow.resume <- struct{}{}
	}
	slow.release()
	if err := done(); err != nil {
		t.Error(err)
	}
}

// The janitor runs by itself, on one node an interval, in front of the writers of the same rows.
func TestJanitor(t *testing.T) {
	t.Parallel()
	const interval = 200 * time.Millisecond
	cl := newCluster(t)
	var wires []*wire
	var nodes []*pgcache.Cache
	began := time.Now()
	for range 4 {
		c, w := cl.wired(func(o *pgcache.Options) { o.CleanupInterval, o.CleanupBatch = interval, 3 })
		nodes, wires = append(nodes, c), append(wires, w)
	}
	set(t, nodes[0], "live", 1)
	set(t, nodes[0], "never", 1, pgcache.TTL(pgcache.NoExpiry))
	for i := range 20 {
		set(t, nodes[0], fmt.Sprint("dead", i), 1)
	}
	cl.expire("key LIKE 'dead%'")
	cl.exec("INSERT INTO " + cl.table() + " (key, version, codec) VALUES ('stone', 1, 'json')")
	cl.expire("key = 'stone'")
	// What has expired a moment ago is left for the loaders that began before.
	set(t, nodes[0], "just", 1, pgcache.TTL(time.Millisecond))
	// Writers revive dead rows all the while.
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				set(t, nodes[1], "dead0", 1)
				want(t, nodes[1], "dead0", 1)
				cl.expire("key = 'dead0'")
			}
		}
	})
	eventually(t, "the dead are gone", func() bool {
		return cl.count("SELECT count(*) FROM "+cl.table()+" WHERE key IN ('stone') OR key LIKE 'dead_%' AND key <> 'dead0'") == 0
	})
	time.Sleep(2 * interval)
	close(stop)
	wg.Wait()
	claims, elapsed := 0, time.Since(began)
	for _, c := range nodes {
		c.Close()
	}
	for _, w := range wires {
		claims += w.count(named("ClaimSweep"))
	}
	swept := nodes[0].Stats().Cleaned + nodes[1].Stats().Cleaned + nodes[2].Stats().Cleaned + nodes[3].Stats().Cleaned
	if swept < 20 {
		t.Errorf("%d cleaned", swept)
	}
	// A sweep is an Expire that found less than a batch; the others asked and got the answer that it is done.
	most := int(elapsed/(interval/2)) + 1
	sweeps := 0
	for _, w := range wires {
		sweeps += w.count(named("Expire"))
	}
	if sweeps -= int(swept) / 3; sweeps > most {
		t.Errorf("%d sweeps of 4 nodes in %v (%d claims): more than one an interval", sweeps, elapsed, claims)
	}
	if claims <= sweeps {
		t.Errorf("%d claims, %d sweeps: nobody was refused", claims, sweeps)
	}
	if n := cl.count("SELECT count(*) FROM " + cl.table() + " WHERE key IN ('live', 'never', 'just')"); n != 3 {
		t.Errorf("%d of 3 rows left", n)
	}
}

// At least 90 % of overwrites are HOT: no index knows of what they change, and pages have room for them. Not beside other
// tests: a transaction that is open anywhere in the database keeps dead rows from making room.
func TestHOTUpdates(t *testing.T) {
	const keys, writes = 50, 2000
	value := strings.Repeat("x", 200)
	updated, hot := 0, 0
	for range 5 { // other packages' tests may be using the same server
		cl := newCluster(t)
		eventually(t, "nobody has a snapshot", func() bool { // as a session of a test before, or autovacuum
			return cl.count("SELECT count(*) FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()")+
				cl.count("SELECT count(*) FROM pg_prepared_xacts") == 0
		})
		db := testdb.DB(t)
		c := cl.on(db, nil)
		typed := pgcache.For[string](c)
		for i := range writes / 10 {
			m := map[string]string{}
			for j := range 10 {
				m[strconv.Itoa((i*10+j)%keys)] = value
			}
			if err := typed.SetMany(t.Context(), m, pgcache.TTL(time.Duration(i+1)*time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
		db.Close() // sessions that end report what they did
		count := func(column string) int {
			return cl.count("SELECT "+column+" FROM pg_stat_user_tables WHERE schemaname = $1 AND relname = 't_cache_entries'", cl.opts.Schema)
		}
		eventually(t, "the statistics are there", func() bool { return count("n_tup_upd") >= writes-keys })
		updated, hot = count("n_tup_upd"), count("n_tup_hot_upd")
		if hot*10 >= updated*9 {
			return
		}
	}
	t.Errorf("%d of %d updates were HOT", hot, updated)
}

// The janitor goes through the table once, however many rows it removes: not once a batch.
func TestSweepReadsOnce(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.on(cl.db, func(o *pgcache.Options) { o.CleanupInterval = -1 })
	const rows, dead = 30_000, 6_000
	cl.exec(`INSERT INTO `+cl.table()+` (key, value, version, stamp, expires_at) SELECT 'k' || i, '1', i, i,
		CASE WHEN i % 5 = 0 THEN clock_timestamp() - interval '1 hour' END FROM generate_series(1, $1) i`, rows)
	read := func() int {
		return cl.count("SELECT coalesce(seq_tup_read + idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relid = $1::regclass", cl.table())
	}
	eventually(t, "the statistics are there", func() bool {
		return cl.count("SELECT n_tup_ins FROM pg_stat_user_tables WHERE relid = $1::regclass", cl.table()) == rows
	})
	before, removed := read(), 0
	for {
		n, err := c.Cleanup(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		removed += int(n)
	}
	if removed != dead {
		t.Errorf("%d rows removed, want %d", removed, dead)
	}
	time.Sleep(1500 * time.Millisecond) // statistics lag behind
	if n := read() - before; n > 6*rows {
		t.Errorf("%d rows read to remove %d of %d", n, dead, rows)
	}
}

// What a bounded table drops is published like writes, not row by row.
func TestTrimPublishesTogether(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.on(cl.db, func(o *pgcache.Options) { o.MaxRows, o.CleanupInterval = 100, 50*time.Millisecond })
	recorder := cl.record()
	cl.exec(`INSERT INTO ` + cl.table() + ` (key, value, version, stamp) SELECT 'k' || i, '1', i, i FROM generate_series(1, 5000) i`)
	eventually(t, "it is trimmed", func() bool { return cl.count("SELECT count(*) FROM "+cl.table()) <= 100 })
	eventually(t, "and published", func() bool { return cl.count("SELECT count(*) FROM "+cl.object("cache_changes")) == 0 })
	if n := len(recorder.received()); n > 100 {
		t.Errorf("%d notifications", n)
	}
	_ = c
}

// A transaction that is open on one row keeps a Clear waiting, and nobody else.
func TestClearStallsNobody(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c, other := cl.on(testdb.DB(t), func(o *pgcache.Options) { o.Timeout = time.Second }), cl.node(nil)
	set(t, other, "held", 1)
	set(t, other, "k", 1)
	tx, err := cl.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // it is rolled back below
	if _, err := tx.Exec("UPDATE " + cl.table() + " SET value = '2' WHERE key = 'held'"); err != nil {
		t.Fatal(err)
	}
	inTime(t, func() error {
		cleared := async(t, func() error { return c.Clear(t.Context()) })
		worst := time.Duration(0)
		for i := range 50 {
			began := time.Now()
			set(t, other, "k"+strconv.Itoa(i), i)
			worst = max(worst, time.Since(began))
			time.Sleep(10 * time.Millisecond)
		}
		if err := cleared(); err == nil {
			t.Error("a Clear that could not remove everything says that it did")
		}
		if worst > 500*time.Millisecond {
			return fmt.Errorf("a Set took %v beside a Clear", worst)
		}
		return nil
	})
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := c.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another node has forgotten it", func() bool { _, found := get[int](t, other, "held"); return !found })
}

package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// A Null cache has no stale value: callers that look for one while a load is slow wait for the load.
func TestNullIsPatient(t *testing.T) {
	t.Parallel()
	c := pgcache.Null()
	defer c.Close()
	v := pgcache.For[string](c, pgcache.StaleFor(time.Hour), pgcache.SoftTimeout(10*time.Millisecond))
	l := newLoader("new")
	load := func(ctx context.Context) (string, error) { v, err := l.load(ctx); s, _ := v.(string); return s, err }
	var results []func() error
	call := func(opts ...pgcache.Option) {
		results = append(results, async(t, func() error { _, err := v.GetOrSet(t.Context(), "k", load, opts...); return err }))
	}
	call()
	l.wait(t)
	call() // joins, after the look of the first
	if _, err := v.GetOrSet(t.Context(), "k", load, pgcache.HardTimeout(50*time.Millisecond)); !errors.Is(err, pgcache.ErrLoadTimeout) {
		t.Error(err)
	}
	l.release()
	for _, r := range results {
		if err := r(); err != nil {
			t.Error(err)
		}
	}
}

// HardTimeout holds where the database is what is slow: for one key and for many.
func TestHardTimeoutOfReads(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		db := testdb.Open(t, driver, testdb.DSN(t))
		c := cl.on(db, func(o *pgcache.Options) {
			o.Timeout, o.Listener = 10*time.Second, listenerOf(driver, db, testdb.DSN(t))
		})
		v := pgcache.For[string](c, pgcache.HardTimeout(200*time.Millisecond))
		stale := pgcache.For[string](c, pgcache.StaleFor(time.Minute), pgcache.TTL(500*time.Millisecond), pgcache.HardTimeout(200*time.Millisecond))
		eventually(t, "it is in memory", func() bool {
			if err := stale.Set(t.Context(), "stale", "old"); err != nil {
				t.Fatal(err)
			}
			before := c.Stats().LocalHits
			_, _, err := stale.Get(t.Context(), "stale")
			return err == nil && c.Stats().LocalHits > before
		})
		tx, err := cl.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback() //nolint:errcheck // it ends the lock
		if _, err := tx.ExecContext(t.Context(), "LOCK TABLE "+cl.table()+" IN ACCESS EXCLUSIVE MODE"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if s, err := v.GetOrSet(t.Context(), "k", returns("x")); !errors.Is(err, pgcache.ErrLoadTimeout) {
			t.Error(s, err)
		}
		many, err := v.GetOrSetMany(t.Context(), []string{"k", "l"}, func(context.Context, []string) (map[string]string, error) {
			return map[string]string{"k": "x", "l": "x"}, nil
		})
		if !errors.Is(err, pgcache.ErrLoadTimeout) || len(many) != 0 {
			t.Error(many, err)
		}
		// What has expired in memory is at hand.
		time.Sleep(time.Until(began.Add(600 * time.Millisecond)))
		r, err := stale.Fetch(t.Context(), "stale", func(context.Context, *pgcache.Load[string]) (string, error) { return "x", nil })
		wantStale(t, r, err, "old", pgcache.ErrLoadTimeout)
		if r.Source != pgcache.FromMemory {
			t.Error(r.Source)
		}
		many, err = stale.GetOrSetMany(t.Context(), []string{"k", "stale"}, func(context.Context, []string) (map[string]string, error) { return nil, nil })
		if !errors.Is(err, pgcache.ErrLoadTimeout) || len(many) != 1 || many["stale"] != "old" {
			t.Error(many, err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("they took %v", took)
		}
	})
}

// Without a Listener a node hears of no Set elsewhere: what has expired in its memory is then not handed out, also where the database
// can't be reached.
func TestNoListenerNoStaleMemory(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	link := testdb.NewProxy(t, testdb.DSN(t))
	a := cl.on(testdb.Open(t, "pgx", link.DSN()), func(o *pgcache.Options) { o.LocalTTL = time.Minute })
	b := cl.node(nil)
	v := pgcache.For[string](a, pgcache.StaleFor(time.Hour), pgcache.TTL(200*time.Millisecond))
	if err := v.Set(t.Context(), "k", "old"); err != nil {
		t.Fatal(err)
	}
	set(t, b, "k", "new")
	eventually(t, "it has expired", func() bool { s, _, err := v.Get(t.Context(), "k"); return err == nil && s == "new" })
	// What a reads leaves memory; so it writes once more, and b overwrites that.
	if err := v.Set(t.Context(), "k", "older"); err != nil {
		t.Fatal(err)
	}
	set(t, b, "k", "newer")
	time.Sleep(300 * time.Millisecond) // the entry in a's memory has expired
	link.Cut()
	if r, err := fetched(t, v, fails); !errors.Is(err, errSource) {
		t.Errorf("%+v, %v", r, err)
	}
}

// A loader in the background that has nothing ends the entry: it is not called again and again until the TTL is over.
func TestRefreshFindsNothing(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]pgcache.ViewOption{"plain": nil, "negative": {pgcache.NegativeTTL(time.Minute)}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			c, other := cl.node(nil), cl.node(nil)
			v := pgcache.For[string](c, append(opts, pgcache.TTL(time.Minute), pgcache.RefreshAfter(0.5))...)
			if err := v.Set(t.Context(), "k", "old", pgcache.TTL(20*time.Second)); err != nil { // due at once
				t.Fatal(err)
			}
			warm(t, other, "k", "old")
			eventually(t, "it is gone", func() bool {
				_, err := v.GetOrSet(t.Context(), "k", func(context.Context) (string, error) { return "", pgcache.ErrNotFound })
				return errors.Is(err, pgcache.ErrNotFound)
			})
			eventually(t, "it is gone elsewhere", func() bool { _, found := get[string](t, other, "k"); return !found })
		})
	}
}

// A value from the background that can't be stored is a failure: counted, and not tried again at once.
func TestRefreshThatCannotBeStored(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.MaxValueBytes = 100 })
	v := pgcache.For[string](c, pgcache.TTL(time.Minute), pgcache.RefreshAfter(0.5))
	if err := v.Set(t.Context(), "k", "old", pgcache.TTL(20*time.Second)); err != nil { // due at once
		t.Fatal(err)
	}
	large := string(make([]byte, 101))
	eventually(t, "it is counted", func() bool {
		if s, err := v.GetOrSet(t.Context(), "k", returns(large)); err != nil || s != "old" {
			t.Fatal(s, err)
		}
		return c.Stats().EarlyErrors == 1
	})
}

// A caller of many keys that joins a load in the background which gives up loads for itself.
func TestJoinerOfAnIdleRefresh(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	db, w := openWire(t, "pgx", testdb.DSN(t))
	c := cl.on(db, nil) // no listener: every call asks the database
	v := pgcache.For[string](c, pgcache.TTL(time.Minute), pgcache.RefreshAfter(0.5))
	if err := v.Set(t.Context(), "k", "old", pgcache.TTL(20*time.Second)); err != nil { // due at once
		t.Fatal(err)
	}
	reading, looking := w.after(named("GetEntries")), w.before(named("LockAndLook"))
	cl.exec("UPDATE " + cl.table() + " SET expires_at = clock_timestamp() - interval '1 second'")
	many := async(t, func() map[string]string {
		m, err := v.GetOrSetMany(t.Context(), []string{"k", "l"}, func(_ context.Context, keys []string) (map[string]string, error) {
			m := map[string]string{}
			for _, k := range keys {
				m[k] = "new"
			}
			return m, nil
		})
		if err != nil {
			t.Error(err)
		}
		return m
	})
	reading.wait(t) // it has found nothing
	cl.exec("UPDATE " + cl.table() + " SET expires_at = clock_timestamp() + interval '20 seconds'")
	if s, err := v.GetOrSet(t.Context(), "k", returns("refreshed")); s != "old" || err != nil {
		t.Fatal(s, err)
	}
	looking.wait(t)
	cl.exec("DELETE FROM " + cl.table())
	coalesced := c.Stats().Coalesced
	reading.release()
	eventually(t, "it joins", func() bool { return c.Stats().Coalesced > coalesced })
	looking.release()
	if m := many(); len(m) != 2 {
		t.Errorf("%v", m)
	}
}

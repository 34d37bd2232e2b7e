package integration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/driver/drivertest"
	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/driver/pqdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// TestPgBouncer runs the drivers' suite and what is special about poolers on the newest server that can be had.
func TestPgBouncer(t *testing.T) {
	s := newest(t)
	t.Run("session mode", func(t *testing.T) {
		dsn := bouncer(t, s, "session")
		t.Run("drivers", func(t *testing.T) {
			for _, f := range []drivertest.Factory{pgxModes[0], pqModes[0]} {
				f.Pooled = true
				drivertest.Exercise(t, dsn, f)
			}
		})
		t.Run("guard", func(t *testing.T) { guard(t, s, dsn, pgxModes[0], pgcache.AdvisoryLock(), true) })
	})
	t.Run("transaction mode", func(t *testing.T) {
		dsn := bouncer(t, s, "transaction")
		// Statements must not depend on what was prepared before: another client may have this session now.
		modes := []drivertest.Factory{viaPgx("exec"), viaPgx("simple_protocol"), viaPq("yes")}
		t.Run("drivers", func(t *testing.T) {
			for _, f := range modes {
				f.Pooled = true
				drivertest.Exercise(t, dsn, listeningTo(s.dsn, f))
				drivertest.Exercise(t, dsn, polling(f))
			}
		})
		for _, f := range modes {
			t.Run("no echo, "+f.Name, func(t *testing.T) { noEcho(t, dsn, f) })
		}
		t.Run("guard", func(t *testing.T) { guard(t, s, dsn, modes[0], pgcache.AdvisoryLock(), false) })
		for _, f := range modes {
			t.Run("lease, "+f.Name, func(t *testing.T) { guard(t, s, dsn, f, pgcache.Lease(), true) })
		}
	})
}

// noEcho: a listener behind the pooler is found out, and without one the cache works, on the database alone.
func noEcho(t *testing.T, dsn string, f drivertest.Factory) {
	t.Parallel()
	ctx := t.Context()
	db := f.Open(t, dsn)
	dial := pgxdriver.Dial(db)
	if strings.HasPrefix(f.Name, "pq") {
		dial = pqdriver.DialDSN(dsn)
	}
	var warnings atomic.Int32
	quick := listener.Config{HeartbeatEvery: 50 * time.Millisecond, ProbeTimeout: time.Second, Logger: slog.New(counting{&warnings})}
	c := open(t, db, func(o *pgcache.Options) { o.Listener = listener.New(dial, quick) })

	soon, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	err := c.Ready(soon)
	if !errors.Is(err, listener.ErrNoEcho) {
		t.Errorf("Ready returns %v, want ErrNoEcho", err)
	}
	want := func(found bool, got, want string, err error) {
		t.Helper()
		if err != nil || !found || got != want {
			t.Errorf("got %q, %v, %v; want %q", got, found, err, want)
		}
	}
	for i := range 50 {
		value := fmt.Sprint(i)
		if err := c.Set(ctx, "set", value); err != nil {
			t.Error(err)
		}
		for range 2 {
			var got string
			found, err := c.Get(ctx, "set", &got)
			want(found, got, value, err)
		}
		for range 2 {
			var got string
			err := c.GetOrSet(ctx, "loaded "+value, &got, func(context.Context) (any, error) { return value, nil })
			want(true, got, value, err)
		}
	}
	if s := c.Stats(); s.LocalHits != 0 || s.Loads != 50 {
		t.Errorf("%d local hits, want none; %d loads, want 50", s.LocalHits, s.Loads)
	}
	if n := warnings.Load(); n != 1 {
		t.Errorf("%d warnings, want one", n)
	}
	ids := map[string]bool{}
	for range 50 { // PgBouncer may happen to give both connections that Doctor looks at what they had
		found, err := c.Doctor(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			ids[f.ID] = true
		}
		if ids["pooler"] {
			break
		}
	}
	if !ids["pooler"] || !ids["listener"] {
		t.Errorf("Doctor finds %v", ids)
	}
}

// guard has two nodes load the same keys at the same time, many keys at a time, so that the pooler hands sessions around.
// Where it works each key is loaded once. In transaction mode advisory locks can't work, but they must not be in the way: no
// call waits for a lock that nobody holds any more, and none is left behind.
func guard(t *testing.T, s *server, dsn string, f drivertest.Factory, g pgcache.Guard, works bool) {
	const keys, rounds = 20, 3
	ctx := t.Context()
	one := open(t, f.Open(t, dsn), func(o *pgcache.Options) { o.Guard = g })
	two := open(t, f.Open(t, dsn), func(o *pgcache.Options) { *o = one.options })
	var loads atomic.Int32
	var slowest atomic.Int64
	for round := range rounds {
		var wg sync.WaitGroup
		for key := range keys {
			for _, c := range []*node{one, two} {
				wg.Go(func() {
					began := time.Now()
					var got int
					err := c.GetOrSet(ctx, fmt.Sprint(key), &got, func(context.Context) (any, error) {
						loads.Add(1)
						time.Sleep(10 * time.Millisecond)
						return key, nil
					})
					if err != nil || got != key {
						t.Errorf("round %d: GetOrSet returns %d, %v", round, got, err)
					}
					slowest.Store(max(slowest.Load(), int64(time.Since(began))))
				})
			}
		}
		wg.Wait()
		for key := range keys {
			if err := one.Delete(ctx, fmt.Sprint(key)); err != nil {
				t.Fatal(err)
			}
		}
	}
	errs := one.Stats().GuardErrors + two.Stats().GuardErrors
	t.Logf("%d loads of %d, the slowest call took %v, %d guard errors", loads.Load(), keys*rounds, time.Duration(slowest.Load()), errs)
	if works && errs != 0 {
		t.Errorf("%d guard errors", errs)
	}
	if n := int(loads.Load()); works && n != keys*rounds || n > 2*keys*rounds {
		t.Errorf("%d loads of %d keys", n, keys*rounds)
	}
	if took := time.Duration(slowest.Load()); took > 3*time.Second { // LockTimeout is 5 s
		t.Errorf("a call took %v", took)
	}
	one.Close()
	two.Close()
	admin := testdb.Open(t, "pgx", s.dsn)
	var left int
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		err := admin.QueryRowContext(ctx, `SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND state = 'idle'`).Scan(&left)
		if err != nil {
			t.Fatal(err)
		}
		if left == 0 {
			return
		}
	}
	t.Errorf("%d advisory locks are left behind", left)
}

// counting is a handler that counts warnings.
type counting struct{ n *atomic.Int32 }

func (c counting) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (c counting) Handle(context.Context, slog.Record) error    { c.n.Add(1); return nil }
func (c counting) WithAttrs([]slog.Attr) slog.Handler           { return c }
func (c counting) WithGroup(string) slog.Handler                { return c }

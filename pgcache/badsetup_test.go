package pgcache_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/driver/pqdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

func TestBadCalls(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	db, wire := openWire(t, "pgx", testdb.DSN(t))
	c := cl.on(db, nil)
	set(t, c, "k", 1)
	wire.forget()
	ctx, load := t.Context(), noLoad(t)
	typed := pgcache.For[int](c)
	var nilPtr *int
	get := func(dst any) error { _, err := c.Get(ctx, "k", dst); return err }
	_, noLoader := typed.GetOrSet(ctx, "k", nil)
	_, noLoaderMany := typed.GetOrSetMany(ctx, []string{"k"}, nil)
	for name, call := range map[string]struct {
		err  error
		says string
	}{
		"Get into nil":           {get(nil), "pointer"},
		"Get into an int":        {get(7), "pointer"},
		"Get into a nil pointer": {get(nilPtr), "pointer"},
		"Get into a map":         {get(map[string]int{}), "pointer"},
		"GetOrSet into nil":      {c.GetOrSet(ctx, "k", nil, load), "pointer"},
		"GetOrSet into an int":   {c.GetOrSet(ctx, "k", 7, load), "pointer"},
		"nil loader":             {c.GetOrSet(ctx, "k", new(int), nil), "loader is nil"},
		"typed nil loader":       {noLoader, "loader is nil"},
		"nil loader of many":     {noLoaderMany, "loader is nil"},
		"nil codec":              {c.Set(ctx, "k", 1, pgcache.WithCodec(nil)), "odec"},
	} {
		var e *pgcache.Error
		if !errors.As(call.err, &e) || !strings.Contains(call.err.Error(), call.says) {
			t.Errorf("%s: %v", name, call.err)
		}
	}
	if s := wire.statements(); len(s) != 0 {
		t.Errorf("sent %q", s)
	}
	want(t, c, "k", 1)
	// Nothing to do is no error.
	for name, err := range map[string]error{"Delete": c.Delete(ctx), "typed Delete": typed.Delete(ctx), "SetMany": typed.SetMany(ctx, nil)} {
		if err != nil {
			t.Errorf("%s of nothing: %v", name, err)
		}
	}
	if m, err := typed.GetMany(ctx, nil); len(m) != 0 || err != nil {
		t.Error(m, err)
	}
	if m, err := typed.GetOrSetMany(ctx, nil, func(context.Context, []string) (map[string]int, error) { t.Error("called"); return nil, nil }); len(m) != 0 || err != nil {
		t.Error(m, err)
	}
}

// Without the tables every operation says to run Migrate, with either driver, and nothing is sent again and again.
func TestMissingTables(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		c := cl.new(testdb.Open(t, driver, testdb.DSN(t)), nil)
		calls := keyCalls(t, c)
		calls["Ready"] = func(string) error { return c.Ready(t.Context()) }
		calls["Clear"] = func(string) error { return c.Clear(t.Context()) }
		calls["Cleanup"] = func(string) error { _, err := c.Cleanup(t.Context()); return err }
		for _, name := range slices.Sorted(maps.Keys(calls)) {
			err := calls[name]("k")
			wantErr(t, err, pgcache.ErrNotMigrated)
			if err != nil && !strings.Contains(err.Error(), "Migrate") {
				t.Errorf("%s: %v", name, err)
			}
		}
		// A schema that is not there is the same.
		gone := cl.new(testdb.Open(t, driver, testdb.DSN(t)), func(o *pgcache.Options) { o.Schema = "no_such_schema" })
		wantErr(t, gone.Set(t.Context(), "k", 1), pgcache.ErrNotMigrated)

		if err := c.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		set(t, c, "k", 1)
		want(t, c, "k", 1)
	})
}

// Without the rights every operation says so: a fault of the configuration is never a silent miss.
func TestMissingRights(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		owner := cl.on(testdb.DB(t), nil)
		set(t, owner, "k", 1)
		role := cl.opts.Schema + "_role"
		cl.exec("CREATE ROLE " + role)
		defer cl.exec("DROP OWNED BY " + role + "; DROP ROLE " + role)
		c := cl.new(testdb.Open(t, driver, testdb.WithParam(testdb.DSN(t), "role", role)), nil)
		for name, call := range keyCalls(t, c) {
			if err := call("x"); err == nil || !strings.Contains(err.Error(), "permission denied") {
				t.Errorf("%s: %v", name, err)
			}
		}
		cl.exec(fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s; GRANT SELECT ON ALL TABLES IN SCHEMA %[1]s TO %[2]s; GRANT SELECT ON ALL SEQUENCES IN SCHEMA %[1]s TO %[2]s", cl.opts.Schema, role))
		want(t, c, "k", 1)
		for name, err := range map[string]error{
			"Set": c.Set(t.Context(), "k", 2), "Delete": c.Delete(t.Context(), "k"),
			"GetOrSet": c.GetOrSet(t.Context(), "x", new(int), func(context.Context) (any, error) { return 1, nil }),
		} {
			if err == nil || !strings.Contains(err.Error(), "permission denied") {
				t.Errorf("with SELECT alone, %s: %v", name, err)
			}
		}
		want(t, owner, "k", 1)
	})
}

// A listener that can never work: Ready says so at once, and the cache works without a memory.
func TestUselessListener(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.on(testdb.DB(t), nil)
	pq := testdb.Open(t, "postgres", testdb.DSN(t))
	for name, l := range map[string]pgcache.Listener{
		"pgx's on a pool of lib/pq": pgxdriver.Listener(pq), "no DSN": pgxdriver.ListenerDSN("postgres://%%%"), "no DSN of lib/pq": pqdriver.Listener("postgres://%%%"),
	} {
		c := cl.new(pq, func(o *pgcache.Options) { o.Listener = l })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := c.Ready(ctx)
		cancel()
		if cause(t, err, "ready", ""); errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: Ready waits for what never comes: %v", name, err)
		}
		for v := range 3 {
			set(t, a, name, v)
			want(t, c, name, v)
			want(t, c, name, v)
		}
		if n := c.Stats().LocalHits; n != 0 {
			t.Errorf("%s: %d hits in memory", name, n)
		}
	}
}

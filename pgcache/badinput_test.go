package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/driver/pqdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// noLoad is a loader that must not be called.
func noLoad(t *testing.T) func(context.Context) (any, error) {
	return func(context.Context) (any, error) {
		t.Error("the loader is called")
		return nil, errors.New("the loader is called")
	}
}

// keyCalls are all operations on a key. Those of many keys have a good one beside it.
func keyCalls(t *testing.T, c *pgcache.Cache) map[string]func(key string) error {
	ctx := t.Context()
	typed := pgcache.For[int](c)
	load := noLoad(t)
	loadInt := func(ctx context.Context) (int, error) { _, err := load(ctx); return 0, err }
	loadMany := func(ctx context.Context, _ []string) (map[string]int, error) { _, err := load(ctx); return nil, err }
	return map[string]func(key string) error{
		"Get":                func(k string) error { _, err := c.Get(ctx, k, new(int)); return err },
		"Set":                func(k string) error { return c.Set(ctx, k, 1) },
		"GetOrSet":           func(k string) error { return c.GetOrSet(ctx, k, new(int), load) },
		"Delete":             func(k string) error { return c.Delete(ctx, k) },
		"Delete many":        func(k string) error { return c.Delete(ctx, "good", k) },
		"typed Get":          func(k string) error { _, _, err := typed.Get(ctx, k); return err },
		"typed Set":          func(k string) error { return typed.Set(ctx, k, 1) },
		"typed GetOrSet":     func(k string) error { _, err := typed.GetOrSet(ctx, k, loadInt); return err },
		"typed Delete":       func(k string) error { return typed.Delete(ctx, "good", k) },
		"typed GetMany":      func(k string) error { _, err := typed.GetMany(ctx, []string{"good", k}); return err },
		"typed SetMany":      func(k string) error { return typed.SetMany(ctx, map[string]int{"good": 2, k: 1}) },
		"typed GetOrSetMany": func(k string) error { _, err := typed.GetOrSetMany(ctx, []string{"good", k}, loadMany); return err },
	}
}

func TestBadKeys(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		db, wire := openWire(t, driver, testdb.DSN(t))
		c := cl.on(db, nil)
		set(t, c, "good", 1)
		keys := map[string]string{
			"empty": "", "1025 bytes": strings.Repeat("x", 1025), "8 kB": strings.Repeat("x", 8000), "1 MB": strings.Repeat("x", 1<<20),
			"512 runes of 3 bytes": strings.Repeat("\u20ac", 512), "NUL": "a\x00b", "only NUL": "\x00", "invalid UTF-8": "a\xffb",
			"a surrogate": "a\xed\xa0\x80", "cut off": "a\xe2\x82",
		}
		wire.forget()
		for what, key := range keys {
			for name, call := range keyCalls(t, c) {
				err := call(key)
				wantErr(t, err, pgcache.ErrInvalidKey)
				if err != nil && len(err.Error()) > 1000 {
					t.Errorf("%s of a key of %s: an error of %d bytes", name, what, len(err.Error()))
				}
				if s := wire.statements(); len(s) != 0 {
					t.Fatalf("%s of a key that is %s: sent %q", name, what, s)
				}
			}
		}
		// The namespace counts.
		long := pgcache.For[int](c, pgcache.Namespace("ns"))
		if err := long.Set(t.Context(), strings.Repeat("x", 1021), 1); err != nil {
			t.Error(err)
		}
		wire.forget()
		wantErr(t, long.Set(t.Context(), strings.Repeat("x", 1022), 1), pgcache.ErrInvalidKey)
		_, _, err := long.Get(t.Context(), "")
		wantErr(t, err, pgcache.ErrInvalidKey)
		for _, ns := range []string{"", "a:b", ":", "a\x00", "\xff", strings.Repeat("n", 513)} {
			view := pgcache.For[int](c, pgcache.Namespace(ns))
			for name, err := range map[string]error{
				"Set": view.Set(t.Context(), "good", 1), "Delete": view.Delete(t.Context(), "good"), "Delete of none": view.Delete(t.Context()),
				"SetMany": view.SetMany(t.Context(), map[string]int{"good": 2}), "SetMany of none": view.SetMany(t.Context(), nil),
			} {
				if !errors.Is(err, pgcache.ErrInvalidKey) {
					t.Errorf("namespace %.10q: %s: %v", ns, name, err)
				}
			}
			if _, err := view.GetOrSet(t.Context(), "x", func(context.Context) (int, error) { return 1, nil }); !errors.Is(err, pgcache.ErrInvalidKey) {
				t.Errorf("namespace %.10q: GetOrSet: %v", ns, err)
			}
		}
		if s := wire.statements(); len(s) != 0 {
			t.Errorf("sent %q", s)
		}
		want(t, c, "good", 1)
		if n := cl.count("SELECT count(*) FROM " + cl.table()); n != 2 {
			t.Errorf("%d rows", n)
		}
	})
}

// A wrong option of a view makes every call fail, also where the value is in memory.
func TestBadView(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	set(t, c, "k", 1)
	warm(t, c, "k", 1)
	for name, o := range map[string]pgcache.Option{
		"no namespace": pgcache.Namespace(""), "negative TTL": pgcache.TTL(-5), "no codec": pgcache.WithCodec(nil), "bad codec": pgcache.WithCodec(rawCodec{name: "no spaces!"}),
	} {
		view := pgcache.For[int](c, o)
		_, _, err1 := view.Get(t.Context(), "k")
		_, err2 := view.GetOrSet(t.Context(), "k", func(context.Context) (int, error) { return 1, nil })
		_, err3 := view.GetMany(t.Context(), []string{"k"})
		for i, err := range []error{err1, err2, err3, view.Set(t.Context(), "k", 1)} {
			var e *pgcache.Error
			if !errors.As(err, &e) {
				t.Errorf("%s: call %d: %v", name, i, err)
			}
		}
	}
}

func TestStrangeKeys(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		cl.opts.InvalidationWindow = pgcache.Immediate
		a := cl.on(testdb.Open(t, driver, testdb.DSN(t)), nil)
		b := cl.node(func(db *sql.DB, o *pgcache.Options) { o.Listener = calm(pgxdriver.Dial(db)) })
		typed := pgcache.For[int](a)
		keys := []string{
			" ", "'", `"`, `\`, `\\"`, "a\nb\r\t", "\x01\x1f\x7f", "{}", "{a,b}", "NULL", "null", ",", "$1", "%s", "--", "/* */", ";", "a;b", "1:2", ":", "::", ":x",
			"x:", "a:b:c", "5:a0000000000000001;", "*", "2*", "p", "\u202e\u05d0", "\U0001f4a3", "e\u0301", "\u00e9", "\ufeff", "\ufffd", "\ufffe", "K", "k",
			`\x41`, "'; DROP TABLE x; --", strings.Repeat(`"\`, 512),
		}
		all := map[string]int{}
		for i, k := range keys {
			set(t, a, k, i)
			warm(t, b, k, i)
			all[k] = i
		}
		if m, err := typed.GetMany(t.Context(), keys); err != nil || !cmp.Equal(m, all) {
			t.Fatal(err, cmp.Diff(all, m))
		}
		for i, k := range keys { // through a notification of one
			set(t, a, k, 100+i)
		}
		n := uint64(len(keys))
		eventually(t, "b hears of all", func() bool { return b.Stats().Invalidations == n })
		for i, k := range keys {
			warm(t, b, k, 100+i)
			all[k] = 1000 + i
		}
		if err := typed.SetMany(t.Context(), all); err != nil { // and of many
			t.Fatal(err)
		}
		eventually(t, "b hears of all", func() bool { return b.Stats().Invalidations == 2*n })
		for k, v := range all {
			warm(t, b, k, v)
		}
		if err := a.Delete(t.Context(), keys...); err != nil {
			t.Fatal(err)
		}
		eventually(t, "b hears of all", func() bool { return b.Stats().Invalidations == 3*n })
		for _, k := range keys {
			wantNone(t, b, k)
			if v, err := typed.GetOrSet(t.Context(), k, func(context.Context) (int, error) { return 7, nil }); v != 7 || err != nil {
				t.Errorf("%q: %v, %v", k, v, err)
			}
		}
		if m, err := typed.GetOrSetMany(t.Context(), keys, func(_ context.Context, missing []string) (map[string]int, error) {
			t.Errorf("missing %q", missing)
			return nil, nil
		}); err != nil || len(m) != len(keys) {
			t.Error(m, err)
		}
		// By hand, through the trigger.
		for _, k := range keys {
			warm(t, b, k, 7)
		}
		before := b.Stats()
		cl.exec("UPDATE " + cl.table() + " SET value = '8'")
		eventually(t, "b hears of all", func() bool { return b.Stats().Invalidations == before.Invalidations+n })
		for _, k := range keys {
			want(t, b, k, 8)
		}
		if after := b.Stats(); after.LocalFlushes != before.LocalFlushes {
			t.Error("a key made b forget everything")
		}
	})
}

// rawCodec keeps bytes as they are.
type rawCodec struct{ name string }

func (c rawCodec) Name() string { return c.name }
func (rawCodec) Marshal(v any) ([]byte, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("%T is not []byte", v)
	}
	return slices.Clone(b), nil
}

func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = slices.Clone(data)
	return nil
}

func TestValueSizes(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		const limit = 10000
		cl := newCluster(t)
		db, wire := openWire(t, driver, testdb.DSN(t))
		c := cl.on(db, func(o *pgcache.Options) { o.Codec, o.MaxValueBytes = rawCodec{"raw"}, limit })
		reader := cl.on(testdb.DB(t), func(o *pgcache.Options) { o.Codec = rawCodec{"raw"} })
		typed := pgcache.For[[]byte](c)
		for name, v := range map[string][]byte{
			"nil": nil, "empty": {}, "NUL": {0}, "all bytes": allBytes(), "the limit": make([]byte, limit), "a backslash": []byte(`\x41`),
		} {
			if err := typed.Set(t.Context(), name, v); err != nil {
				t.Fatal(err)
			}
			if err := typed.SetMany(t.Context(), map[string][]byte{name + "1": v, name + "2": v}); err != nil {
				t.Fatal(err)
			}
			if _, err := typed.GetOrSet(t.Context(), name+"3", func(context.Context) ([]byte, error) { return v, nil }); err != nil {
				t.Fatal(err)
			}
			for _, key := range []string{name, name + "1", name + "2", name + "3"} {
				got, found, err := pgcache.For[[]byte](reader).Get(t.Context(), key)
				if !found || err != nil || !slices.Equal(got, v) {
					t.Errorf("%s: %v, %v, %v", key, got, found, err)
				}
				got, found, err = typed.Get(t.Context(), key)
				if !found || err != nil || !slices.Equal(got, v) {
					t.Errorf("%s: %v, %v, %v", key, got, found, err)
				}
			}
		}
		set(t, c, "k", []byte("before"))
		wire.forget()
		large := make([]byte, limit+1)
		wantErr(t, c.Set(t.Context(), "k", large), pgcache.ErrValueTooLarge)
		wantErr(t, c.Set(t.Context(), "k", make([]byte, 5<<20)), pgcache.ErrValueTooLarge)
		wantErr(t, typed.SetMany(t.Context(), map[string][]byte{"k": []byte("after"), "l": large}), pgcache.ErrValueTooLarge)
		cause(t, c.Set(t.Context(), "k", large), "set", "k")
		// Nor what can't be encoded.
		for _, err := range []error{c.Set(t.Context(), "k", make(chan int)), c.Set(t.Context(), "k", func() {}, pgcache.WithCodec(codec.JSON{}))} {
			if e := cause(t, err, "set", "k"); !strings.Contains(e.Error(), "chan int") && !strings.Contains(e.Error(), "func()") {
				t.Error("the error does not say what it could not encode:", err)
			}
		}
		if s := wire.statements(); len(s) != 0 {
			t.Errorf("sent %q", s)
		}
		// What a loader returns: an error for its callers, nothing is stored.
		err := c.GetOrSet(t.Context(), "loaded", new([]byte), func(context.Context) (any, error) { return large, nil })
		wantErr(t, err, pgcache.ErrValueTooLarge)
		err = c.GetOrSet(t.Context(), "loaded", new([]byte), func(context.Context) (any, error) { return make(chan int), nil })
		cause(t, err, "get or set", "loaded")
		if n := cl.count("SELECT count(*) FROM " + cl.table() + " WHERE key IN ('loaded', 'l')"); n != 0 {
			t.Errorf("%d rows", n)
		}
		if v, _, _ := typed.Get(t.Context(), "k"); string(v) != "before" {
			t.Errorf("%q", v)
		}
		cl.noLocks()
	})
}

func allBytes() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

func TestBadTTLs(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		db, wire := openWire(t, driver, testdb.DSN(t))
		c := cl.on(db, func(o *pgcache.Options) { o.LocalTTL = time.Hour }) // also where the value is at hand
		typed := pgcache.For[int](c)
		set(t, c, "k", 1)
		want(t, c, "k", 1)
		wire.forget()
		for _, ttl := range []time.Duration{-2, -time.Second, -1 << 63} {
			o := pgcache.TTL(ttl)
			view := pgcache.For[int](c, o)
			_, err1 := typed.GetOrSet(t.Context(), "k", func(context.Context) (int, error) { return 1, nil }, o)
			_, err2 := typed.GetOrSetMany(t.Context(), []string{"k"}, func(context.Context, []string) (map[string]int, error) { return nil, nil }, o)
			for _, err := range []error{
				c.Set(t.Context(), "k", 2, o), c.GetOrSet(t.Context(), "k", new(int), noLoad(t), o), typed.Set(t.Context(), "k", 2, o),
				typed.SetMany(t.Context(), map[string]int{"k": 2}, o), view.Set(t.Context(), "k", 2), err1, err2,
			} {
				wantErr(t, err, pgcache.ErrInvalidTTL)
				if err != nil && !strings.Contains(err.Error(), ttl.String()) {
					t.Errorf("the error does not name %v: %v", ttl, err)
				}
			}
		}
		for _, s := range wire.statements() {
			if s != "Flush" {
				t.Errorf("sent %q", s)
			}
		}
		want(t, c, "k", 1)
		// Short ones expire, none is an error, none becomes "never".
		for _, ttl := range []time.Duration{1, time.Microsecond, 1500} {
			set(t, c, "short", 1, pgcache.TTL(ttl))
			eventually(t, "it expires", func() bool { _, found := get[int](t, c, "short"); return !found })
		}
		for _, ttl := range []time.Duration{pgcache.MaxTTL, pgcache.MaxTTL + 1, 1<<63 - 1} {
			set(t, c, "long", 1, pgcache.TTL(ttl))
			want(t, c, "long", 1)
		}
	})
}

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
		"Namespace of one call":  {c.Set(ctx, "k", 1, pgcache.Namespace("x")), "Namespace"},
		"Shared of one call":     {typed.Set(ctx, "k", 1, pgcache.Shared()), "Shared"},
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

// wildCodec does what no codec may.
type wildCodec struct{ marshal, unmarshal func() }

func (wildCodec) Name() string { return "json" }
func (c wildCodec) Marshal(v any) ([]byte, error) {
	if c.marshal != nil {
		c.marshal()
	}
	return codec.JSON{}.Marshal(v)
}

func (c wildCodec) Unmarshal(data []byte, v any) error {
	if c.unmarshal != nil {
		c.unmarshal()
	}
	return codec.JSON{}.Unmarshal(data, v)
}

func TestPanickingCodec(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	set(t, c, "k", 1)
	boom := func() { panic("boom") }
	in := pgcache.WithCodec(wildCodec{marshal: boom})
	for name, err := range map[string]error{
		"set":        c.Set(t.Context(), "k", 2, in),
		"get or set": c.GetOrSet(t.Context(), "new", new(int), func(context.Context) (any, error) { return 1, nil }, in),
	} {
		if err == nil || !strings.Contains(err.Error(), "boom") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, view := range []*pgcache.Typed[int]{pgcache.For[int](c, pgcache.WithCodec(wildCodec{unmarshal: boom})), pgcache.For[int](c, pgcache.WithCodec(wildCodec{unmarshal: boom}), pgcache.Shared())} {
		if v, found, err := view.Get(t.Context(), "k"); v != 0 || found || err != nil {
			t.Error(v, found, err)
		}
	}
	if c.Stats().DecodeErrors == 0 {
		t.Error("not counted")
	}
	want(t, c, "k", 1)
	wantNone(t, c, "new")
	cl.noLocks()
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
		cl.exec(fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s; GRANT SELECT ON ALL TABLES IN SCHEMA %[1]s TO %[2]s", cl.opts.Schema, role))
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
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
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

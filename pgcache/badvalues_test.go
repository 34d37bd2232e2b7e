package pgcache_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/msgpack"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

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
		for _, ttl := range []time.Duration{-1, -2, -time.Second, -1 << 63, -1<<63 + 1, time.Until(time.Time{}), -time.Since(time.Time{})} {
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
		// Not what it panicked with: that may be the value.
		if err == nil || !strings.Contains(err.Error(), "panicked with a string") || strings.Contains(err.Error(), "boom") {
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

// Nothing of what dst held before is left in what it holds after: whoever read the administrator's record into a variable
// must not find its rights in the guest's.
func TestDstIsZeroed(t *testing.T) {
	t.Parallel()
	type account struct {
		Name  string
		Admin bool              `json:",omitempty" msgpack:",omitempty"`
		Roles []string          `json:",omitempty" msgpack:",omitempty"`
		Notes map[string]string `json:",omitempty" msgpack:",omitempty"`
		Boss  *account          `json:",omitempty" msgpack:",omitempty"`
	}
	cl := newCluster(t)
	for _, cd := range []codec.Codec{codec.JSON{}, codec.Gob{}, msgpack.Codec{}} {
		near := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.Codec = cd })
		far := cl.on(cl.db, func(o *pgcache.Options) { o.Codec = cd })
		root := account{"root", true, []string{"all"}, map[string]string{"a": "b"}, &account{Name: "god", Admin: true}}
		guest := account{Name: "guest", Boss: &account{Name: "root"}}
		for key, v := range map[string]account{"root": root, "guest": guest} {
			set(t, near, cd.Name()+key, v)
		}
		for _, c := range []*pgcache.Cache{near, far, near} { // from memory and from the database
			var v account
			for _, want := range []account{root, guest, root, guest} {
				if found, err := c.Get(t.Context(), cd.Name()+want.Name, &v); !found || err != nil {
					t.Fatal(found, err)
				}
				if d := cmp.Diff(want, v); d != "" {
					t.Errorf("%s: %s", cd.Name(), d)
				}
			}
			v = root
			if err := c.GetOrSet(t.Context(), cd.Name()+"guest", &v, noLoad(t)); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(guest, v); d != "" {
				t.Errorf("%s: %s", cd.Name(), d)
			}
			if err := c.GetOrSet(t.Context(), cd.Name()+"loaded", &v, func(context.Context) (any, error) { return guest, nil }); err != nil || v.Admin || v.Roles != nil {
				t.Errorf("%+v, %v", v, err)
			}
			del(t, c, cd.Name()+"loaded")
			v = root
			if found, err := c.Get(t.Context(), "none", &v); found || err != nil || !v.Admin {
				t.Error("a miss leaves dst as it was:", found, err, v)
			}
		}
	}
}

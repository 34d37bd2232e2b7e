package pgcache_test

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/compress"
	"github.com/pgcache/go/codec/encrypt"
	"github.com/pgcache/go/pgcache"
)

func sealed(t *testing.T, keys ...encrypt.Key) codec.Codec {
	t.Helper()
	c, err := encrypt.New(compress.New(codec.JSON{}), keys...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func secretKey(id string) encrypt.Key {
	return encrypt.Key{ID: id, Secret: []byte(strings.Repeat(id[:1], 32))}
}

// expect reads key twice, from the database and from memory.
func expect(t *testing.T, v *pgcache.Typed[string], key, want string) {
	t.Helper()
	for range 2 {
		if got, found, err := v.Get(t.Context(), key); err != nil || found != (want != "") || got != want {
			t.Errorf("%s: %.40q, %v, %v; want %.40q", key, got, found, err, want)
		}
	}
}

func TestCodecsInACache(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	long := strings.Repeat("long ", 2000)
	for _, cd := range []codec.Codec{codec.Raw{}, compress.New(codec.Raw{}), compress.New(codec.JSON{}), sealed(t, secretKey("a"))} {
		c := cl.on(cl.db, func(o *pgcache.Options) { o.Codec = cd })
		other := cl.on(cl.db, nil)
		views := map[string]*pgcache.Typed[string]{
			"options": pgcache.For[string](c, pgcache.Namespace(cd.Name())),
			"view":    pgcache.For[string](other, pgcache.Namespace(cd.Name()), pgcache.WithCodec(cd)),
		}
		for name, v := range views {
			for _, value := range []string{"short", long} {
				if err := v.Set(t.Context(), name, value); err != nil {
					t.Fatal(err)
				}
				for _, reader := range views {
					expect(t, reader, name, value)
				}
			}
		}
	}
}

func TestRowsOfTheBareCodec(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	set(t, cl.on(cl.db, nil), "k", "written as JSON")
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.Codec = compress.New(codec.JSON{}) })
	expect(t, pgcache.For[string](c), "k", "written as JSON")
	var got any
	for range 2 {
		if found, err := c.Get(t.Context(), "k", &got); !found || err != nil || got != "written as JSON" {
			t.Errorf("%v, %v, %v", got, found, err)
		}
	}
	if s := c.Stats(); s.DecodeErrors != 0 {
		t.Errorf("%d decode errors", s.DecodeErrors)
	}
	cipher := cl.on(cl.db, func(o *pgcache.Options) { o.Codec = sealed(t, secretKey("a")) })
	expect(t, pgcache.For[string](cipher), "k", "")
}

func TestEncryptedRows(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	before := cl.on(cl.db, func(o *pgcache.Options) { o.Codec = sealed(t, secretKey("old")) })
	after := cl.on(cl.db, func(o *pgcache.Options) { o.Codec = sealed(t, secretKey("new"), secretKey("old")) })
	without := cl.on(cl.db, func(o *pgcache.Options) { o.Codec = sealed(t, secretKey("new")) })
	set(t, before, "a", "of a")
	set(t, before, "b", "of b")
	expect(t, pgcache.For[string](after), "a", "of a")
	expect(t, pgcache.For[string](without), "a", "")
	if without.Stats().DecodeErrors == 0 {
		t.Error("an unknown key is no decode error")
	}
	cl.exec("UPDATE " + cl.table() + " SET value = (SELECT value FROM " + cl.table() + " WHERE key = 'a') WHERE key = 'b'")
	reader := cl.on(cl.db, func(o *pgcache.Options) { o.Codec = sealed(t, secretKey("old")) })
	expect(t, pgcache.For[string](reader), "a", "of a")
	expect(t, pgcache.For[string](reader), "b", "")
}

func TestBombInARow(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	bomb := append([]byte{1}, s2.Encode(nil, make([]byte, 64<<20))...)
	writer := cl.on(cl.db, func(o *pgcache.Options) { o.Codec = codec.Raw{} })
	set(t, writer, "k", bomb)
	cl.exec("UPDATE " + cl.table() + " SET codec = 'raw.z'")
	c := cl.on(cl.db, func(o *pgcache.Options) { o.Codec = compress.New(codec.Raw{}) })
	expect(t, pgcache.For[string](c), "k", "")
	if c.Stats().DecodeErrors == 0 {
		t.Error("a bomb is no decode error")
	}
}

// Package localcachetest is what every localcache.Cache has to pass.
package localcachetest

import (
	"fmt"
	"math"
	"testing"

	"github.com/pgcache/go/localcache"
)

// What a cache has to have room for, at the least, to be tested.
const (
	Entries = 128
	Bytes   = 128 << 10
)

// Test checks that the caches which newCache returns, empty and each on its own, keep the promises of localcache.Cache.
// A cache may have any bounds above Entries and Bytes; TestBounds looks at those. It must keep a few small entries for
// the length of a test: one that forgets everything would pass nearly anything.
func Test(t *testing.T, newCache func() localcache.Cache) {
	for name, test := range map[string]func(t *testing.T, c localcache.Cache){
		"absent":             testAbsent,
		"set and get":        testSetAndGet,
		"overwrite":          testOverwrite,
		"delete":             testDelete,
		"clear":              testClear,
		"keys are two parts": testKeysAreTwoParts,
		"too large":          testTooLarge,
		"visibility":         testVisibility,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newCache())
		})
	}
	t.Run("independent", func(t *testing.T) {
		t.Parallel()
		testIndependent(t, newCache(), newCache())
	})
}

func key(n int) localcache.Key {
	return localcache.Key{Namespace: "users", Name: fmt.Sprint(n)}
}

func entry(n int) *localcache.Entry {
	return &localcache.Entry{Value: n, Version: int64(n), Size: 100}
}

// wants checks that c holds exactly e under k; nil for nothing.
func wants(t *testing.T, c localcache.Cache, k localcache.Key, e *localcache.Entry) {
	t.Helper()

	switch got := c.Get(k); {
	case got == e:
	case got == nil:
		t.Errorf("Get(%+v) returned nil, want %+v", k, *e)
	case e == nil:
		t.Errorf("Get(%+v) returned %+v, want nil", k, *got)
	default:
		t.Errorf("Get(%+v) returned %+v, want the very entry %+v", k, *got, *e)
	}
}

func testAbsent(t *testing.T, c localcache.Cache) {
	wants(t, c, key(1), nil)
	wants(t, c, localcache.Key{}, nil)
	c.Delete(key(1))
	c.Clear()
	wants(t, c, key(1), nil)
}

func testSetAndGet(t *testing.T, c localcache.Cache) {
	entries := make([]*localcache.Entry, Entries/2)
	for i := range entries {
		entries[i] = entry(i)
		c.Set(key(i), entries[i])
	}
	for i, e := range entries {
		wants(t, c, key(i), e)
		wants(t, c, key(i), e) // reading takes nothing away
	}
	wants(t, c, key(len(entries)), nil)

	zero := &localcache.Entry{} // no size, no key: odd, and still an entry
	c.Set(localcache.Key{}, zero)
	wants(t, c, localcache.Key{}, zero)
}

func testOverwrite(t *testing.T, c localcache.Cache) {
	for i := range 3 * Entries { // many times: an overwrite takes no room of its own
		e := entry(i)
		c.Set(key(1), e)
		wants(t, c, key(1), e)
	}
	larger := entry(0)
	larger.Size = Bytes / 2
	c.Set(key(1), larger)
	wants(t, c, key(1), larger)
}

func testDelete(t *testing.T, c localcache.Cache) {
	one, two := entry(1), entry(2)
	c.Set(key(1), one)
	c.Set(key(2), two)
	c.Delete(key(1))
	wants(t, c, key(1), nil)
	wants(t, c, key(2), two)

	c.Set(key(1), one)
	wants(t, c, key(1), one)
}

func testClear(t *testing.T, c localcache.Cache) {
	for i := range 4 * Entries {
		c.Set(key(i), entry(i))
	}
	c.Clear()
	for i := range 4 * Entries {
		wants(t, c, key(i), nil)
	}
	again := entry(1)
	c.Set(key(1), again)
	wants(t, c, key(1), again)
}

// testKeysAreTwoParts: joined by anything, some of these would be one.
func testKeysAreTwoParts(t *testing.T, c localcache.Cache) {
	keys := []localcache.Key{
		{Namespace: "a", Name: "b:c"},
		{Namespace: "a:b", Name: "c"},
		{Namespace: "", Name: "a:b:c"},
		{Namespace: "a:b:c", Name: ""},
		{Namespace: "ab", Name: "c"},
		{Namespace: "a", Name: "bc"},
		{Namespace: "", Name: "abc"},
		{Namespace: "A", Name: "b:c"},
		{Namespace: "a", Name: "b\x00c"},
		{Namespace: "a\x00b", Name: "c"},
	}
	entries := make([]*localcache.Entry, len(keys))
	for i, k := range keys {
		entries[i] = entry(i)
		c.Set(k, entries[i])
	}
	for i, k := range keys {
		wants(t, c, k, entries[i])
	}
	c.Delete(keys[0])
	wants(t, c, keys[0], nil)
	for i, k := range keys[1:] {
		wants(t, c, k, entries[i+1])
	}
}

// testTooLarge: what does not fit is not kept, and does not leave an older entry behind to be served in its place.
func testTooLarge(t *testing.T, c localcache.Cache) {
	other := entry(2)
	c.Set(key(1), entry(1))
	c.Set(key(2), other)
	large := entry(3)
	large.Size = math.MaxInt
	c.Set(key(1), large)
	wants(t, c, key(1), nil)
	wants(t, c, key(2), other) // and pushes nothing else out

	c.Set(key(3), large)
	wants(t, c, key(3), nil)
}

func testIndependent(t *testing.T, a, b localcache.Cache) {
	one, two := entry(1), entry(2)
	a.Set(key(1), one)
	wants(t, b, key(1), nil)
	b.Set(key(1), two)
	wants(t, a, key(1), one)
	a.Delete(key(1))
	wants(t, b, key(1), two)
	a.Clear()
	wants(t, b, key(1), two)
}

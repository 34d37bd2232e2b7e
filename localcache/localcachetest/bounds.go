package localcachetest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pgcache/go/localcache"
)

// TestBounds checks that the caches which newCache returns keep to the bounds that it is given, and make good use of
// the room. A cache that evicts with a delay may have a method CleanUp(), which evicts now; otherwise it has a second.
func TestBounds(t *testing.T, newCache func(localcache.Options) localcache.Cache) {
	for _, o := range []localcache.Options{
		{MaxEntries: 1, MaxBytes: 1 << 20},
		{MaxEntries: 10, MaxBytes: 1 << 20},
		{MaxEntries: 1000, MaxBytes: 10_007}, // bytes are scarce, and no multiple of the entries
		{MaxEntries: 1000, MaxBytes: 500},    // fewer bytes than entries
		{MaxEntries: 1000, MaxBytes: 1 << 40},
		{MaxBytes: 100_000}, // the default number of entries
		{},
	} {
		t.Run(fmt.Sprintf("churn %d %d", o.MaxEntries, o.MaxBytes), func(t *testing.T) {
			t.Parallel()
			testChurn(t, newCache(o), o)
		})
	}
	t.Run("room for all", func(t *testing.T) {
		t.Parallel()
		testRoomForAll(t, newCache)
	})
	t.Run("too large", func(t *testing.T) {
		t.Parallel()
		testBarelyTooLarge(t, newCache)
	})
	t.Run("scan", func(t *testing.T) {
		t.Parallel()
		testScan(t, newCache(localcache.Options{MaxEntries: Entries}))
	})
}

// testChurn has several goroutines write more than fits, and looks at what is left.
func testChurn(t *testing.T, c localcache.Cache, o localcache.Options) {
	const (
		writers = 4
		keys    = 5000
	)
	sizes := []int{0, 1, 7, 40, 100, 400}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range keys / 2 { // every key is written twice, by two goroutines
				n := (2*i + w) % keys
				c.Set(key(n), &localcache.Entry{Value: n, Size: sizes[(i+w)%len(sizes)]})
				if i%5 == 0 {
					c.Delete(key(n - 1))
				}
				c.Get(key(n / 2))
			}
		})
	}
	wg.Wait()

	if o.MaxEntries == 0 {
		o.MaxEntries = 4096
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 64 << 20
	}
	entries, bytes := 0, int64(0)
	settles(c, func() bool {
		entries, bytes = 0, 0
		for n := range keys {
			if e := c.Get(key(n)); e != nil {
				entries++
				bytes += int64(e.Size)
			}
		}
		return entries <= o.MaxEntries && bytes <= o.MaxBytes
	})
	if entries > o.MaxEntries {
		t.Errorf("%d entries are kept, want no more than %d", entries, o.MaxEntries)
	}
	if bytes > o.MaxBytes {
		t.Errorf("%d bytes are kept, want no more than %d", bytes, o.MaxBytes)
	}
	if entries == 0 {
		t.Error("nothing is kept")
	}
}

// settles gives a cache that evicts with a delay the time to do so.
func settles(c localcache.Cache, within func() bool) {
	if c, ok := c.(interface{ CleanUp() }); ok {
		c.CleanUp()
		within()
		return
	}
	for deadline := time.Now().Add(time.Second); !within() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
}

// testRoomForAll: exactly as many entries as may be kept are kept, be it the entries or the bytes that are scarce.
func testRoomForAll(t *testing.T, newCache func(localcache.Options) localcache.Cache) {
	for _, o := range []localcache.Options{
		{MaxEntries: 100, MaxBytes: 100_000},
		{MaxEntries: 100, MaxBytes: 10_000},
		{MaxEntries: 7, MaxBytes: 10_001},
	} {
		c := newCache(o)
		for range 2 { // the second time they are overwritten
			for n := range o.MaxEntries {
				c.Set(key(n), entry(n))
			}
		}
		settles(c, func() bool { return true })
		for n := range o.MaxEntries {
			if c.Get(key(n)) == nil {
				t.Errorf("%+v: entry %d of %d is gone", o, n, o.MaxEntries)
			}
		}
	}
}

// testBarelyTooLarge: an entry as large as the bound is kept, one byte more is not.
func testBarelyTooLarge(t *testing.T, newCache func(localcache.Options) localcache.Cache) {
	c := newCache(localcache.Options{MaxEntries: 10, MaxBytes: 1009})
	small, fits := entry(1), entry(2)
	fits.Size = 1009
	c.Set(key(1), fits)
	wants(t, c, key(1), fits)
	settles(c, func() bool { return true })
	wants(t, c, key(1), fits)

	c.Set(key(1), small)
	wants(t, c, key(1), small)
	large := entry(3)
	large.Size = 1010
	c.Set(key(1), large)
	wants(t, c, key(1), nil)
}

// testScan: keys that are read again and again outlive a scan of keys that are read once. Dropping the oldest is not
// enough: half of the reads would miss.
func testScan(t *testing.T, c localcache.Cache) {
	const (
		hot      = Entries / 4
		perRound = Entries / 2 // how many keys the scan reads while each hot one is read once
		rounds   = 100
	)
	read := func(n int) (hit bool) {
		if c.Get(key(n)) != nil {
			return true
		}
		c.Set(key(n), entry(n))
		return false
	}
	hits := 0
	for round := range rounds {
		for n := range hot {
			if read(n) {
				hits++
			}
		}
		for i := range perRound {
			read(hot + round*perRound + i)
		}
	}
	if hits < rounds*hot*3/4 {
		t.Errorf("of %d reads of keys that are read all the time %d hit during a scan, want three quarters at least", rounds*hot, hits)
	}
}

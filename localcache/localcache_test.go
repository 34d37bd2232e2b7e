package localcache_test

import (
	"math"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/pgcache/go/localcache"
	"github.com/pgcache/go/localcache/localcachetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNew(t *testing.T) {
	t.Parallel()

	for name, o := range map[string]localcache.Options{
		"defaults":         {},
		"small":            {MaxEntries: localcachetest.Entries, MaxBytes: localcachetest.Bytes},
		"entries alone":    {MaxEntries: localcachetest.Entries},
		"bytes alone":      {MaxBytes: localcachetest.Bytes},
		"beyond all bound": {MaxEntries: math.MaxInt, MaxBytes: math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			localcachetest.Test(t, func() localcache.Cache { return localcache.New(o) })
		})
	}
	t.Run("bounds", func(t *testing.T) {
		t.Parallel()
		localcachetest.TestBounds(t, localcache.New)
	})
}

// TestNewInABurst: whatever otter's own goroutines do in the meantime, a burst of writes keeps to the bounds.
func TestNewInABurst(t *testing.T) {
	t.Parallel()

	const entries, size = 64, 1000
	c := localcache.New(localcache.Options{MaxEntries: entries, MaxBytes: entries * size})
	var keys []localcache.Key
	for i := range 6 * entries {
		k := localcache.Key{Name: strings.Repeat("k", i+1)}
		c.Set(k, &localcache.Entry{Size: size})
		keys = append(keys, k)

		kept := 0
		for _, k := range keys {
			if c.Get(k) != nil {
				kept++
			}
		}
		if kept > entries+entries/16 {
			t.Fatalf("%d entries are kept after %d writes, want no more than %d and a sixteenth", kept, i+1, entries)
		}
	}
}

func TestNewRefusesNonsense(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		o     localcache.Options
		wants string
	}{
		{localcache.Options{MaxEntries: -1}, "MaxEntries is -1"},
		{localcache.Options{MaxBytes: -2}, "MaxBytes is -2"},
	} {
		c := localcache.New(tt.o)
		faulty, ok := c.(interface{ Err() error })
		if !ok {
			t.Fatalf("New(%+v) returned a cache without a method Err", tt.o)
		}
		if err := faulty.Err(); err == nil || !strings.HasPrefix(err.Error(), "pgcache: ") || !strings.Contains(err.Error(), tt.wants) {
			t.Errorf("New(%+v): Err returned %v, want one that says %q", tt.o, err, tt.wants)
		}
		keepsNothing(t, c)
	}
	if _, faulty := localcache.New(localcache.Options{}).(interface{ Err() error }); faulty {
		t.Error("the zero Options give a faulty cache")
	}
}

func TestNone(t *testing.T) {
	t.Parallel()

	if localcache.None() != localcache.None() {
		t.Error("two values of None differ")
	}
	if localcache.None() == localcache.New(localcache.Options{}) {
		t.Error("None equals a cache that keeps something")
	}
	keepsNothing(t, localcache.None())
}

func keepsNothing(t *testing.T, c localcache.Cache) {
	t.Helper()

	k := localcache.Key{Namespace: "users", Name: "42"}
	c.Set(k, &localcache.Entry{Value: "Ada", Size: 10})
	if e := c.Get(k); e != nil {
		t.Errorf("Get returned %+v from a cache that keeps nothing", e)
	}
	c.Delete(k)
	c.Clear()
}

func TestGetAllocatesNothing(t *testing.T) {
	// Not parallel: testing.AllocsPerRun counts what every goroutine allocates.
	c := localcache.New(localcache.Options{})
	k, absent := localcache.Key{Namespace: "users", Name: "42"}, localcache.Key{Namespace: "users", Name: "43"}
	c.Set(k, &localcache.Entry{Value: "Ada", Size: 10})
	if n := testing.AllocsPerRun(1000, func() { c.Get(k); c.Get(absent) }); n != 0 {
		t.Errorf("a hit and a miss allocate %v times, want 0", n)
	}
}

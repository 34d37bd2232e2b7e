package localcache

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/maypok86/otter/v2"
)

const benchKeys = 1024 // a power of two

func benchEntries() (keys []Key, names []string, entries []*Entry) {
	for i := range benchKeys {
		k := Key{Namespace: "users", Name: fmt.Sprintf("%08d", i)}
		keys = append(keys, k)
		names = append(names, k.Namespace+":"+k.Name)
		entries = append(entries, &Entry{Value: i, Size: 256})
	}
	return keys, names, entries
}

var sink *Entry

// BenchmarkGet measures a hit, beside otter's own with a plain string for a key, with an expiry and without. Otter keeps
// count of reads only from half full on, so there are two sizes.
func BenchmarkGet(b *testing.B) {
	keys, names, entries := benchEntries()
	for _, size := range []int{4 * benchKeys, benchKeys + benchKeys/4} {
		name := fmt.Sprintf("%d of %d/", benchKeys, size)

		b.Run(name+"localcache", func(b *testing.B) {
			c := New(Options{MaxEntries: size})
			for i, k := range keys {
				c.Set(k, entries[i])
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				sink = c.Get(keys[i&(benchKeys-1)])
			}
		})

		theirs := func(expiry otter.ExpiryCalculator[string, *Entry]) func(b *testing.B) {
			return func(b *testing.B) {
				c := otter.Must(&otter.Options[string, *Entry]{MaximumSize: size, ExpiryCalculator: expiry})
				defer c.StopAllGoroutines()
				for i, n := range names {
					c.Set(n, entries[i])
				}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					sink, _ = c.GetIfPresent(names[i&(benchKeys-1)])
				}
			}
		}
		b.Run(name+"otter", theirs(nil))
		b.Run(name+"otter with expiry", theirs(otter.ExpiryWriting[string, *Entry](time.Hour)))
	}
}

// BenchmarkSet measures an overwrite in a cache that holds every key, and a churn through one that holds a tenth.
func BenchmarkSet(b *testing.B) {
	keys, _, entries := benchEntries()
	for name, size := range map[string]int{"overwrite": 4 * benchKeys, "churn": benchKeys / 10} {
		b.Run(name, func(b *testing.B) {
			c := New(Options{MaxEntries: size})
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c.Set(keys[i&(benchKeys-1)], entries[i&(benchKeys-1)])
			}
		})
	}
}

// BenchmarkMemory reports what an entry costs beside the bytes of its key and its value, in B/entry.
func BenchmarkMemory(b *testing.B) {
	const n = 100_000
	var keys []Key
	for i := range n {
		keys = append(keys, Key{Namespace: "users", Name: fmt.Sprintf("%08d", i)})
	}
	value := any("a value that all of them share")
	for b.Loop() {
		before := heap()
		c := New(Options{MaxEntries: n, MaxBytes: 1 << 30})
		for _, k := range keys {
			c.Set(k, &Entry{Value: value, Size: 256})
		}
		b.ReportMetric(float64(heap()-before)/n, "B/entry")
		runtime.KeepAlive(c)
	}
	runtime.KeepAlive(keys)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // what the first one only unlinked
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

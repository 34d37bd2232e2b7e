package localcache

import (
	"fmt"
	"iter"
	"math"
	"sync/atomic"

	"github.com/maypok86/otter/v2"
)

const (
	defaultMaxEntries = 4096
	defaultMaxBytes   = 64 << 20
)

// New returns a cache within the bounds of o, safe for concurrent use. It favours what is used often and recently; when
// it is full, a new entry may be the one that goes. While writes come in it may be over its bounds by about a sixteenth
// for a moment.
//
// It needs no closing: it works on the goroutines that call it and on others that end within milliseconds.
//
// Negative bounds give a cache that keeps nothing and has a method Err() error, which says what is wrong.
func New(o Options) Cache {
	if err := o.validate(); err != nil {
		return invalid{err: err}
	}
	b := o.bounds()
	c := &bounded{bounds: b}
	// otter knows no expiry here: who calls Get compares the deadline with a clock that it has read already, which is half
	// the price, and needs no timer goroutine.
	c.otter = otter.Must(&otter.Options[Key, *Entry]{
		MaximumWeight: b.total,
		Weigher:       func(_ Key, e *Entry) uint32 { return b.weight(e) },
		Executor:      c.housekeep,
	})
	return c
}

func (o Options) validate() error {
	if o.MaxEntries < 0 {
		return fmt.Errorf("pgcache: localcache: MaxEntries is %d, want 0 (the default, %d) or more", o.MaxEntries, defaultMaxEntries)
	}
	if o.MaxBytes < 0 {
		return fmt.Errorf("pgcache: localcache: MaxBytes is %d, want 0 (the default, %d) or more", o.MaxBytes, defaultMaxBytes)
	}
	return nil
}

// bounded is an otter cache bounded in entries and in bytes.
type bounded struct {
	bounds
	otter   *otter.Cache[Key, *Entry]
	writing atomic.Int32  // calls that write
	recent  atomic.Uint64 // weight stored since the last CleanUp
}

// housekeep runs work that otter asks for. While a write is under way it runs here, on a goroutine that writes: to start one for each write
// would cost more than the work. After reads it runs on a goroutine of its own, so that a hit does not wait for it.
func (c *bounded) housekeep(work func()) {
	if c.writing.Load() > 0 {
		work()
	} else {
		go work()
	}
}

func (c *bounded) Get(k Key) *Entry {
	e, _ := c.otter.GetIfPresent(k)
	return e
}

func (c *bounded) Set(k Key, e *Entry) {
	if !c.fits(e) {
		c.Delete(k)
		return
	}
	c.writing.Add(1)
	c.otter.Set(k, e)
	c.writing.Add(-1)

	// A burst of writes can be hundreds of entries ahead of otter's eviction. So the writer that exceeds the slack waits until
	// otter has evicted what is over the bounds.
	slack := c.total / 16
	if c.recent.Add(uint64(c.weight(e))) > slack && c.recent.Swap(0) > slack {
		c.otter.CleanUp()
	}
}

func (c *bounded) Delete(k Key) {
	c.writing.Add(1)
	c.otter.Invalidate(k)
	c.writing.Add(-1)
}

// Keys are the keys of all entries. What comes or goes meanwhile may be among them or not.
func (c *bounded) Keys() iter.Seq[Key] { return c.otter.Keys() }

func (c *bounded) Clear() { c.otter.InvalidateAll() }

// Size is about how many entries there are, and how much of the bounds they take, from 0 to about 1.
func (c *bounded) Size() (entries int, full float64) {
	return c.otter.EstimatedSize(), float64(c.otter.WeightedSize()) / float64(c.total)
}

// CleanUp evicts what is over the bounds now, rather than soon. Tests want it.
func (c *bounded) CleanUp() { c.otter.CleanUp() }

// bounds makes one bound in weight, all that otter knows, of a bound in entries and one in bytes: an entry weighs its
// bytes, but at least its share, one part in MaxEntries of the whole. Then neither more than MaxEntries fit nor more
// than MaxBytes. In a mixture of large and small entries the two add up: small ones that take half of the shares leave
// half of the bytes to the large ones.
type bounds struct {
	share   uint64 // the least that an entry weighs
	total   uint64 // the whole: MaxEntries shares, which is MaxBytes rounded down
	largest uint64 // bytes of the largest entry that is kept
}

func (o Options) bounds() bounds {
	if o.MaxEntries == 0 {
		o.MaxEntries = defaultMaxEntries
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultMaxBytes
	}
	// An entry weighs a byte at least, so there are never more entries than bytes. It weighs no more than 32 bits can
	// say: a share that reaches this is large enough for anything, because an entry beyond 4 GiB is never kept.
	bytes := uint64(o.MaxBytes)
	entries := min(uint64(o.MaxEntries), bytes)
	share := min(bytes/entries, math.MaxUint32)
	return bounds{share: share, total: share * entries, largest: min(bytes, math.MaxUint32)}
}

// fits reports whether e may be kept at all.
func (b bounds) fits(e *Entry) bool { return e.Size <= 0 || uint64(e.Size) <= b.largest }

// weight is for entries that fit. One between total and MaxBytes weighs the whole: it is alone then, within MaxBytes.
func (b bounds) weight(e *Entry) uint32 {
	return uint32(min(max(uint64(max(e.Size, 0)), b.share), b.total))
}
